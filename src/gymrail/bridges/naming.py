"""How a name says which foreign environment is meant: `BRIDGE:REST`, where REST may end in `?KEY=VALUE&KEY=VALUE`."""

from __future__ import annotations

import importlib
import re
from types import ModuleType
from typing import Any
from urllib.parse import unquote_plus

import yaml

from gymrail.errors import InputError
from gymrail.extras import install_command

UNBOUNDED = (float("-inf"), float("inf"))
"""The reward range of environments that do not say theirs: any finite reward passes."""


def split_options(name: str) -> tuple[str, dict[str, Any]]:
    """Split `REST?KEY=VALUE&...`; values are read as YAML does: `4`, `false`, `[0, 1]`, `text`.

    Raises:
        InputError: an option has no `=`, or its value is no YAML.
    """
    rest, _, query = name.partition("?")
    options: dict[str, Any] = {}
    for pair in query.split("&") if query else ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"{name!r}: {pair!r} is no option; write KEY=VALUE&KEY=VALUE after the '?'.")
        try:
            options[key] = yaml.safe_load(unquote_plus(value))
        except yaml.YAMLError:
            raise InputError(f"{name!r}: the value of {key!r}, {value!r}, is no YAML.") from None
    return rest, options


def take_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Take what every bridge understands out of `options`, `max_steps` and `reward_range`, as fields of a manifest.

    Raises:
        InputError: a value is not of its kind.
    """
    settings: dict[str, Any] = {"reward_range": UNBOUNDED}
    if "max_steps" in options:
        steps = options.pop("max_steps")
        if not isinstance(steps, int) or steps < 1:
            raise InputError(f"max_steps is {steps!r}; it must be a whole number of at least 1.")
        settings["agent"] = {"max_steps": steps}
    if "reward_range" in options:
        bounds = options.pop("reward_range")
        if not (isinstance(bounds, list) and len(bounds) == 2 and all(isinstance(x, int | float) for x in bounds)):
            raise InputError(f"reward_range is {bounds!r}; it must be a list of two numbers, such as [0, 1].")
        settings["reward_range"] = bounds
    return settings


def required(module: str, *, extra: str, package: str | None = None) -> ModuleType:
    """Import an optional package.

    Raises:
        InputError: it is not installed; the text names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise
        raise InputError(f"This needs the package {package or module}: {install_command(extra)}") from None


def file_name(text: str) -> str:
    """Return what a rollout of that environment is called: letters, digits and `._-` alone."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_") or "environment"
