"""Environments from YAML: each entry of a recipe's mixture loads, takes its settings, and keeps the contract."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gymrail.collect.event_loop import run_async
from gymrail.contract import check_environment
from gymrail.errors import InputError
from gymrail.recipe import MixtureEntry
from gymrail.registry import find
from gymrail.spec import EnvironmentSpec
from gymrail.validation.report import Line, Points

POINTS = Points("environments")
TASKS = 4
"""Tasks of each environment that are held against the contract; `gymrail check` takes more."""


def load_environment(entry: MixtureEntry, settings: Mapping[str, Any]) -> tuple[EnvironmentSpec | None, Line | None]:
    """Load an entry's environment with its settings; or return the line that says why it cannot be loaded."""
    try:
        spec = find(entry.environment)
        given = {**entry.config, **settings}
        return (spec.with_config(given) if given else spec), None
    except InputError as error:
        fix = (
            "Correct the entry of the recipe's mixture; `gymrail list` has the names, `gymrail show NAME` the settings."
        )
        return None, POINTS.failed(entry.environment, str(error), fix)


def check_environments(
    pairs: Sequence[tuple[MixtureEntry, EnvironmentSpec]], settings: Mapping[str, Any], seed: int
) -> Iterator[Line]:
    """Hold each environment against the contract on a few tasks; `settings` are those over the entries' own, by
    the entries' names."""
    for entry, spec in pairs:
        given = {**entry.config, **settings.get(entry.environment, {})}
        yield _check(entry.environment, spec, given, seed)


def _check(source: str, spec: EnvironmentSpec, settings: Mapping[str, Any], seed: int) -> Line:
    report = run_async(check_environment(spec, tasks=TASKS, seed=seed))
    if report.failures:
        first = report.failures[0]
        more = f" (and {len(report.failures) - 1} more checks)" if len(report.failures) > 1 else ""
        words = [f"--config {key}={value}" for key, value in settings.items()]
        fix = f"Every check: {' '.join(['gymrail check', source, *words])}"
        return POINTS.failed(spec.name, f"{first.name}: {first.detail}{more}", fix)
    shown = "".join(f", {key}={value!r}" for key, value in settings.items())
    held = len(report.checks) - len(report.warnings)
    not_held = f", {len(report.warnings)} not possible" if report.warnings else ""
    return POINTS.passed(spec.name, f"{_manifest(spec)}{shown}; {held} checks on {TASKS} tasks passed{not_held}")


def _manifest(spec: EnvironmentSpec) -> str:
    folder = spec.path if spec.path is not None and spec.path.is_dir() else spec.path.parent if spec.path else None
    has_manifest = folder is not None and (folder / "environment.yaml").is_file()
    return "environment.yaml" if has_manifest else "no environment.yaml, defaults of the class"
