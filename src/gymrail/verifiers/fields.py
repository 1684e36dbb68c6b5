"""Which fields of a row a verifier is given: those that it declares."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from gymrail.errors import InputError, did_you_mean
from gymrail.rollout import Verdict
from gymrail.verifiers.verifier import Verifier


class Declared(NamedTuple):
    """A verifier's keyword parameters."""

    required: frozenset[str]
    optional: frozenset[str]
    takes_all: bool
    """Whether it takes any further field."""

    def of(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that the verifier takes.

        Raises:
            InputError: one that it needs is missing.
        """
        for name in sorted(self.required):
            if name not in fields:
                raise InputError(f"The verifier needs the field {name!r}. {did_you_mean(name, fields)}")
        if self.takes_all:
            return dict(fields)
        return {name: value for name, value in fields.items() if name in self.required or name in self.optional}


def declared_fields(verifier: Verifier) -> Declared:
    """Return the fields that a verifier declares."""
    parameters = inspect.signature(verifier).parameters.values()
    named = [one for one in parameters if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD)]
    if not any(one.kind in (one.POSITIONAL_ONLY, one.VAR_POSITIONAL) for one in parameters):
        named = named[1:]  # a plain function's first parameter is the answer
    required = frozenset(one.name for one in named if one.default is one.empty)
    optional = frozenset(one.name for one in named if one.default is not one.empty)
    return Declared(required, optional, any(one.kind is one.VAR_KEYWORD for one in parameters))


async def judge_with(verifier: Verifier, answer: str, fields: Mapping[str, Any]) -> Verdict:
    """Ask a verifier, with the fields of a row that it declares.

    Raises:
        InputError: one that it needs is missing.
    """
    return await verifier(answer, **declared_fields(verifier).of(fields))
