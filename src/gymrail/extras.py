"""What an extra of Gymrail installs, and whether it is there: from the installed package's own metadata."""

from __future__ import annotations

import functools
import importlib.metadata
import re

from gymrail.errors import InputError, did_you_mean

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)[^;]*;.*\bextra\s*==\s*['\"](?P<extra>[a-z-]+)['\"]")


def missing_packages(extra: str) -> list[str]:
    """Return the packages of an extra that are not installed.

    Raises:
        InputError: Gymrail has no such extra; the text names the nearest.
    """
    known = _packages()
    if extra not in known:
        raise InputError(f"Gymrail has no extra {extra!r}. {did_you_mean(extra, known)}")
    return [name for name in known[extra] if not _is_installed(name)]


def install_command(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install 'gymrail[{extra}]'"


@functools.cache
def _packages() -> dict[str, tuple[str, ...]]:
    packages: dict[str, tuple[str, ...]] = {}
    metadata = importlib.metadata.metadata("gymrail")
    for extra in metadata.get_all("Provides-Extra") or ():
        packages[extra] = ()
    for line in importlib.metadata.requires("gymrail") or ():
        found = _REQUIREMENT.match(line)
        if found and found["name"] != "gymrail":
            packages[found["extra"]] = (*packages.get(found["extra"], ()), found["name"])
    return packages


@functools.cache
def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
