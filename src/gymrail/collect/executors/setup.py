"""What a worker needs before it can play, as it travels to another process: functions that build the live objects
there.

    Setup([source_of(spec)], partial(build_model, "oracle:0.5"))
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from gymrail.agents.tool_loop import Agent, ToolLoop
from gymrail.episode import DEFAULT_LIMITS, Limits
from gymrail.errors import InputError
from gymrail.models.model import EpisodePolicy, Model
from gymrail.registry import environment_folders, find
from gymrail.spec import EnvironmentSpec, Manifest


class Source(Protocol):
    """Where a worker finds an environment."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str:
        """Of code and settings where the run began; a worker that finds another one refuses to play."""
        ...

    def load(self) -> EnvironmentSpec:
        """Load it, in the worker."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """An environment that `registry.find` finds again."""

    name: str
    version: str
    source: str
    """What `find` takes."""
    settings: Mapping[str, Any] | None = None
    path: Path | None = None
    """The folder or file, where it is no part of an installed package."""

    def load(self) -> EnvironmentSpec:
        spec = find(self.source)
        return spec.with_config(self.settings) if self.settings else spec

    def moved(self, path: Path) -> Found:
        """Return the same environment where its folder or file lies elsewhere."""
        assert self.path is not None, "an installed environment is found by its name"
        return replace(self, path=path, source=str(path) + self.source.removeprefix(str(self.path)))


@dataclass(frozen=True, slots=True)
class Imported:
    """An environment whose class can be imported, as `EnvironmentSpec(name, cls)` makes one."""

    name: str
    version: str
    cls: type[Any]
    manifest: Manifest
    settings: Mapping[str, Any]

    def load(self) -> EnvironmentSpec:
        spec = EnvironmentSpec(self.name, self.cls, self.manifest)
        return spec.with_config(self.settings) if self.settings else spec


def source_of(spec: EnvironmentSpec, source: str | None = None) -> Found | Imported:
    """Return how a worker loads `spec`; `source` is what `find` was given, where an address stands behind it.

    Raises:
        InputError: no other process can load it.
    """
    if source is not None and source.startswith(("http://", "https://")):
        return Found(spec.name, spec.version, source)
    settings = spec.settings
    if spec.source is not None:
        return Found(spec.name, spec.version, spec.source, settings)
    if spec.path is None:
        if "<locals>" in spec.cls.__qualname__ or spec.cls.__module__ == "__main__":
            raise InputError(
                f"{spec.name}: no other process can import {spec.cls.__module__}.{spec.cls.__qualname__}; "
                "put the class at the top of a module, or play it without workers."
            )
        return Imported(spec.name, spec.version, spec.cls, spec.manifest, settings)
    if environment_folders().get(spec.name, ("", None))[1] == spec.path:
        return Found(spec.name, spec.version, spec.name, settings)
    path = spec.path.resolve()
    named = str(path) if path.is_dir() else f"{path}:{spec.cls.__name__}"
    return Found(spec.name, spec.version, named, settings, path)


@dataclass(frozen=True, slots=True)
class Setup:
    """How a worker plays. `model` and `agent` are called once in each worker; both must be picklable."""

    environments: Sequence[Source]
    model: Callable[[], Model | EpisodePolicy]
    agent: Callable[[], Agent] = ToolLoop
    limits: Limits = DEFAULT_LIMITS
    retries: int = 1
    """Further attempts where a failure may go away by itself, as of `collect`."""
    retry_seconds: float = 1.0
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that a worker elsewhere would not have."""
    traced_as: str | None = None
    """The run's name in the OpenTelemetry traces that each worker sends; None sends none."""

    def pack(self) -> bytes:
        """Write it for another process.

        Raises:
            InputError: a part of it cannot be pickled.
        """
        try:
            return pickle.dumps(self, pickle.HIGHEST_PROTOCOL)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise InputError(
                f"What the workers play with cannot be sent to another process: {error}. "
                "Give functions and classes from the top of a module, or functools.partial of them."
            ) from None


def unpack_setup(message: bytes) -> Setup:
    """Read what `Setup.pack` wrote."""
    return pickle.loads(message)
