"""What an extra of Gymrail installs, and whether it is there: from the installed packages' metadata, importing none."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterable, Iterator

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


def packages_of(extra: str) -> tuple[str, ...]:
    """Return the packages of an extra, installed or not; none of one that Gymrail does not have."""
    return _packages().get(extra, ())


def install_command(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install 'gymrail[{extra}]'"


def check_extra(extra: str, *, beside: tuple[str, ...] = ()) -> None:
    """Refuse to go on where a package of an extra is missing or out of range, before any of them is imported.

    Args:
        beside: packages of the extra whose own demands on others are held too: those that break late, or not at all,
            where these are not met.

    Raises:
        InputError: with the package, the range and the command.
    """
    missing_packages(extra)  # an extra that there is
    missing = [name for name in _packages()[extra] if not _is_importable(name)]
    if missing:
        names = ", ".join(missing)
        raise InputError(f"gymrail[{extra}] needs {names}, not installed here: {install_command(extra)}")
    lines = [line for line in importlib.metadata.requires("gymrail") or () if _is_of(line, extra)]
    for problem in _out_of_range(f"gymrail[{extra}]", lines, extra):
        raise InputError(f"{problem}: pip install -U 'gymrail[{extra}]'")
    for name in beside:
        for problem in _out_of_range(f"{name} {_version(name)}", importlib.metadata.requires(name) or ()):
            raise InputError(f"{problem}: pip install -U {name}")


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


def _is_importable(name: str) -> bool:
    """Whether there is both the package's metadata and something to import; the names of the extras' packages that
    matter here are those of their modules."""
    return _version(name) is not None and importlib.util.find_spec(name.replace("-", "_")) is not None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_of(line: str, extra: str) -> bool:
    found = _REQUIREMENT.match(line)
    return found is not None and found["extra"] == extra


def _out_of_range(who: str, lines: Iterable[str], extra: str = "") -> Iterator[str]:
    """Say which requirements are not met; those of other extras are passed over."""
    from packaging.requirements import Requirement  # the packages of every trainer's extra bring it

    for line in lines:
        requirement = Requirement(line)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        version = _version(requirement.name) if applies else None
        if version is not None and not requirement.specifier.contains(version, prereleases=True):
            yield f"{who} needs {requirement.name} {requirement.specifier}; installed is {version}"
        elif applies and version is None:
            yield f"{who} needs {requirement.name}, which is not installed"
