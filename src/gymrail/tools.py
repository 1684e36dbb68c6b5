"""Tools: a Python method becomes a tool with a JSON Schema, from its signature and its Google-style docstring.

    class Counter(ToolServer):
        @tool
        def increment(self, by: int) -> int:
            '''Add to the counter.

            Args:
                by: How much to add.
            '''

A plain `def` runs on the event loop, so it must be quick; what computes or waits is `async def`, or
`@tool(blocking=True)`, which runs in a thread. Arguments are validated as pydantic does it for JSON ("3" is taken for
an int), unknown ones are refused.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Optional, TypeVar, overload

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from gymrail.errors import InputError, ToolError
from gymrail.tool_schema import describe_type, strict_if_possible, tidy

F = TypeVar("F", bound=Callable[..., Any])
Output = str | list[dict[str, Any]]
"""What the model reads: text, or content parts (`input_text`, `input_image`, `input_file`)."""

_MARK = "__gymrail_tool__"
_PREFIX = "argument_"
"""Before field names of the generated models, so that a parameter may be called `json`, `copy` or `_x`."""


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """What `@tool(...)` takes."""

    name: str | None = None
    """The name the model sees; the method's own by default."""
    blocking: bool = False
    """Run a plain `def` in a thread, because it computes or waits."""
    timeout_seconds: float | None = None
    """A limit of its own, instead of the episode's limit per call."""
    read_only: bool = False
    destructive: bool = False
    idempotent: bool = False
    """The three hints that MCP clients ask for."""


@dataclass(frozen=True, slots=True)
class Image:
    """A picture that a tool returns."""

    data: bytes
    mime_type: str = "image/png"


@dataclass(frozen=True, slots=True)
class File:
    """A document or a sound that a tool returns."""

    data: bytes
    name: str
    mime_type: str = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as it is offered and called."""

    name: str
    description: str
    parameters: dict[str, Any]
    """JSON Schema of the arguments."""
    strict: bool
    """Whether the schema meets OpenAI's strict mode."""
    options: ToolOptions
    method: str
    """Name of the method on its tool server."""
    server: str | None = None
    """Attribute that holds the tool server on the environment; None for the environment's own tools."""
    arguments_model: type[BaseModel] | None = None
    returns: Any = None
    """The return annotation."""

    @property
    def schema(self) -> dict[str, Any]:
        """The tool as an OpenAI Responses function tool."""
        return {
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
            "strict": self.strict,
        }

    @property
    def output_schema(self) -> dict[str, Any] | None:
        """JSON Schema of an object result; None for text, scalars, lists and pictures."""
        if not (inspect.isclass(self.returns) and issubclass(self.returns, BaseModel)):
            return None
        schema = tidy(TypeAdapter(self.returns).json_schema(mode="serialization"))
        return schema if schema.get("type") == "object" else None

    def parse(self, arguments: str | bytes | dict[str, Any]) -> dict[str, Any]:
        """Validate arguments (JSON text or an object) and return them by parameter name.

        Raises:
            ToolError: the arguments are not JSON or do not fit the schema; the text says what is allowed.
        """
        assert self.arguments_model is not None
        validator = self.arguments_model.__pydantic_validator__
        try:
            if isinstance(arguments, dict):
                parsed = validator.validate_json(orjson.dumps(arguments))
            else:
                parsed = validator.validate_json(arguments or b"{}")
        except ValidationError as error:
            raise ToolError(self._explain(error)) from None
        except (TypeError, ValueError) as error:
            raise ToolError(f"Invalid arguments for tool {self.name!r}: {error}.") from None
        return {name[len(_PREFIX) :]: value for name, value in parsed.__dict__.items()}

    def _explain(self, error: ValidationError) -> str:
        problems = []
        for problem in error.errors(include_url=False):
            place = ".".join(str(part) for part in problem["loc"])
            problems.append(f"{place}: {problem['msg']}" if place else problem["msg"])
        required = set(self.parameters.get("required", ()))
        definitions = self.parameters.get("$defs", {})
        allowed = [
            f"{name} ({describe_type(schema, definitions)}{'' if name in required else ', optional'})"
            for name, schema in self.parameters.get("properties", {}).items()
        ]
        expected = ", ".join(allowed) or "no arguments"
        return f"Invalid arguments for tool {self.name!r}: {'; '.join(problems)}. Expected: {expected}."


@overload
def tool(function: F, /) -> F: ...
@overload
def tool(
    *,
    name: str | None = ...,
    blocking: bool = ...,
    timeout_seconds: float | None = ...,
    read_only: bool = ...,
    destructive: bool = ...,
    idempotent: bool = ...,
) -> Callable[[F], F]: ...
def tool(function: Any = None, /, **options: Any) -> Any:
    """Mark a method as a tool; `ToolOptions` lists the options."""

    def mark(target: Any) -> Any:
        setattr(target, _MARK, ToolOptions(**options))
        return target

    return mark if function is None else mark(function)


def collect_tools(owner: type) -> dict[str, ToolSpec]:
    """Return the specs of a class's marked methods, by tool name, in the order of definition.

    Raises:
        InputError: a parameter has no type, a type that JSON cannot carry, or two methods claim one name.
    """
    specs: dict[str, ToolSpec] = {}
    methods = {name: None for cls in reversed(owner.__mro__) for name in vars(cls)}
    for method in methods:
        function = inspect.getattr_static(owner, method, None)
        options = getattr(function, _MARK, None) or getattr(getattr(function, "__func__", None), _MARK, None)
        if not isinstance(options, ToolOptions):
            continue
        if not inspect.isfunction(function):
            raise InputError(
                f"Tool {owner.__qualname__}.{method} is a {type(function).__name__}; "
                "a tool is a plain method with `self`."
            )
        spec = _build(owner, method, function, options)
        if spec.name in specs:
            raise InputError(
                f"{owner.__qualname__} defines the tool {spec.name!r} twice; rename one with @tool(name=...)."
            )
        specs[spec.name] = spec
    return specs


async def invoke(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call a blocking tool in a thread; its context variables go along."""

    def run() -> Any:
        try:
            return function(**arguments)
        except StopIteration as error:  # no future can carry it: the caller would wait for ever
            raise RuntimeError(f"the tool raised StopIteration: {error}") from error

    return await asyncio.to_thread(run)


def render(result: Any) -> Output:
    """Turn what a tool returned into what the model reads: text as it is, pictures and files as parts, everything else
    as JSON."""
    if isinstance(result, str):
        return printable(result)
    if isinstance(result, Image | File):
        return [_part(result)]
    if isinstance(result, list | tuple) and any(isinstance(part, Image | File) for part in result):
        return [_part(part) for part in result]
    return dump_json(result)


def printable(text: str) -> str:
    """Return the text with what UTF-8 cannot carry (lone surrogates, from file names and broken JSON) replaced, so that
    it can be stored."""
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode()


def dump_json(value: Any) -> str:
    """Write JSON; integers of any size.

    Raises:
        TypeError: JSON cannot carry the value.
    """
    try:
        return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY).decode()
    except TypeError:  # integers beyond 64 bits; whatever is wrong with the value is said by this one
        return printable(json.dumps(value, default=_plain, ensure_ascii=False, separators=(",", ":")))


def _part(value: Any) -> dict[str, Any]:
    if isinstance(value, Image | File):
        url = f"data:{value.mime_type};base64,{base64.b64encode(value.data).decode('ascii')}"
        if isinstance(value, Image):
            return {"type": "input_image", "detail": "auto", "image_url": url}
        return {"type": "input_file", "filename": printable(value.name), "file_data": url}
    return {"type": "input_text", "text": printable(value) if isinstance(value, str) else dump_json(value)}


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"a tool returned {type(value).__name__}, which JSON cannot carry")


def _build(owner: type, method: str, function: Callable[..., Any], options: ToolOptions) -> ToolSpec:
    where = f"{owner.__qualname__}.{method}"
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", options.name or method):
        raise InputError(
            f"Tool {where} is named {options.name or method!r}; "
            "a name has up to 64 of the characters a-z, A-Z, 0-9, _ and -."
        )
    if options.blocking and inspect.iscoroutinefunction(function):
        raise InputError(
            f"Tool {where} is async and blocking=True; a thread runs plain functions only, so drop one of the two."
        )
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise InputError(f"Tool {where}: {error}; its types must be importable names at module level.") from None
    import docstring_parser  # its eight styles cost a tenth of `import gymrail`, and only a tool needs one

    text = docstring_parser.parse(inspect.getdoc(function) or "", style=docstring_parser.DocstringStyle.GOOGLE)
    described = {parameter.arg_name: parameter.description or "" for parameter in text.params}
    fields: dict[str, Any] = {}
    for name, parameter in list(inspect.signature(function).parameters.items())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise InputError(
                f"Tool {where}: parameter {name!r} is {parameter.kind.description}; tools take named parameters."
            )
        if name not in hints:
            raise InputError(f"Tool {where}: parameter {name!r} has no type; write for example `{name}: str`.")
        default = ... if parameter.default is parameter.empty else parameter.default
        # `x: int = None` is read as `int | None`: what a strict schema offers must be what it accepts.
        hint = Optional[hints[name]] if default is None else hints[name]  # noqa: UP045 - not every hint has `|`
        about: dict[str, Any] = {"description": described[name]} if described.get(name) else {}
        fields[_PREFIX + name] = (hint, Field(default, alias=name, **about))
    try:
        model = create_model(
            f"{method}_arguments", __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=False), **fields
        )
        schema = model.model_json_schema()
    except (PydanticSchemaGenerationError, PydanticUserError, NameError) as error:
        raise InputError(
            f"Tool {where}: a parameter's type has no JSON Schema ({str(error).splitlines()[0]})."
        ) from None
    parameters, strict = strict_if_possible(tidy(schema))
    summary = "\n\n".join(part for part in (text.short_description, text.long_description) if part)
    return ToolSpec(
        options.name or method, summary, parameters, strict, options, method, None, model, hints.get("return")
    )
