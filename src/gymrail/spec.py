"""An environment, ready to play: its class, its settings, its manifest (`environment.yaml`), what its `setup`
loaded."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gymrail.environment import Environment, tool_table
from gymrail.errors import InputError, did_you_mean, guard
from gymrail.messages import responses_tools
from gymrail.task import Task, content_hash
from gymrail.tools import ToolSpec

Split = Literal["train", "validation", "test", "example", "benchmark"]

GENERATED_SPLITS: dict[str, range] = {
    "train": range(2, 10),
    "example": range(2, 10),
    "validation": range(0, 1),
    "test": range(1, 2),
}
"""Which tenths of a generator's task space a split draws from; the tenth is a hash of the task's content."""
_DRAWS = 2000
_SETUP_SECONDS = 3600.0
"""A corpus may take long to load, but not for ever."""


class Properties(BaseModel):
    """The five properties that an environment is described by."""

    model_config = ConfigDict(extra="forbid")

    rollout_structure: str = "single-step"
    capabilities: list[str] = []
    knowledge_domain: str = "general"
    task_type: str = "natural"
    verification: str = "code"


class DatasetEntry(BaseModel):
    """Where a split's tasks come from."""

    model_config = ConfigDict(extra="forbid")

    name: str
    split: Split
    source: Literal["generator", "jsonl", "huggingface"] = "jsonl"
    path: str | None = None
    """JSONL file, relative to environment.yaml; or the hub's dataset id."""
    file: str | None = None
    """A file inside the hub's dataset."""
    size: int | None = None
    """Tasks that a generator makes by default."""
    license: str | None = None
    prompt: str | None = None
    """A prompt config, relative to environment.yaml, for rows that have no prompt of their own: docs/data.md."""

    @model_validator(mode="after")
    def _generated_tasks_have_prompts(self) -> Self:
        if self.prompt is not None and self.source == "generator":
            raise ValueError(f"dataset {self.name!r} is generated, and its tasks have prompts; 'prompt' is for files")
        return self


class AgentSettings(BaseModel):
    """How an agent plays this environment unless told otherwise."""

    model_config = ConfigDict(extra="forbid")

    max_steps: int = Field(32, ge=1)
    """Model calls per episode; reaching it truncates the rollout."""


class Manifest(BaseModel):
    """`environment.yaml`: what is not code."""

    model_config = ConfigDict(extra="forbid")

    description: str = ""
    properties: Properties = Properties()
    reward_range: tuple[float, float] | None = None
    datasets: list[DatasetEntry] = []
    config: dict[str, Any] = {}
    agent: AgentSettings = AgentSettings()  # pyright: ignore[reportCallIssue]
    license: str | None = None
    extra: str | None = None
    """The extra of Gymrail that brings the packages it needs, such as `math`."""
    reproducible: bool = True
    """Whether equal tool calls on an equal seed give equal outputs, so that a rollout can be replayed."""

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest.

        Raises:
            InputError: naming the file, the key and the nearest allowed key.
        """
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except yaml.YAMLError as error:
            raise InputError(f"{path}: not valid YAML: {error}") from None
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise InputError(f"{path}: {explain(error, cls)}") from None


@dataclass(slots=True)
class EnvironmentSpec:
    """An environment as it is named, configured and opened; one per process and configuration."""

    name: str
    cls: type[Environment[Any]]
    manifest: Manifest = field(default_factory=Manifest)
    config: Any = None
    path: Path | None = None
    """The folder or file that it was found in."""
    source: str | None = None
    """What `find` was given, where neither name nor path finds it again."""
    _shared: asyncio.Future[Any] | None = None
    _loaded: Any = None
    _is_loaded: bool = False

    def __post_init__(self) -> None:
        if self.config is None:
            self.config = make_config(self.cls, self.manifest.config, self.name)
        tool_table(self.cls)

    def with_config(self, overrides: Mapping[str, Any]) -> EnvironmentSpec:
        """Return the same environment with other settings."""
        config = make_config(self.cls, {**self.config.model_dump(exclude_unset=True), **overrides}, self.name)
        return EnvironmentSpec(self.name, self.cls, self.manifest, config, self.path, self.source)

    def with_files(self, files: Mapping[Split, str]) -> EnvironmentSpec:
        """Return the same environment with its tasks of these splits read from JSONL files.

        Raises:
            InputError: there is no such file.
        """
        for split, name in files.items():
            if not Path(name).is_file():
                raise InputError(f"{self.name}: there is no file {name!r} for the split {split!r}.")
        entries = [
            DatasetEntry(name=Path(name).stem, split=split, path=str(Path(name).resolve()))
            for split, name in files.items()
        ]
        kept = [entry for entry in self.manifest.datasets if entry.split not in files]
        manifest = self.manifest.model_copy(update={"datasets": [*entries, *kept]})
        return EnvironmentSpec(self.name, self.cls, manifest, self.config, self.path, self.source)

    @property
    def reward_range(self) -> tuple[float, float]:
        return self.manifest.reward_range or self.cls.reward_range

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as records and workers have them: JSON, without secrets."""
        return self.config.model_dump(mode="json")

    @property
    def description(self) -> str:
        return self.manifest.description or (self.cls.__doc__ or "").strip().split("\n")[0]

    @property
    def version(self) -> str:
        """A hash of the environment's code, manifest and settings."""
        digest = hashlib.blake2b(digest_size=8)
        source = self.path if self.path and self.path.is_dir() else None
        files = (
            sorted(source.rglob("*.py")) + sorted(source.rglob("*.yaml"))
            if source
            else [self.path]
            if self.path
            else []
        )
        for file in files:
            digest.update(file.read_bytes())
        digest.update(self.config.model_dump_json().encode())
        return digest.hexdigest()

    @property
    def tools(self) -> dict[str, ToolSpec]:
        return tool_table(self.cls)

    def offered(self, task: Task) -> dict[str, ToolSpec]:
        """Return the tools that a task offers: those its row names, or all. A class with `call_tool(tool, arguments)`
        runs whatever tools its rows describe.

        Raises:
            InputError: the row names a tool that the environment does not have.
        """
        table = tool_table(self.cls)
        rows = task.offered_tools
        if rows is None:
            return table
        from gymrail.clients.foreign_tool import foreign_tool  # few environments have one

        runs_any = hasattr(self.cls, "call_tool")
        offered: dict[str, ToolSpec] = {}
        for row in rows:
            function = row.get("function")
            name = row.get("name") or (function.get("name", "") if isinstance(function, dict) else "")
            if runs_any and isinstance(name, str) and name not in table:
                described = function if isinstance(function, dict) else row
                offered[name] = foreign_tool(name, described.get("description") or "", described.get("parameters"))
                continue
            if not isinstance(name, str) or name not in table:
                raise InputError(
                    f"Task {task.id} offers the tool {name!r}, which {self.name} does not have. "
                    f"{did_you_mean(str(name), table)}"
                )
            offered[name] = table[name]
        return offered

    def tool_schemas(self, task: Task) -> list[dict[str, Any]]:
        """The task's tools as Responses function tools: the row's own wording where it brings one."""
        rows = task.offered_tools
        if rows is None:
            return [spec.schema for spec in tool_table(self.cls).values()]
        return responses_tools(rows)

    async def setup(self) -> Any:
        """Load what all episodes share, once; callers that come meanwhile wait for the same load."""
        if self._is_loaded:
            return self._loaded
        # A load of another event loop died with that loop.
        if self._shared is None or self._shared.get_loop() is not asyncio.get_running_loop():
            self._shared = asyncio.ensure_future(self._load())
        return await asyncio.shield(self._shared)

    async def _load(self) -> Any:
        try:
            self._loaded = await guard("setup", self.cls.setup, self.config, timeout_seconds=_SETUP_SECONDS)
            self._is_loaded = True
        finally:
            self._shared = None  # after a failure the next episode tries again
        return self._loaded

    async def teardown(self) -> None:
        """Give back what `setup` loaded; the next episode loads it again."""
        if self._is_loaded:
            shared, self._loaded, self._is_loaded, self._shared = self._loaded, None, False, None
            await guard("close", self.cls.teardown, shared)

    @property
    def is_generated(self) -> bool:
        """Whether the environment makes its own tasks."""
        return self.cls.generate.__func__ is not Environment.generate.__func__  # pyright: ignore[reportFunctionMemberAccess]

    def generate(self, split: str, index: int, seed: int = 0) -> Task:
        """Make task `index` of a split. Splits never overlap: each owns its tenths of the task space, by a hash of the
        content, or of the environment's `split_by`.

        Raises:
            InputError: the generator makes too few different tasks for this split.
        """
        tenths = GENERATED_SPLITS.get(split)
        if tenths is None:
            raise InputError(f"{self.name} generates no split {split!r}. {did_you_mean(split, GENERATED_SPLITS)}")
        rng = Random(f"{seed}:{split}:{index}")
        make = self._generator()
        for _ in range(_DRAWS):
            task = make(rng)
            if not isinstance(task, Task):
                raise InputError(
                    f"{self.cls.__qualname__}.generate returned {task!r}; "
                    "it must return a Task, made with Task.ask(...)."
                )
            if self._tenth(task) in tenths:
                return task
        raise InputError(
            f"{self.name}: none of {_DRAWS} generated tasks falls into split {split!r}; "
            "the generator makes too few different tasks."
        )

    def _tenth(self, task: Task) -> int:
        if not self.cls.split_by:
            return int(task.id, 16) % 10
        missing = [name for name in self.cls.split_by if name not in task.row]
        if missing:
            raise InputError(
                f"{self.cls.__qualname__}.split_by names {missing[0]!r}, which its generated task does not have. "
                f"{did_you_mean(missing[0], task.row)}"
            )
        return int(content_hash({name: task.row[name] for name in self.cls.split_by}), 16) % 10

    def _generator(self) -> Callable[[Random], Task]:
        takes_config = "config" in inspect.signature(self.cls.generate).parameters
        make: Callable[..., Task] = self.cls.generate
        return functools.partial(make, config=self.config) if takes_config else make

    def tasks(self, split: str = "train", *, limit: int | None = None, seed: int = 0) -> Iterator[Task]:
        """Yield a split's tasks: from its dataset, or from the generator (endless unless `limit` or the manifest's size
        ends it).

        Raises:
            InputError: the environment has no such split, or a row is bad (file, line, field and value).
        """
        entry = next((entry for entry in self.manifest.datasets if entry.split == split), None)
        if entry is None and not self.is_generated:
            splits = [entry.split for entry in self.manifest.datasets]
            raise InputError(
                f"{self.name} has no split {split!r} and generates no tasks. {did_you_mean(split, splits)}"
            )
        if entry is None or entry.source == "generator":
            size = limit if limit is not None else entry.size if entry else None
            index = 0
            while size is None or index < size:
                yield self.generate(split, index, seed)
                index += 1
            return
        from gymrail.data.sources import read_dataset  # the core's vocabulary stands below `data`

        yield from itertools.islice(read_dataset(entry, self), limit)


def make_config(cls: type[Environment[Any]], values: Mapping[str, Any], name: str) -> Any:
    """Build an environment's settings.

    Raises:
        InputError: naming the key and the nearest allowed key.
    """
    try:
        return cls.Config.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(f"Settings of {name}: {explain(error, cls.Config)}") from None


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Say what is wrong with a configuration, with the value, and what is allowed."""
    problems = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            key = str(problem["loc"][-1])
            allowed = _fields_at(model, problem["loc"][:-1])
            problems.append(f"unknown key '{place}'. {did_you_mean(key, allowed)}")
        elif problem["type"] == "missing":
            problems.append(f"'{place}' is required")
        else:
            said = problem["msg"].removeprefix("Value error, ")
            # What is wrong with the whole is not made clearer by all of it.
            problems.append(f"'{place}' is {problem['input']!r}: {said}" if place else said)
    return "; ".join(problems)


def _fields_at(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    for part in path:
        if isinstance(part, int) or part not in model.model_fields:
            continue
        nested = _model_in(model.model_fields[part].annotation)
        if nested is None:
            return []
        model = nested
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
