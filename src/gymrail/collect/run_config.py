"""`config.yaml` of a run: the settings as resolved, secrets removed, and what the numbers depend on besides.

config:         what decides about the rollouts, resolved: what the command or the recipe was given, and its defaults
environments:   by name, a hash of code, manifest and settings
datasets:       by environment, a hash of what its tasks come from
execution:      how and where a run is played, which no result depends on: concurrency, workers, budget
versions:       of Python and the packages
resumed:        by resume, when it was and what was different then
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from gymrail.collect.journal import JournalError
from gymrail.errors import InputError
from gymrail.extras import packages_of
from gymrail.spec import EnvironmentSpec

logger = logging.getLogger(__name__)

CONFIG = "config.yaml"
REMOVED = "<removed>"

_EXECUTION = "execution"
_PACKAGES = ("gymrail", "datasets", "nemo-gym", "torch", "transformers", "trl", "unsloth", "vllm")
"""What a run's numbers may depend on, beside what its environments' extras bring; those that are not installed are left
out."""
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
_SECRET_TEXT = re.compile(
    r"(?<=://)[^/@\s]+(?=@)|\b(?:sk-|hf_|Bearer\s+)[\w.~+/-]{8,}"
    r"|(?<=[?&])((?i:(?:[\w-]*[-_])?(?:api_?key|key|token|secret|password|sig)=))[^&#\s,]+"
    r"|((?:^|\s)--?(?i:(?:[\w-]*[-_])?(?:api-?key|key|token|secret|password))[=\s])[^\s-]\S*"
)
"""User and password in an address, a key among its parameters or a program's, and the forms that keys have, wherever
they stand."""


def described(
    config: Mapping[str, Any],
    environments: Iterable[EnvironmentSpec],
    datasets: Mapping[str, str],
    execution: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what a run writes down about how it is played, without secrets."""
    specs = list(environments)
    extras = dict.fromkeys(spec.manifest.extra for spec in specs if spec.manifest.extra)
    packages = dict.fromkeys([*_PACKAGES, *(package for extra in extras for package in packages_of(extra))])
    return {
        "config": without_secrets(config),
        "environments": {spec.name: spec.version for spec in specs},
        "datasets": dict(datasets),
        **({_EXECUTION: without_secrets(execution)} if execution is not None else {}),
        "versions": {"python": platform.python_version(), **dict(_installed(packages))},
    }


def write_config(file: Path, values: Mapping[str, Any]) -> None:
    """Write what `described` a new run, or add to an old one what is different now, and warn of it.

    Raises:
        JournalError: it cannot be written.
    """
    if not file.exists():
        replace_file(file, _to_yaml(values))
        return
    before = read_config(file)
    latest = {part: (before.get(part) or {}) for part in values}
    for resume in before.get("resumed") or ():
        for part in values:
            latest[part] = {**latest[part], **(resume.get(part) or {})}
    changed = {part: _differences(latest[part], now) for part, now in values.items()}
    changed = {part: names for part, names in changed.items() if names}
    for part, names in changed.items():
        # What an older Gymrail did not write down is not known to be different; how a run is played may differ freely.
        if part in before and part != _EXECUTION:
            logger.warning("%s: resumed with other %s than before: %s", file.parent, part, ", ".join(sorted(names)))
    entry = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **changed}
    before.setdefault("resumed", []).append(entry)
    replace_file(file, _to_yaml(before))


def read_config(file: Path) -> dict[str, Any]:
    """Return a run's `config.yaml`; empty where there is none.

    Raises:
        InputError: it is no YAML.
    """
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return {}
    except yaml.YAMLError as error:
        raise InputError(f"{file}: not valid YAML: {error}") from None


def environments_in(config: Mapping[str, Any]) -> set[str]:
    """Return the names of all environments that a run was ever played with."""
    return {name for entry in _entries(config) for name in entry.get("environments") or ()}


def unchanged_datasets(config: Mapping[str, Any], datasets: Mapping[str, str]) -> frozenset[str]:
    """Return the environments whose tasks have come from the same dataset ever since the run began."""
    first, *resumed = _entries(config)
    known = first.get("datasets") or {}
    changed = {name for entry in resumed for name in entry.get("datasets") or ()}
    return frozenset(name for name, now in datasets.items() if known.get(name) == now and name not in changed)


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
    return _SECRET_TEXT.sub(lambda found: f"{found[1] or found[2] or ''}{REMOVED}", str(value))


def replace_file(file: Path, content: bytes) -> None:
    """Write a small file whole or not at all.

    Raises:
        JournalError: it cannot be written.
    """
    partial = file.with_name(f".{file.name}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise JournalError(f"Cannot write '{file}': {error.strerror or error}.") from None


def _entries(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [config, *(config.get("resumed") or ())]


def _installed(packages: Iterable[str]) -> Iterator[tuple[str, str]]:
    for package in packages:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: now.get(key)
        for key in [*now, *(key for key in before if key not in now)]
        if before.get(key) != now.get(key)
    }


def _to_yaml(values: Mapping[str, Any]) -> bytes:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True).encode()
