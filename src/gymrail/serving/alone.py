"""A tool server without an environment around it: tools to call, nothing to judge."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from gymrail.environment import Environment, ToolServer, servers_of
from gymrail.errors import InputError, did_you_mean
from gymrail.spec import EnvironmentSpec, Manifest
from gymrail.task import Task


def alone(name: str, server: type[ToolServer]) -> EnvironmentSpec:
    """Wrap a tool server for serving; each episode has an instance of its own, seeded with the row's fields."""

    def seed(self: Any) -> Any:
        fields = {key: value for key, value in self.task.row.items() if key != "responses_create_params"}
        return self.server.seed(**{key: value for key, value in fields.items() if not key.startswith("_")})

    body = {
        "__doc__": (server.__doc__ or "").strip().split("\n")[0],
        "__module__": server.__module__,
        "__annotations__": {"server": server},
        "seed": seed,
    }
    cls = type(f"{server.__name__}Alone", (Environment,), body)
    cls.task_type = Task
    return EnvironmentSpec(name, cls, Manifest())


def empty_task(spec: EnvironmentSpec, settings: Mapping[str, Any]) -> Task:
    """The task of a tool server that nobody asks anything; `settings` are what its `seed` takes.

    Raises:
        InputError: it takes no setting of that name.
    """
    taken = inspect.signature(servers_of(spec.cls)["server"].seed).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        for name in settings:
            if name == "self" or name not in taken:
                allowed = [name for name in taken if name != "self"]
                raise InputError(f"The tool server {spec.name} has no setting {name!r}. {did_you_mean(name, allowed)}")
    return Task.from_row({"responses_create_params": {"input": ""}, **settings})
