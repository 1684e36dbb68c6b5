"""A task: one row, in NeMo Gym's format.

    {"responses_create_params": {"input": "The counter shows 3. Make it 7."}, "initial_count": 3, "expected_count": 7}

Only `responses_create_params` reaches the agent. The other fields are what the environment seeds and verifies with;
they stand at top level or inside `verifier_metadata`, and an environment declares them by subclassing `Task`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import orjson
from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError, field_validator, model_validator

from gymrail.errors import InputError, did_you_mean

Item = dict[str, Any]
"""One OpenAI Responses item: a message, a `function_call`, a `function_call_output` or `reasoning`. Raw JSON."""

RESPONSES_PARAMETERS = frozenset(
    {
        "access_programs", "background", "context_management", "conversation", "image", "include", "input",
        "instructions", "max_output_tokens", "max_tool_calls", "metadata", "model", "moderation",
        "parallel_tool_calls", "previous_response_id", "prompt", "prompt_cache_key", "prompt_cache_options",
        "prompt_cache_retention", "reasoning", "safety_identifier", "service_tier", "store", "stream",
        "stream_options", "temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p",
        "truncation", "user",
    }
)  # fmt: skip
"""The parameters of OpenAI's Responses API; a test holds this set against the `openai` package's own type."""


class Task(BaseModel):
    """What an agent is asked, and what the verifier needs to know. Unknown top-level fields are kept and travel
    along."""

    model_config = ConfigDict(extra="allow", ignored_types=(cached_property,))

    responses_create_params: dict[str, Any]
    """OpenAI Responses parameters: `input` (a string or items), `tools`, `temperature`, `parallel_tool_calls`, ..."""

    _row: dict[str, Any] | None = PrivateAttr(default=None)
    _is_opened: bool = PrivateAttr(default=False)

    @classmethod
    def ask(
        cls,
        prompt: str | Sequence[Item],
        *,
        system: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Self:
        """Build a task from a prompt: text or items, an optional system message, more Responses `parameters`, the row's
        own fields."""
        items: str | list[Item] = prompt if isinstance(prompt, str) else list(prompt)
        if system is not None:
            turns = [{"role": "user", "content": items}] if isinstance(items, str) else items
            items = [{"role": "system", "content": system}, *turns]
        return cls(responses_create_params={"input": items, **(parameters or {})}, **fields)

    @classmethod
    def from_row(cls, row: Mapping[str, Any], where: str = "task row") -> Self:
        """Validate one row; `where` names its file and line in the error.

        Raises:
            InputError: naming the place, the field and the value.
        """
        try:
            task = cls.model_validate(row)
        except ValidationError as error:
            raise InputError(_describe(error, where)) from None
        task._row = dict(row)
        return task

    @classmethod
    def from_part(cls, row: Mapping[str, Any]) -> Self:
        """Take a row as it is, though it may lack fields: to look at what was played, never to judge by."""
        task = cls.model_construct(**row)
        task._row = dict(row)
        return task

    @property
    def row(self) -> dict[str, Any]:
        """The task as JSON; a task that was read from a row gives back that very row."""
        # Past pydantic's `__getattr__`, which takes as long as dumping a small task does: every journal line asks.
        private = self.__pydantic_private__
        assert private is not None, "a task has private attributes"
        row: dict[str, Any] | None = private["_row"]
        if row is None:
            row = private["_row"] = self.model_dump(mode="json")
        return row

    @cached_property
    def id(self) -> str:
        """A hash of the row's content: equal rows have equal ids, on every machine. Fields that begin with `_` do not
        count."""
        return content_hash({key: value for key, value in self.row.items() if not key.startswith("_")})

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy the task; with `update` it is another task, with a row and an id of its own."""
        copied = super().model_copy(update=update, deep=deep)
        if update:
            copied._row = None
            vars(copied).pop("id", None)
        return copied

    def opened(
        self, prompt: str | Sequence[Item] | None = None, *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> Self:
        """Return this task with what only its seeded environment knows: the first observation, the episode's tools.

        It keeps its id, for it is the task that was asked. What the row says itself stays: a prompt that has a user's
        turn, a list of tools.
        """
        parameters = dict(self.responses_create_params)
        items = self.input_items if parameters.get("input") else []
        if prompt is not None and not any(item.get("role") == "user" for item in items):
            turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
            parameters["input"] = [*items, *turns]
        if tools is not None and parameters.get("tools") is None:
            parameters["tools"] = [dict(tool) for tool in tools]
        opened = type(self).from_row({**self.row, "responses_create_params": parameters}, f"task {self.id}, opened")
        vars(opened)["id"] = self.id
        opened._is_opened = True
        return opened

    @property
    def is_opened(self) -> bool:
        """Whether its prompt or its tools were told by a seeded environment."""
        return self._is_opened

    @property
    def input_items(self) -> list[Item]:
        """The prompt as a fresh list of items; `instructions` are left to the model."""
        prompt = self.responses_create_params.get("input", "")
        return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)

    @property
    def offered_tools(self) -> list[dict[str, Any]] | None:
        """The row's own tool schemas, or None where the row leaves the choice to the environment."""
        return self.responses_create_params.get("tools")

    @property
    def allows_parallel_calls(self) -> bool:
        return self.responses_create_params.get("parallel_tool_calls") is not False

    @model_validator(mode="before")
    @classmethod
    def _lift_verifier_metadata(cls, data: Any) -> Any:
        metadata = data.get("verifier_metadata") if isinstance(data, Mapping) else None
        if not isinstance(metadata, Mapping):
            return data
        lifted = {name: metadata[name] for name in cls.model_fields if name in metadata and name not in data}
        return {**data, **lifted}

    @field_validator("responses_create_params")
    @classmethod
    def _check_parameters(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        for name in parameters:
            if name not in RESPONSES_PARAMETERS:
                raise ValueError(f"{name!r} is no Responses parameter. {did_you_mean(name, RESPONSES_PARAMETERS)}")
        prompt = parameters.get("input", "")
        if not isinstance(prompt, str) and not (
            isinstance(prompt, list) and all(isinstance(item, dict) for item in prompt)
        ):
            raise ValueError(f"'input' is {_shorten(prompt)}; it must be a string or a list of items")
        tools = parameters.get("tools")
        if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
            raise ValueError(
                f"'tools' is {_shorten(tools)}; it must be a list of function tools, "
                "or absent for all of the environment's"
            )
        return parameters


def content_hash(content: Mapping[str, Any]) -> str:
    """Return a hash of a row, or of a part of it, the same on every machine: 16 hexadecimal digits.

    Raises:
        InputError: it is not JSON.
    """
    try:
        written = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise InputError(f"A task's row must be JSON: {error}. {_shorten(content)}") from None
    return hashlib.blake2b(written, digest_size=8).hexdigest()


def field_of(task: Task, name: str) -> str | None:
    """Return what a field of the task's row says, as text; `a.b` is field b of field a, and None stands for no such
    field.

    A name that the row does not have at top level is looked up in its `verifier_metadata`.
    """
    row = task.row
    metadata = row.get("verifier_metadata")
    for place in (row, metadata if isinstance(metadata, Mapping) else {}):
        value: Any = place
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            return value if isinstance(value, str) else orjson.dumps(value).decode()
    return None


def fields_of(task: Task) -> Iterator[str]:
    """Yield the names that `field_of` takes for this task, one level deep."""
    row = task.row
    metadata = row.get("verifier_metadata")
    for place in (row, metadata if isinstance(metadata, Mapping) else {}):
        for name, value in place.items():
            if not name.startswith("_") and name not in ("responses_create_params", "verifier_metadata", "agent_ref"):
                yield name
                if isinstance(value, Mapping):
                    yield from (f"{name}.{part}" for part in value)


def _describe(error: ValidationError, where: str) -> str:
    problems = []
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"]) or "row"
        message = problem["msg"].removeprefix("Value error, ")
        shown = "" if problem["type"] == "missing" else f" (value {_shorten(problem['input'])})"
        problems.append(f"field '{field}': {message}{shown}")
    return f"{where}: {'; '.join(problems)}."


def _shorten(value: Any, limit: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
