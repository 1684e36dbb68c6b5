"""An environment's state as JSON: its attributes, and those of the tool servers that it composes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Set
from enum import Enum
from typing import Any

from pydantic import BaseModel

from gymrail.environment import Environment, servers_of

_NOT_STATE = frozenset({"task", "config", "shared"})
_DEPTH = 12
"""State that is nested deeper is cut off with its class name."""


def state_of(environment: Environment[Any]) -> dict[str, Any]:
    """Return the attributes of an episode's instance as JSON; a tool server's stand below its attribute's name.

    What JSON cannot say is an object with `class` and its attributes, and no text holds a memory address: equal states
    give equal views.
    """
    own = {name: value for name, value in vars(environment).items() if name not in _NOT_STATE}
    servers = {name: own.pop(name) for name in servers_of(type(environment)) if name in own}
    view = {name: _view(value, (id(environment),)) for name, value in own.items()}
    view.update({name: _attributes(server, (id(environment),)) for name, server in servers.items()})
    return {"done": environment.done, **view}


def _attributes(value: Any, above: tuple[int, ...]) -> dict[str, Any]:
    inside = (*above, id(value))
    return {name: _view(part, inside) for name, part in getattr(value, "__dict__", {}).items()}


def _view(value: Any, above: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, Enum):
        return str(value)
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "backslashreplace")
    if id(value) in above or len(above) > _DEPTH:
        return f"<{type(value).__name__}>"
    inside = (*above, id(value))
    if isinstance(value, Mapping):
        return {str(key): _view(part, inside) for key, part in value.items()}
    if isinstance(value, Set):
        return sorted((_view(part, inside) for part in value), key=repr)
    if isinstance(value, Sequence):
        return [_view(part, inside) for part in value]
    if isinstance(value, BaseModel):
        return _view(value.model_dump(), inside)
    if isinstance(value, type):
        return f"<{value.__qualname__}>"
    if dataclasses.is_dataclass(value):
        return {field.name: _view(getattr(value, field.name, None), inside) for field in dataclasses.fields(value)}
    to_list = getattr(value, "tolist", None)
    if callable(to_list):  # numpy's arrays and numbers
        return _view(to_list(), inside)
    if callable(value):
        return f"<{getattr(value, '__qualname__', type(value).__name__)}>"
    return {"class": type(value).__qualname__, **_attributes(value, above)}
