"""Bridges: environments of other libraries, named `BRIDGE:REST`, as Gymrail environments.

find("gymnasium:FrozenLake-v1")      find("aviary:gsm8k")        find("verifiers:my_module")
find("openenv:http://host:8000")     find("nemo_gym:http://host:8000#tasks.jsonl")      find("mcp:env.yaml")
"""

from __future__ import annotations

import importlib

from gymrail.spec import EnvironmentSpec

BRIDGES: tuple[str, ...] = ("aviary", "gymnasium", "mcp", "nemo_gym", "openenv", "verifiers")
"""Each is a module of this package with `find(rest) -> EnvironmentSpec`."""


def find_bridged(name: str) -> EnvironmentSpec:
    """Load the environment that `BRIDGE:REST` names.

    Raises:
        InputError: the bridge's package is not installed, or it has no such environment.
    """
    bridge, _, rest = name.partition(":")
    spec = importlib.import_module(f"{__name__}.{bridge}").find(rest)
    spec.source = spec.source or name
    return spec


def is_bridged(name: str) -> bool:
    """Whether a name begins with a bridge's."""
    bridge, colon, rest = name.partition(":")
    return bool(colon and rest) and bridge in BRIDGES
