r"""Mathematical answers, compared by `math-verify` in worker processes: \frac{1}{2} is 0.5, {1, 2} is {2, 1}.

    verifier = MathVerify()
    verdict = await verifier(r"so x is \boxed{\frac{1}{2}}", expected_answer="0.5")

A comparison that takes too much CPU time or memory is a miss where the answer is at fault, and a `VerifierError` where
the expected answer takes as much beside an answer of 1. A worker that cannot be started is a `VerifierError`.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass, field
from typing import Any

from gymrail.errors import InputError, VerifierError
from gymrail.rollout import Verdict
from gymrail.verifiers.answer import last_boxed, normalise
from gymrail.verifiers.workers import TooCostly, Workers

_MAX_CHARACTERS = 20_000
"""Of an answer without a box, its end."""
_DELIMITERS = (("\\(", "\\)"), ("\\[", "\\]"), ("$$", "$$"), ("$", "$"))
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_COMMAND = re.compile(r"\\[A-Za-z]+|!|\^|\*\*")
_PLAIN_COMMANDS = frozenset(
    {"\\frac", "\\dfrac", "\\tfrac", "\\text", "\\mathrm", "\\textbf", "\\mathbf", "\\left", "\\right", "\\quad"}
)


@dataclass(frozen=True)
class MathVerify:
    """Compares with `expected_answer`, LaTeX or plain. One instance serves many episodes and event loops at once."""

    cpu_seconds: int = 10
    """Of one comparison."""
    workers: int | None = None
    """Processes; by default as many as there are cores, at most 4."""
    only_boxed: bool = False
    r"""Look at nothing but the last `\boxed{}`."""
    evaluated: bool = False
    """Refuse an answer that leaves the work to the library: "12 * 34" where 408 is expected."""
    _workers: Workers = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if importlib.util.find_spec("math_verify") is None:
            raise InputError("Comparing mathematical answers needs math-verify: pip install 'gymrail[math]'")
        if self.cpu_seconds < 1:
            raise InputError(f"cpu_seconds is {self.cpu_seconds!r}; it must be at least 1.")
        pool = Workers(self.workers, cpu_seconds=self.cpu_seconds, imports=("gymrail.verifiers.math", "math_verify"))
        object.__setattr__(self, "_workers", pool)

    async def __call__(self, answer: str, /, *, expected_answer: str | float) -> Verdict:
        """Pay 1 for an equal answer, 0 otherwise; the metric `extracted_answer` is what was compared.

        Raises:
            VerifierError: no worker could be started, or the expected answer cannot be worked with.
        """
        expected = strip_delimiters(str(expected_answer))
        boxed = last_boxed(answer)
        if boxed is None and self.only_boxed:
            return Verdict(0.0, metrics={"extracted_answer": None}, reason="there is no \\boxed{}")
        part = f"\\boxed{{{boxed}}}" if self.only_boxed else answer[-_MAX_CHARACTERS:]
        if boxed is not None and f"\\boxed{{{boxed}}}" not in part:
            part = f"\\boxed{{{boxed}}}"
        try:
            is_equal, extracted = await self._workers.call(compare, expected, part)
        except TooCostly as error:
            await self._check_expected(expected)
            return Verdict(0.0, metrics={"extracted_answer": boxed}, reason=f"the answer cannot be compared: {error}")
        if is_equal and self.evaluated and not is_evaluated(boxed if boxed is not None else extracted or "", expected):
            return Verdict(0.0, metrics={"extracted_answer": extracted}, reason="the answer is not worked out")
        reason = None if is_equal else "no answer was found" if extracted is None else f"{extracted}, not {expected}"
        return Verdict(float(is_equal), metrics={"extracted_answer": extracted}, reason=reason)

    async def aclose(self) -> None:
        """End the worker processes; a later comparison starts new ones."""
        await self._workers.aclose()

    async def _check_expected(self, expected: str) -> None:
        try:
            await self._workers.call(compare, expected, "\\boxed{1}")
        except TooCostly as error:
            raise VerifierError(f"The expected answer {expected[:200]!r} cannot be compared with: {error}") from None


def compare(expected: str, answer: str) -> tuple[bool, str | None]:
    """Tell whether an answer equals what is expected, and what was found in it. Slow, and may hang: for a worker.

    What `math-verify` cannot read as mathematics is compared as text.
    """
    import math_verify

    latex, expression = math_verify.LatexExtractionConfig(), math_verify.ExprExtractionConfig()
    gold = _parse(f"\\boxed{{{expected}}}", (latex,))
    found = _parse(answer, (expression, latex))
    extracted = next((str(part) for part in reversed(found) if isinstance(part, str)), None)
    if extracted is None:
        extracted = last_boxed(answer)
    if not any(not isinstance(part, str) for part in gold):
        return extracted is not None and normalise(extracted) == normalise(expected), extracted
    # No limits of its own, which are of wall time: the worker's are of CPU time.
    return math_verify.verify(gold, found, timeout_seconds=None), extracted


def strip_delimiters(text: str) -> str:
    r"""Return a formula without the `$...$`, `\(...\)` or `\[...\]` around it."""
    text = text.strip()
    for opening, closing in _DELIMITERS:
        inner = text[len(opening) : -len(closing)]
        if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening) and closing not in inner:
            return inner.strip()
    return text


def is_evaluated(answer: str, expected: str) -> bool:
    """Tell whether an answer is worked out as far as what is expected: no more numbers, no further operations."""
    plain = _PLAIN_COMMANDS | set(_COMMAND.findall(expected))
    # A half is one number or two; an integer is one, and no fraction.
    may_be_fraction = "frac" in expected or "/" in expected or "." in expected
    most = max(2 if may_be_fraction else 1, len(_NUMBER.findall(expected)))
    return len(_NUMBER.findall(answer)) <= most and set(_COMMAND.findall(answer)) <= plain


def _parse(text: str, targets: Any) -> list[Any]:
    import math_verify

    return math_verify.parse(text, targets, parsing_timeout=None)  # pyright: ignore[reportArgumentType]
