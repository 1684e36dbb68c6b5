"""The table of instructions: a function from an answer and the row's kwargs to whether the answer follows it.

    @instruction("length_constraints:number_words")
    def number_words(text: str, *, num_words: int, relation: Relation) -> bool: ...

A function's keyword parameters are the kwargs of the row; their annotations are what a row is checked against.
"""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from gymrail.errors import InputError, did_you_mean

Relation = Literal["less than", "at least"]
Count = Annotated[int, Field(ge=0)]
Word = Annotated[str, BeforeValidator(lambda value: value[0] if isinstance(value, list) and len(value) == 1 else value)]
"""Text; published rows have it as a list of one in places."""
Words = Annotated[list[str], Field(min_length=1)]
_Check = Callable[..., bool]


@dataclass(frozen=True, slots=True)
class Instruction:
    """One verifiable instruction."""

    id: str
    check: _Check
    arguments: type[BaseModel]

    def bind(self, kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the kwargs as the check takes them; those that are null are left out.

        Raises:
            InputError: one is unknown, missing or of the wrong type.
        """
        given = {name: value for name, value in (kwargs or {}).items() if value is not None}
        try:
            model = self.arguments.model_validate(given)
        except ValidationError as error:
            raise InputError(f"The kwargs of {self.id!r}: {'; '.join(self._explain(error))}.") from None
        return {name: value for name, value in model.__dict__.items() if value is not None}

    def _explain(self, error: ValidationError) -> list[str]:
        problems = []
        for problem in error.errors(include_url=False):
            name = str(problem["loc"][0])
            if problem["type"] == "extra_forbidden":
                problems.append(f"there is no {name!r}. {did_you_mean(name, self.arguments.model_fields)}")
            elif problem["type"] == "missing":
                problems.append(f"{name!r} is missing")
            else:
                problems.append(f"{name!r} is {problem['input']!r}: {problem['msg']}")
        return problems


INSTRUCTIONS: dict[str, Instruction] = {}
"""By id. Filled by the modules of this package when they are imported, and not changed afterwards."""


def instruction(*ids: str) -> Callable[[_Check], _Check]:
    """Enter a check under its ids."""

    def enter(check: _Check) -> _Check:
        hints = typing.get_type_hints(check, include_extras=True)
        fields: dict[str, Any] = {}
        for name, parameter in inspect.signature(check).parameters.items():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                default = ... if parameter.default is inspect.Parameter.empty else parameter.default
                fields[name] = (hints[name], default)
        model = create_model(f"{check.__name__}_kwargs", __config__=ConfigDict(extra="forbid"), **fields)
        for name in ids:
            assert name not in INSTRUCTIONS, f"two checks are named {name}"
            INSTRUCTIONS[name] = Instruction(name, check, model)
        return check

    return enter


def find_instruction(instruction_id: str) -> Instruction:
    """Return an instruction by its id.

    Raises:
        InputError: there is none; the text names the nearest.
    """
    found = INSTRUCTIONS.get(instruction_id)
    if found is None:
        raise InputError(f"No instruction has the id {instruction_id!r}. {did_you_mean(instruction_id, INSTRUCTIONS)}")
    return found


def compares(count: int, relation: Relation, limit: int) -> bool:
    """Tell whether a count is "less than" or "at least" a limit."""
    return count < limit if relation == "less than" else count >= limit


@functools.lru_cache(maxsize=4096)
def pattern_of(phrase: str) -> re.Pattern[str]:
    """Return the pattern of a phrase as whole words, in any case."""
    return re.compile(rf"(?<!\w){re.escape(phrase.strip())}(?!\w)", re.IGNORECASE)
