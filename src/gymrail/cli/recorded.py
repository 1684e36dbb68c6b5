"""Rollouts to go over again: a run directory, or a file of rollouts, NeMo Gym's included, with their environments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gymrail.collect.task_rows import TaskRows
    from gymrail.rollout import Rollout
    from gymrail.spec import EnvironmentSpec


@dataclass(frozen=True, slots=True)
class Recorded:
    """Where rollouts stand, and today's environments of them."""

    path: Path
    specs: dict[str, EnvironmentSpec]
    """By the name that the rollouts have."""
    config: dict[str, Any]
    """Of the run; empty for a file."""
    renamed: str | None = None
    """What all rollouts of a file are taken for."""
    tasks: TaskRows | None = None
    """Where the rollouts' tasks stand whole."""

    def rollouts(self) -> Iterator[Rollout]:
        """Yield the rollouts, each with a key of its own: rows without numbers get them in their order.

        Raises:
            InputError: `tasks` has not the task of one.
        """
        return self._rollouts() if self.tasks is None else map(self.tasks.join, self._rollouts())

    def _rollouts(self) -> Iterator[Rollout]:
        from gymrail.collect.journal import key_of, read_rollouts
        from gymrail.collect.run_directory import RunDirectory

        if self.path.is_dir():
            yield from RunDirectory.open(self.path).rollouts()
            return
        seen: Counter[Any] = Counter()
        places: dict[str, int] = {}
        for rollout in read_rollouts(self.path):
            known = rollout if self.renamed is None else replace(rollout, environment=self.renamed)
            if known.group:  # a row without a place
                known.task_index = places.setdefault(known.group, len(places))
            key = key_of(known)
            seen[key] += 1
            yield known if seen[key] == 1 else replace(known, repeat=known.repeat + seen[key] - 1)

    def described(self) -> dict[str, Any]:
        """Return the run's settings with today's environments in them."""
        from gymrail.cli.runs import environments_entry

        known = self.config.get("environments")
        entries = dict(known) if isinstance(known, dict) else {}
        for name, spec in self.specs.items():
            before = entries.get(name)
            split = before.get("split", "train") if isinstance(before, dict) else "train"
            entries[name] = {**(before if isinstance(before, dict) else {}), **environments_entry(spec, split)}
        return {**self.config, "environments": entries}


def open_recorded(
    path: Path, environment: str | None, settings: Sequence[str] = (), tasks: Path | None = None
) -> Recorded:
    """Open a run directory or a file of rollouts.

    Args:
        environment: plays the part of the run's environment of that name, or of its only one.
        settings: KEY=VALUE, for `environment`, or for the only one.
        tasks: a JSONL file of the tasks that were played.

    Raises:
        InputError: there are no rollouts, an environment cannot be loaded, it is not clear which is meant, or `tasks`
            has not the task of every rollout.
    """
    recorded = _open_run(path, environment) if path.is_dir() else _open_file(path, environment)
    if settings:
        recorded = _with_settings(recorded, environment, settings)
    _refuse_removed_secrets(recorded)
    if tasks is None:
        return recorded
    joined = replace(recorded, tasks=_read_tasks(recorded, tasks))
    for _ in joined.rollouts():  # before anything is written: a task may be missing
        pass
    return joined


def _read_tasks(recorded: Recorded, tasks: Path) -> TaskRows:
    from gymrail.collect.task_rows import TaskRows
    from gymrail.errors import InputError

    if len(recorded.specs) != 1:
        names = ", ".join(sorted(recorded.specs))
        raise InputError(
            f"--tasks is one environment's file, and '{recorded.path}' has rollouts of {names}; "
            "go over them environment by environment."
        )
    return TaskRows.read(tasks)


def _with_settings(recorded: Recorded, environment: str | None, settings: Sequence[str]) -> Recorded:
    from gymrail.cli.configured import parse_settings
    from gymrail.errors import InputError

    meant = _meant(recorded, environment)
    if meant is None:
        raise InputError(
            f"--config is given, and '{recorded.path}' has rollouts of {', '.join(sorted(recorded.specs))}; "
            "say by --env whose setting it is."
        )
    spec = recorded.specs[meant].with_config(parse_settings(settings))
    return replace(recorded, specs={**recorded.specs, meant: spec})


def _refuse_removed_secrets(recorded: Recorded) -> None:
    """A run holds no secrets: a judge would be asked with the text that stands in their place."""
    from gymrail.collect.run_directory import REMOVED
    from gymrail.errors import InputError

    for name, spec in recorded.specs.items():
        gone = [key for key, value in spec.config.model_dump(mode="json").items() if value == REMOVED]
        if gone:
            raise InputError(
                f"'{recorded.path}' does not hold the secret setting {gone[0]!r} of {name}; "
                f"give it by --config {gone[0]}=VALUE."
            )


def _meant(recorded: Recorded, environment: str | None) -> str | None:
    if environment is None or len(recorded.specs) == 1:
        return next(iter(recorded.specs)) if len(recorded.specs) == 1 else None
    return environment


def _open_run(path: Path, environment: str | None) -> Recorded:
    from gymrail.cli.runs import entries_of, specs_of
    from gymrail.collect.run_directory import RunDirectory
    from gymrail.errors import InputError, did_you_mean
    from gymrail.registry import find

    run = RunDirectory.open(path)
    if environment is None:
        return Recorded(path, {spec.name: spec for spec in specs_of(run)}, run.config)
    spec = find(environment)
    entries = entries_of(run)
    names = run.environments | entries.keys()
    name = spec.name if spec.name in names or len(names) != 1 else next(iter(names))
    if name not in names:
        raise InputError(f"'{path}' has no rollouts of {name!r}. {did_you_mean(name, names)}")
    stored = entries.get(name, {}).get("settings") or {}
    return Recorded(path, {name: spec.with_config(stored) if stored else spec}, run.config)


def _open_file(path: Path, environment: str | None) -> Recorded:
    from gymrail.collect.journal import read_rollouts
    from gymrail.errors import InputError
    from gymrail.registry import find

    if not path.exists():
        raise InputError(f"'{path}' does not exist; give a run directory, or a JSONL file of rollouts.")
    if environment is not None:
        spec = find(environment)
        return Recorded(path, {spec.name: spec}, {}, spec.name)
    names = sorted({rollout.environment for rollout in read_rollouts(path)})
    if not names:
        raise InputError(f"'{path}' has no rollouts.")
    try:
        return Recorded(path, {name: find(name) for name in names}, {})
    except InputError as error:
        raise InputError(f"'{path}' does not say which environment its rollouts are of; add --env. {error}") from None
