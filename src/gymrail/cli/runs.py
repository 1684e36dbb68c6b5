"""What commands read from a run directory: its environments, its numbers, its failures."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gymrail.collect.run_directory import RunDirectory
    from gymrail.errors import Failure
    from gymrail.rollout import Rollout
    from gymrail.spec import EnvironmentSpec


def environments_entry(spec: EnvironmentSpec, split: str) -> dict[str, Any]:
    """Return what a run's configuration says about an environment, enough for `specs_of` to load it again."""
    from gymrail.registry import environment_folders

    source = spec.source or spec.name
    installed = environment_folders().get(spec.name, ("", None))[1]
    if spec.source is None and spec.path is not None and installed != spec.path:
        source = f"{spec.path.resolve()}" if spec.path.is_dir() else f"{spec.path.resolve()}:{spec.cls.__name__}"
    return {"source": source, "split": split, "settings": spec.settings}


def specs_of(run: RunDirectory) -> list[EnvironmentSpec]:
    """Load the environments that a run has rollouts of, with the settings that it was played with.

    Raises:
        InputError: one of them is no longer there.
    """
    from gymrail.errors import InputError
    from gymrail.registry import find

    entries = entries_of(run)
    specs = []
    for name in sorted(run.environments | entries.keys()):
        entry = entries.get(name, {})
        try:
            spec = find(entry.get("source", name))
        except InputError as error:
            raise InputError(
                f"The run '{run.path}' has rollouts of {name!r}, which cannot be loaded: {error}"
            ) from None
        settings = entry.get("settings") or {}
        specs.append(spec.with_config(settings) if settings else spec)
    return specs


def rollouts_of(path: Path) -> Iterator[Rollout]:
    """Yield the rollouts of a run directory, or of a JSONL file, NeMo Gym's included.

    Raises:
        InputError: there are none.
    """
    from gymrail.collect.journal import read_rollouts
    from gymrail.collect.run_directory import RunDirectory

    return read_rollouts(path) if path.is_file() else RunDirectory.open(path).rollouts()


def run_metrics(run: RunDirectory, specs: Iterable[EnvironmentSpec] = (), *, by: str | None = None) -> dict[str, Any]:
    """Return the `metrics_of` a run."""
    return metrics_of(run.rollouts(), specs, by=by)


def metrics_of(
    rollouts: Iterable[Rollout], specs: Iterable[EnvironmentSpec] = (), *, by: str | None = None
) -> dict[str, Any]:
    """Return `aggregate` of rollouts, their `failures` by frequency, and what `specs` say: what `compute_metrics`
    computes, and the same metrics by the properties of their manifests."""
    from gymrail.collect.metrics import Metrics
    from gymrail.environment import computes_metrics

    specs = list(specs)
    wanted = {spec.name: spec for spec in specs if computes_metrics(spec.cls)}
    kept: dict[str, list[Rollout]] = defaultdict(list)
    metrics, failures = Metrics(by=by), Counter[tuple[str, str, str, str, str]]()
    for rollout in rollouts:
        metrics.add(rollout)
        if rollout.failure is not None:
            failure = rollout.failure
            failures[rollout.environment, failure.kind, failure.stage, failure.message, _place(failure)] += 1
        elif rollout.environment in wanted:
            kept[rollout.environment].append(rollout)
    result = metrics.result({spec.name: spec.manifest.properties.model_dump() for spec in specs})
    for name, mine in kept.items():
        result["environments"][name] |= _computed(wanted[name], mine)
    for spec in specs:
        if spec.cls.key_metrics and spec.name in result["environments"]:
            row = result["environments"][spec.name]
            row["key_metrics"] = _key_metrics(row, spec.cls.key_metrics)
    names = ("environment", "kind", "stage", "message", "place", "count")
    result["failures"] = [dict(zip(names, (*key, count), strict=True)) for key, count in failures.most_common()]
    return result


def _computed(spec: EnvironmentSpec, rollouts: list[Rollout]) -> dict[str, Any]:
    """What the environment says of its rollouts or, where its code breaks, why: all other numbers are there without."""
    from gymrail.errors import EpisodeFailed, guard

    async def compute() -> dict[str, Any]:
        own = [_with_its_task(spec, rollout) for rollout in rollouts]
        return await guard("verify", dict, await guard("verify", spec.cls.compute_metrics, own))

    try:
        return {"computed": asyncio.run(compute())}
    except EpisodeFailed as error:
        place = _place(error.failure)
        return {"computed": {}, "computed_error": f"{error.failure.message}{f' [{place}]' if place else ''}"}


def _with_its_task(spec: EnvironmentSpec, rollout: Rollout) -> Rollout:
    """The rollout with the task as its environment declares it; as it is where the row lacks a field."""
    from gymrail.errors import InputError

    try:
        return replace(rollout, task=spec.cls.task_type.from_row(rollout.task.row))
    except InputError:
        return rollout


def _key_metrics(row: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    means = {"reward": row["reward"]["mean"], **row["reward_components"], **row["metrics"]}
    there = {**{f"mean/{name}": value for name, value in means.items()}, **row.get("computed", {})}
    return {name: there[name] for name in names if name in there}


def entries_of(run: RunDirectory) -> dict[str, dict[str, Any]]:
    """By environment: what `gymrail rollout` or a recipe's mixture wrote into the run's configuration."""
    from gymrail.registry import name_of

    entries = run.config.get("environments")
    if isinstance(entries, dict):
        return {name: entry for name, entry in entries.items() if isinstance(entry, dict)}
    found = {}
    for entry in run.config.get("mixture") or ():
        source = str(entry.get("environment", ""))
        found[name_of(source)] = {"source": source, "settings": entry.get("config") or {}}
    return found


def _place(failure: Failure) -> str:
    """The last line of an author's own code in the traceback, as FILE:LINE; "" where there is none."""
    frames = [line.strip() for line in failure.trace.splitlines() if line.lstrip().startswith('File "')]
    own = [line for line in frames if "/gymrail/" not in line and "/lib/python" not in line]
    if not own:
        return ""
    path, _, rest = own[-1].removeprefix('File "').partition('", line ')
    return f"{path}:{rest.partition(',')[0]}"
