r"""An answer that is found in a text and must be the expected one.

    await ExactAnswer("boxed")(r"so \boxed{1,000}", expected_answer="1000")                    1.0
    await ExactAnswer("letter")("It is (B).", expected_answer="B", options={"A": "x", "B": "y"})    1.0
    await ExactAnswer("regex", pattern=r"#### (.*)")("#### 72", expected_answer="72")          1.0

A number is compared as a number, and must be the only one there; text without case, blanks and punctuation around it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AfterValidator

from gymrail.errors import InputError, VerifierError, did_you_mean
from gymrail.rollout import Verdict
from gymrail.verifiers.answer import after_label, choice, in_tag, is_same, last_boxed, last_match, normalise
from gymrail.verifiers.workers import TooCostly, Workers

Extract = Literal["auto", "boxed", "tag", "label", "letter", "regex", "text"]
FORMS: tuple[Extract, ...] = ("auto", "boxed", "tag", "label", "letter", "regex", "text")
_BLANK_LETTER = re.compile(r"\W*(\w)\W*")


@dataclass(frozen=True)
class ExactAnswer:
    r"""Compares an extracted answer with `expected_answer`, one or several that are as good.

    `extract` is where the answer stands: the last `\boxed{}` ("boxed"), the last `<answer>` ("tag"), the rest of the
    last line behind "Answer:" ("label"), the last match of `pattern` ("regex"), all of the text ("text"). "auto" takes
    the first of box, tag, label and text that is there; "letter" looks there for an option's letter or its text.
    """

    extract: Extract = "auto"
    pattern: str | None = None
    """A regular expression for "regex"; its first group that took part is the answer. It runs in a worker process,
    and one that takes too long is a `VerifierError`."""
    tag: str = "answer"
    label: str = "answer"
    cpu_seconds: int = 5
    """Of one run of the pattern."""
    _workers: Workers = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.extract not in FORMS:
            raise InputError(f"extract is {self.extract!r}. {did_you_mean(str(self.extract), FORMS)}")
        if (self.pattern is not None) != (self.extract == "regex"):
            raise InputError(f"extract is {self.extract!r} and pattern is {self.pattern!r}; 'regex' needs a pattern.")
        check_pattern(self.pattern)
        object.__setattr__(self, "_workers", Workers(1, cpu_seconds=self.cpu_seconds))

    async def __call__(
        self,
        answer: str,
        /,
        *,
        expected_answer: str | float | Sequence[str],
        options: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None,
    ) -> Verdict:
        """Pay 1 for the expected answer, 0 otherwise; the metric `extracted_answer` is what was found.

        Raises:
            VerifierError: the pattern took too long.
            InputError: letters are asked for, and the row has no options.
        """
        accepted = [str(expected_answer)] if isinstance(expected_answer, str | float | int) else [*expected_answer]
        if self.extract == "letter":
            found = _letter(answer, _by_letter(options), self)
            is_right = found in accepted
        else:
            found = await self._find(answer)
            is_right = found is not None and any(is_same(found, expected) for expected in accepted)
        reason = (
            None if is_right else "no answer was found" if found is None else f"{found}, not {' or '.join(accepted)}"
        )
        return Verdict(float(is_right), metrics={"extracted_answer": found}, reason=reason)

    async def aclose(self) -> None:
        """End the worker process, where the pattern needed one."""
        await self._workers.aclose()

    async def _find(self, text: str) -> str | None:
        if self.pattern is not None:
            return await match_in_worker(self._workers, last_match, self.pattern, text)
        if self.extract == "text":
            return text
        if self.extract != "auto":
            return {"boxed": last_boxed, "tag": self._in_tag, "label": self._after_label}[self.extract](text)
        places = (find(text) for find in (last_boxed, self._in_tag, self._after_label))
        return next((place for place in places if place is not None), text)

    def _in_tag(self, text: str) -> str | None:
        return in_tag(text, self.tag)

    def _after_label(self, text: str) -> str | None:
        return after_label(text, self.label)


async def match_in_worker(workers: Workers, find: object, pattern: str, text: str) -> str | None:
    """Run a function of a pattern and a text, such as `answer.last_match`, where it cannot hold anything up.

    Raises:
        VerifierError: it took too long.
    """
    try:
        return await workers.call(find, pattern, text)  # pyright: ignore[reportArgumentType]
    except TooCostly as error:
        raise VerifierError(f"The pattern {pattern!r} cannot be used on {len(text)} characters: {error}") from None


def check_pattern(pattern: str | None) -> str | None:
    """Return a pattern as it is.

    Raises:
        InputError: it is no regular expression.
    """
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise InputError(f"The pattern {pattern!r} is no regular expression: {error}.") from None
    return pattern


def _checked(pattern: str) -> str:
    try:
        check_pattern(pattern)
    except InputError as error:  # pydantic adds the row and the field to a ValueError alone
        raise ValueError(str(error)) from None
    return pattern


Pattern = Annotated[str, AfterValidator(_checked)]
"""A regular expression as a row's field or a setting: one that does not compile is refused with its place."""


def _letter(text: str, options: Mapping[str, str], places: ExactAnswer) -> str | None:
    found = (find(text) for find in (last_boxed, places._in_tag, places._after_label))
    part = next((place for place in found if place is not None), text)
    named = choice(part, options)
    if named is None and (alone := _BLANK_LETTER.fullmatch(part)):
        named = next((letter for letter in options if normalise(letter) == alone[1].casefold()), None)
    return named


def _by_letter(options: Mapping[str, str] | Sequence[Mapping[str, str]] | None) -> Mapping[str, str]:
    if not options:
        raise InputError("Letters are compared with the row's 'options', and it has none: {'A': ..., 'B': ...}.")
    if isinstance(options, Mapping):
        return options
    return {letter: text for option in options for letter, text in option.items()}
