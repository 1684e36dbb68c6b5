"""Settings of environments on the command line: `--config KEY=VALUE`, and `--config NAME.KEY=VALUE` where several
environments are named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gymrail.spec import EnvironmentSpec


def configured(specs: Sequence[EnvironmentSpec], pairs: Sequence[str] | None) -> list[EnvironmentSpec]:
    """Return the environments with the settings that `--config` gives them.

    Raises:
        InputError: a pair is no setting, does not say whose it is, or is not allowed by the environment.
    """
    from gymrail.errors import InputError

    names = [spec.name for spec in specs]
    given: dict[str, dict[str, Any]] = {}
    for key, value in parse_settings(pairs or ()).items():
        owner, dot, rest = key.partition(".")
        if dot and owner in names:
            given.setdefault(owner, {})[rest] = value
        elif len(names) == 1:
            given.setdefault(names[0], {})[key] = value
        else:
            raise InputError(
                f"--config {key} does not say whose it is; write NAME.{key}=VALUE with one of {', '.join(names)}."
            )
    return [spec.with_config(given[spec.name]) if spec.name in given else spec for spec in specs]


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Read KEY=VALUE pairs; a value is YAML, so that numbers, lists and mappings can be given.

    Raises:
        InputError: a pair has no `=`.
    """
    import yaml

    from gymrail.errors import InputError

    found = {}
    for pair in pairs:
        key, mark, text = pair.partition("=")
        if not mark or not key:
            raise InputError(
                f"{pair!r} is no setting; write key=value, for example --config judge=http://localhost/v1."
            )
        try:
            found[key] = yaml.safe_load(text)
        except yaml.YAMLError:
            found[key] = text
    return found
