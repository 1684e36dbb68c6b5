"""The directory of one run: its configuration, its rollouts, its failures, its metrics.

runs/<name>/config.yaml      settings as resolved, secrets removed; versions of packages and environments; every resume
            rollouts.jsonl   scored and truncated rollouts, each key once
            failures.jsonl   failed ones, with `_ng_failure_class`; a later success supersedes them
            metrics.json
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import orjson
import yaml

from gymrail.collect.journal import Journal, JournalError, Key, key_of, read_keys, read_rollouts
from gymrail.errors import InputError
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec

if TYPE_CHECKING:
    from gymrail.collect.runner import Job

logger = logging.getLogger(__name__)

CONFIG, ROLLOUTS, FAILURES, METRICS = "config.yaml", "rollouts.jsonl", "failures.jsonl", "metrics.json"
REMOVED = "<removed>"

_PACKAGES = ("gymrail", "datasets", "nemo-gym", "torch", "transformers", "trl", "unsloth", "vllm")
"""What a run's numbers may depend on; those that are not installed are left out."""
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRET_WORDS = frozenset(
    {
        "apikey",
        "key",
        "keys",
        "passwd",
        "password",
        "passwords",
        "secret",
        "secrets",
        "token",
        "authorization",
        "credentials",
    }
)
_SECRET_TEXT = re.compile(r"(?<=://)[^/@\s]+(?=@)|\b(?:sk-|hf_|Bearer\s+)[\w.~+/-]{8,}")
"""User and password in an address, and the forms that keys have, wherever they stand."""


class RunDirectory:
    """A run's files. `create` opens them for writing, `open` for reading alone."""

    def __init__(self, path: Path, rollouts: Journal | None = None, failures: Journal | None = None) -> None:
        self.path = path
        self._rollouts = rollouts
        self._failures = failures
        self._done: set[Key] | None = None

    @classmethod
    def create(
        cls,
        path: Path,
        config: Mapping[str, Any],
        *,
        environments: Iterable[EnvironmentSpec] = (),
        resume: bool = False,
        fsync: bool = False,
    ) -> Self:
        """Open a run for writing; with `resume`, an existing one goes on, and one that does not exist begins.

        Raises:
            InputError: the directory holds a run and `resume` is not set, or another process writes it.
            JournalError: the directory cannot be written.
        """
        exists = (path / CONFIG).exists() or (path / ROLLOUTS).exists()
        if exists and not resume:
            raise InputError(
                f"'{path}' already holds a run. "
                "Run the same command with --resume to go on with it, or name another directory."
            )
        with ExitStack() as opened:
            rollouts = opened.enter_context(Journal.open(path / ROLLOUTS, fsync=fsync))
            _write_config(path / CONFIG, _described(config, environments))
            failures = opened.enter_context(Journal.open(path / FAILURES, fsync=fsync))
            opened.pop_all()
        return cls(path, rollouts, failures)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a run for reading; it may be running.

        Raises:
            InputError: there is no run.
        """
        if not (path / ROLLOUTS).is_file():
            raise InputError(
                f"'{path}' holds no run: '{ROLLOUTS}' is missing. "
                f"`gymrail rollout ENV --model MODEL --run {path}` makes one."
            )
        return cls(path)

    @property
    def config(self) -> dict[str, Any]:
        """The settings that the run was started with."""
        return _read_config(self.path / CONFIG).get("config") or {}

    @property
    def done(self) -> set[Key]:
        """The keys of scored and truncated rollouts: what a resumed run leaves out. Failed ones are played again."""
        if self._done is None:
            self._done = read_keys(self.path / ROLLOUTS)
        return self._done

    def remaining(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Yield the jobs that are not done."""
        done = self.done
        return (job for job in jobs if job.key not in done)

    def record(self, rollout: Rollout) -> None:
        """Write a finished rollout to its file; it is durable when this returns.

        Raises:
            JournalError: it cannot be written.
        """
        assert rollout.outcome is not None, "a rollout is recorded once it has an outcome"
        journal = self._failures if rollout.outcome.status == "failed" else self._rollouts
        if journal is None:
            raise InputError(
                f"The run '{self.path}' is open for reading; "
                "RunDirectory.create(..., resume=True) opens it for writing."
            )
        journal.append(rollout)
        if journal is self._rollouts:
            self.done.add(key_of(rollout))

    def rollouts(self) -> Iterator[Rollout]:
        """Yield one rollout per key: what was scored or truncated, then the last failure of what never was."""
        yield from read_rollouts(self.path / ROLLOUTS)
        failures = self.path / FAILURES
        if not failures.exists():
            return
        done = self.done
        last = {
            key: place for place, rollout in enumerate(read_rollouts(failures)) if (key := key_of(rollout)) not in done
        }
        for place, rollout in enumerate(read_rollouts(failures)):
            if last.get(key_of(rollout)) == place:
                yield rollout

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Replace the run's metrics."""
        _replace(self.path / METRICS, orjson.dumps(metrics, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))

    def metrics(self) -> dict[str, Any]:
        """Return the run's metrics; empty before they were written."""
        file = self.path / METRICS
        return orjson.loads(file.read_bytes()) if file.exists() else {}

    def close(self) -> None:
        """Give the files back; safe to call again."""
        for journal in (self._rollouts, self._failures):
            if journal is not None:
                journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _described(config: Mapping[str, Any], environments: Iterable[EnvironmentSpec]) -> dict[str, Any]:
    return {
        "config": without_secrets(config),
        "environments": {spec.name: spec.version for spec in environments},
        "versions": {"python": platform.python_version(), **dict(_installed())},
    }


def without_secrets(value: Any, name: str = "") -> Any:
    """Return the settings as plain YAML values; what looks like a key, a token, a secret or a password is replaced."""
    words = {word.lower() for word in _WORD.findall(name)}
    if words & _SECRET_WORDS and value and not isinstance(value, bool | int | float):
        return REMOVED
    if words & {"password", "secret"} and value is not None and not isinstance(value, bool):
        return REMOVED
    if isinstance(value, Mapping):
        return {str(key): without_secrets(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [without_secrets(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return _SECRET_TEXT.sub(REMOVED, str(value))


def _installed() -> Iterator[tuple[str, str]]:
    for package in _PACKAGES:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue


def _write_config(file: Path, described: dict[str, Any]) -> None:
    """Write the configuration of a new run, or add to an old one what is different now."""
    if not file.exists():
        _replace(file, _to_yaml(described))
        return
    before = _read_config(file)
    latest = {part: (before.get(part) or {}) for part in described}
    for resume in before.get("resumed") or ():
        for part in described:
            latest[part] = {**latest[part], **(resume.get(part) or {})}
    changed = {part: _differences(latest[part], values) for part, values in described.items()}
    changed = {part: values for part, values in changed.items() if values}
    for part, values in changed.items():
        logger.warning("%s: resumed with other %s than before: %s", file.parent, part, ", ".join(sorted(values)))
    entry = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **changed}
    before.setdefault("resumed", []).append(entry)
    _replace(file, _to_yaml(before))


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: now.get(key)
        for key in [*now, *(key for key in before if key not in now)]
        if before.get(key) != now.get(key)
    }


def _read_config(file: Path) -> dict[str, Any]:
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return {}
    except yaml.YAMLError as error:
        raise InputError(f"{file}: not valid YAML: {error}") from None


def _to_yaml(values: Mapping[str, Any]) -> bytes:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True).encode()


def _replace(file: Path, content: bytes) -> None:
    partial = file.with_name(f".{file.name}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise JournalError(f"Cannot write '{file}': {error.strerror or error}.") from None
