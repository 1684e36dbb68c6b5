"""Prompt configs: YAML that makes `responses_create_params.input` of a row's fields.

    system: You are careful with numbers.
    user: "{question}\nGive the answer in \\boxed{{}}."
    assistant: "\\boxed{{{answer}}}"         # how an example is answered
    examples:
      - fields: {question: What is 1 + 1?, answer: 2}
      - {user: What is 2 + 2?, assistant: "\\boxed{{4}}"}
    images: ["{picture}"]                    # URLs or data URIs, behind the user's text

`{field}` is a field at the row's top level, `{field[key]}` reaches into it, `{{` and `}}` are braces: Python's format
strings, as in NeMo Gym's prompt configs, of which `system` and `user` are the whole. Nothing else of a row gets into
the prompt.
"""

from __future__ import annotations

import re
import string
from _string import formatter_field_name_split  # type: ignore[import-not-found]  # what str.format itself takes names apart with
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from gymrail.errors import GymrailError, InputError, did_you_mean
from gymrail.spec import explain
from gymrail.task import Item, Task

ANSWER_FIELD = re.compile(
    r"expected(_\w+)?|(\w+_)?answers?|ground_truth\w*|gold(_\w+)?|(reference_)?solutions?|labels?|unit_tests|exp_cal_state"
    r"|verifier_metadata",
    re.IGNORECASE,
)
"""Names of fields that hold what the verifier compares with."""


_CONVERSIONS = {"s": str, "r": repr, "a": ascii}


class PromptError(GymrailError):
    """A prompt cannot be made of this row."""

    def __init__(self, field: str, value: Any, message: str) -> None:
        super().__init__(message)
        self.field, self.value, self.message = field, value, message


class Example(BaseModel):
    """One few-shot example: `fields` for the config's own templates, or templates of its own."""

    model_config = ConfigDict(extra="forbid")

    fields: dict[str, Any] | None = None
    user: str | None = None
    assistant: str | None = None


class PromptConfig(BaseModel):
    """The file's content."""

    model_config = ConfigDict(extra="forbid")

    user: str
    system: str | None = None
    assistant: str | None = None
    examples: list[Example] = []
    images: list[str] = []

    @model_validator(mode="after")
    def _examples_are_answered(self) -> Self:
        for number, example in enumerate(self.examples, start=1):
            if example.assistant is None and self.assistant is None:
                raise ValueError(f"example {number} has no 'assistant', and the prompt has none for all examples")
            if example.fields is None and example.user is None:
                raise ValueError(f"example {number} has neither 'fields' nor 'user'")
        if self.assistant is not None and not self.examples:
            raise ValueError("'assistant' is how an example is answered, and there are no 'examples'")
        return self


@dataclass(frozen=True)
class Prompt:
    """A prompt config, ready to be filled."""

    config: PromptConfig
    name: str = "prompt"
    """Its file, for messages."""

    @classmethod
    def read(cls, path: Path) -> Prompt:
        """Read a prompt config.

        Raises:
            InputError: the file cannot be read, a key is unknown, or a template is no format string.
        """
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"Cannot read the prompt '{path}': {error.strerror or error}.") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not valid YAML: {error}") from None
        if not isinstance(data, dict):
            raise InputError(f"{path}: a prompt is a mapping with the key 'user', this is {data!r}.")
        try:
            prompt = cls(PromptConfig.model_validate(data), str(path))
        except ValidationError as error:
            raise InputError(f"{path}: {explain(error, PromptConfig)}") from None
        prompt._parts  # noqa: B018  # a broken template is found now, not at the first row
        return prompt

    @property
    def fields(self) -> list[str]:
        """The row's fields that the prompt shows, in their order."""
        return list(dict.fromkeys(name for template in self._row_templates for name in template.names))

    @property
    def answer_fields(self) -> list[str]:
        """Those of them whose names say that they hold the answer."""
        holes = (hole for template in self._row_templates for hole in template.holes)
        return list(dict.fromkeys(hole.shown for hole in holes if _holds_the_answer(hole)))

    def check(self, task_type: type[Task], row: Mapping[str, Any] | None = None) -> None:
        """Hold the templates against the fields that a task type declares and those that a row has.

        Raises:
            InputError: a template names a field that neither has; the text names the nearest.
        """
        declared = {name for name in task_type.model_fields if name != "responses_create_params"}
        known = declared | {name for name in row or {} if name != "responses_create_params"}
        for name in self.fields:
            if name not in known:
                where = "the first row" if row is not None else "the environment's task type"
                raise InputError(
                    f"{self.name}: the template names {{{name}}}, which {where} does not have. "
                    f"{did_you_mean(name, known)}"
                )

    def unused(self, task_type: type[Task]) -> list[str]:
        """Return the declared fields that the prompt does not show."""
        return [name for name in task_type.model_fields if name not in {*self.fields, "responses_create_params"}]

    def messages(self, row: Mapping[str, Any]) -> list[Item]:
        """Return the prompt of a row.

        Raises:
            PromptError: the row lacks a field that a template names, or it is null.
        """
        parts = self._parts
        items: list[Item] = []
        if parts.system is not None:
            items.append({"role": "system", "content": parts.system.fill(row)})
        for user, assistant, fields in parts.examples:
            values = row if fields is None else fields
            items.append({"role": "user", "content": user.fill(values)})
            items.append({"role": "assistant", "content": assistant.fill(values)})
        text = parts.user.fill(row)
        images = [_image(template, row) for template in parts.images]
        items.append({"role": "user", "content": [{"type": "input_text", "text": text}, *images] if images else text})
        return items

    def apply(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row with its prompt; other Responses parameters stay.

        Raises:
            PromptError: the row has a prompt already, or lacks a field.
        """
        parameters = row.get("responses_create_params")
        if parameters is None:
            parameters = {}
        elif not isinstance(parameters, dict):
            raise PromptError("responses_create_params", parameters, "must be an object")
        if parameters.get("input"):
            raise PromptError(
                "responses_create_params.input", parameters["input"],
                f"the row has a prompt of its own, and {self.name} would replace it; leave one of them out",
            )  # fmt: skip
        return {**row, "responses_create_params": {**parameters, "input": self.messages(row)}}

    @cached_property
    def _parts(self) -> _Parts:
        config = self.config
        user = _Template(config.user, f"{self.name}: 'user'")
        answer = None if config.assistant is None else _Template(config.assistant, f"{self.name}: 'assistant'")
        examples = []
        for number, example in enumerate(config.examples, start=1):
            place = f"{self.name}: example {number}"
            asked = user if example.user is None else _Template(example.user, place)
            said = answer if example.assistant is None else _Template(example.assistant, place)
            assert said is not None, "the config was validated"
            if example.fields is not None:
                _fill_once(asked, said, example.fields, place)
            examples.append((asked, said, example.fields))
        system = None if config.system is None else _Template(config.system, f"{self.name}: 'system'")
        images = [_Template(text, f"{self.name}: 'images'") for text in config.images]
        return _Parts(system, examples, user, images)

    @property
    def _row_templates(self) -> Iterable[_Template]:
        parts = self._parts
        if parts.system is not None:
            yield parts.system
        for user, assistant, fields in parts.examples:
            if fields is None:
                yield from (user, assistant)
        yield parts.user
        yield from parts.images


class _Parts(NamedTuple):
    system: _Template | None
    examples: Sequence[tuple[_Template, _Template, dict[str, Any] | None]]
    user: _Template
    images: Sequence[_Template]


class _Hole(NamedTuple):
    name: str
    keys: tuple[str | int, ...]
    conversion: str | None
    format: str
    shown: str


class _Template:
    """A format string taken apart once: texts and holes."""

    def __init__(self, text: str, where: str) -> None:
        self._pieces: list[str | _Hole] = []
        try:
            for literal, field, format_spec, conversion in string.Formatter().parse(text):
                if literal:
                    self._pieces.append(literal)
                if field is not None:
                    self._pieces.append(_hole(field, format_spec or "", conversion, where))
        except ValueError as error:
            raise InputError(
                f"{where} is no template: {error}; a brace that is meant as such is written twice: {{{{ or }}}}."
            ) from None

    @property
    def names(self) -> list[str]:
        return [hole.name for hole in self.holes]

    @property
    def holes(self) -> list[_Hole]:
        return [piece for piece in self._pieces if isinstance(piece, _Hole)]

    def fill(self, row: Mapping[str, Any]) -> str:
        return "".join([piece if isinstance(piece, str) else _value(piece, row) for piece in self._pieces])


def _hole(field: str, format_spec: str, conversion: str | None, where: str) -> _Hole:
    name, rest = formatter_field_name_split(field)
    if not isinstance(name, str) or not name:
        raise InputError(
            f"{where} has {{{field}}}; write the name of a field between the braces, or {{{{}}}} for braces."
        )
    keys = []
    for is_attribute, key in rest:
        if is_attribute:
            raise InputError(
                f"{where} has {{{field}}}; what is inside a field is reached with brackets: {{{name}[{key}]}}."
            )
        keys.append(key)
    if conversion not in (None, *_CONVERSIONS):
        raise InputError(f"{where} has {{{field}!{conversion}}}; after '!' stands s, r or a.")
    if "{" in format_spec:
        raise InputError(f"{where} has a field within a field, {{{field}:{format_spec}}}; write them side by side.")
    return _Hole(name, tuple(keys), conversion, format_spec, field)


def _value(hole: _Hole, row: Mapping[str, Any]) -> str:
    if hole.name not in row:
        others = [name for name in row if name != "responses_create_params"]
        raise PromptError(
            hole.name, None, f"the row lacks it, and the prompt names it. {did_you_mean(hole.name, others)}"
        )
    value: Any = row[hole.name]
    for key in hole.keys:
        try:
            value = value[key]
        except (LookupError, TypeError):
            raise PromptError(hole.shown, row[hole.name], f"has nothing at {key!r}, which the prompt names") from None
    if value is None:
        raise PromptError(hole.shown, None, "is null, and the prompt names it")
    if isinstance(value, str) and not hole.format and hole.conversion is None:
        return value
    if hole.conversion is not None:
        value = _CONVERSIONS[hole.conversion](value)
    try:
        return format(value, hole.format)
    except (TypeError, ValueError) as error:
        raise PromptError(hole.shown, value, f"cannot be written as {hole.format!r}: {error}") from None


def _holds_the_answer(hole: _Hole) -> bool:
    """`verifier_metadata[question]` is an open question; `verifier_metadata` as a whole is not."""
    path = [hole.name, *(str(key) for key in hole.keys)]
    inner = path[1:] if path[0] == "verifier_metadata" and len(path) > 1 else path
    return any(ANSWER_FIELD.fullmatch(name) for name in inner)


def _image(template: _Template, row: Mapping[str, Any]) -> Item:
    url = template.fill(row)
    if not url.startswith(("http://", "https://", "data:image/")):
        field = next(iter(template.names), "images")
        raise PromptError(field, url[:120], "is no image; allowed are http:// and https:// URLs and data:image/ URIs")
    return {"type": "input_image", "image_url": url, "detail": "auto"}


def _fill_once(user: _Template, assistant: _Template, fields: Mapping[str, Any], place: str) -> None:
    """An example that cannot be filled is the config's mistake, not a row's."""
    try:
        user.fill(fields)
        assistant.fill(fields)
    except PromptError as error:
        raise InputError(f"{place}: field '{error.field}' {error.message}") from None
