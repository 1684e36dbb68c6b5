"""Verifiable instructions: rules that a program can check in an answer, such as "at least 50 words" or "no commas".

    verifier = InstructionFollowing()
    verdict = await verifier("Red, blue.", instruction_id_list=["punctuation:no_comma"], kwargs=[{}])   # reward 0

The 25 of IFEval and 29 of the public training sets under their published ids and kwargs, and counterintuitive ones of
our own. An empty answer follows none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gymrail.errors import InputError
from gymrail.rollout import Verdict
from gymrail.verifiers.instructions import counterintuitive, ifeval, training
from gymrail.verifiers.instructions.registry import INSTRUCTIONS, Instruction, find_instruction

__all__ = [
    "INSTRUCTIONS",
    "GradingMode",
    "Instruction",
    "InstructionFollowing",
    "bind_all",
    "find_instruction",
    "follows",
]

GradingMode = Literal["binary", "fraction"]
MAX_CHARACTERS = 400_000
_LONG = 20_000
"""Characters beyond which an answer is checked in a thread."""
_MODULES = (counterintuitive, ifeval, training)
"""Importing them filled the table."""


@dataclass(frozen=True, slots=True)
class InstructionFollowing:
    """Reward 1 when all instructions are followed (`binary`), or the share that is (`fraction`)."""

    async def __call__(
        self,
        answer: str,
        /,
        *,
        instruction_id_list: Sequence[str],
        kwargs: Sequence[Mapping[str, Any] | None],
        grading_mode: GradingMode = "binary",
        **fields: Any,
    ) -> Verdict:
        """Judge a text.

        Raises:
            InputError: an id is unknown, or kwargs do not fit.
        """
        if len(answer) <= _LONG:
            return self.judge(answer, instruction_id_list, kwargs, grading_mode)
        return await asyncio.to_thread(self.judge, answer, instruction_id_list, kwargs, grading_mode)

    def judge(
        self,
        answer: str,
        instruction_id_list: Sequence[str],
        kwargs: Sequence[Mapping[str, Any] | None],
        grading_mode: GradingMode = "binary",
    ) -> Verdict:
        """Judge a text, at once."""
        bound = bind_all(instruction_id_list, kwargs)
        text = answer if len(answer) <= MAX_CHARACTERS else ""
        followed = [bool(text.strip()) and found.check(text, **arguments) for found, arguments in bound]
        broken = [found.id for (found, _), is_followed in zip(bound, followed, strict=True) if not is_followed]
        share = sum(followed) / len(followed)
        reason = f"not followed: {', '.join(broken)}" if broken else None
        if not text.strip():
            reason = (
                "the answer is empty" if text is answer else f"the answer has more than {MAX_CHARACTERS} characters"
            )
        metrics = {"follow_all_instructions": not broken, "followed_share": share}
        return Verdict(share if grading_mode == "fraction" else float(not broken), metrics=metrics, reason=reason)


def follows(answer: str, instruction_id: str, kwargs: Mapping[str, Any] | None = None) -> bool:
    """Tell whether an answer follows one instruction."""
    return InstructionFollowing().judge(answer, [instruction_id], [kwargs]).reward == 1.0


def bind_all(
    instruction_id_list: Sequence[str], kwargs: Sequence[Mapping[str, Any] | None]
) -> list[tuple[Instruction, dict[str, Any]]]:
    """Return the instructions of a row with their arguments.

    Raises:
        InputError: there is none, an id is unknown, kwargs do not fit or are not one for each.
    """
    if not instruction_id_list:
        raise InputError("instruction_id_list is empty; a row has at least one instruction.")
    if len(instruction_id_list) != len(kwargs):
        raise InputError(f"There are {len(instruction_id_list)} instructions and {len(kwargs)} kwargs; one for each.")
    found = [find_instruction(instruction_id) for instruction_id in instruction_id_list]
    return [(one, one.bind(arguments)) for one, arguments in zip(found, kwargs, strict=True)]
