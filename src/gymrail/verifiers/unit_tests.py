"""An answer's program, run in a sandbox against unit tests: all of them pass, or it earns nothing.

    verifier = UnitTests()
    await verifier("```python\\nprint(sum(map(int, input().split())))\\n```",
                   unit_tests={"inputs": ["1 2", "3 4"], "outputs": ["3", "7"]})       # Verdict(reward=1.0, ...)
    await verifier("```python\\ndef add(a, b): return a + b\\n```",
                   unit_tests={"inputs": ["1\\n2"], "outputs": ["3"], "fn_name": "add"})

The rows' format and the comparison are LiveCodeBench's. The expected outputs never enter the sandbox, each test runs in
a process of its own, and what comes out is compared out here: a program that prints markers, replaces `print`, leaves
early or rewrites the harness has forged nothing but its own output.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from pydantic import BaseModel, Field, ValidationError, model_validator

from gymrail.errors import InputError
from gymrail.rollout import Verdict
from gymrail.sandbox import Execution, Limits, Programs, Sandbox, choose

_MODULES = (
    "typing", "collections", "itertools", "functools", "heapq", "bisect", "math", "string", "re", "operator", "copy",
    "datetime", "random", "statistics", "json", "io",
)  # fmt: skip
PRELUDE = "\n".join(
    [*(f"from {name} import *" for name in _MODULES), f"import {', '.join(_MODULES)}, sys", "from builtins import *"]
)
"""What LiveCodeBench gives every program: solutions written for its sites import nothing."""
_FENCE = re.compile(r"^[ \t]*```[^\n]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
_RELATIVE, _ABSOLUTE = 1e-5, 1e-8
"""When two results that are numbers are equal: numpy.allclose's defaults, which the benchmark uses."""


PROGRAM_LIMITS = Limits(
    cpu_seconds=10, wall_seconds=20, memory_bytes=1024**3, output_bytes=16 * 1024**2, file_bytes=32 * 1024**2
)
"""Wall time is above CPU time, because a busy machine is not the program's fault; outputs may be long."""


class Cases(BaseModel):
    """A row's `unit_tests`."""

    inputs: list[str] = Field(min_length=1)
    """Standard input; with `fn_name`, the arguments as JSON, one a line."""
    outputs: list[str]
    """Standard output; with `fn_name`, the result as JSON."""
    fn_name: str | None = None
    """A function of the program, or a method of its class `Solution`."""

    @model_validator(mode="after")
    def _fit_together(self) -> Cases:
        if len(self.inputs) != len(self.outputs):
            raise ValueError(f"{len(self.inputs)} inputs and {len(self.outputs)} outputs; there must be as many")
        if self.fn_name is not None:
            for number, text in enumerate(
                [*(line for case in self.inputs for line in case.split("\n")), *self.outputs]
            ):
                try:
                    json.loads(text)
                except ValueError:
                    raise ValueError(f"line {number} is {text[:80]!r}; with fn_name every line is JSON") from None
        return self


@dataclass(frozen=True)
class UnitTests:
    """Runs the last code block of an answer against every test."""

    provider: str = "auto"
    limits: Limits = PROGRAM_LIMITS
    """Of each test."""
    total_seconds: float = 240.0
    """Of all tests of an answer; those that are not run by then have failed."""
    packages: tuple[str, ...] = ()
    """Installed packages that a program may import."""
    stops_early: bool = False
    """End with the first test that fails: faster, and `passed_share` counts no later ones."""
    _sandboxes: list[Sandbox] = field(default_factory=list, init=False, repr=False, compare=False)

    async def __call__(self, answer: str, /, *, unit_tests: Mapping[str, Any] | Cases) -> Verdict:
        """Pay 1 when all tests pass, 0 otherwise; the metric `passed_share` is how many do.

        Raises:
            InputError: `unit_tests` is not in the format.
            InfrastructureError: a sandbox was lost.
        """
        cases = unit_tests if isinstance(unit_tests, Cases) else read_cases(unit_tests)
        code = last_code_block(answer)
        if code is None:
            return _verdict([], len(cases.inputs), "no code block in the answer")
        passed: list[bool] = []
        reason = None
        deadline = time.monotonic() + self.total_seconds
        async with self._sandbox().programs() as programs:
            await programs.prepare(f"import {', '.join(_MODULES)}")
            for number, (given, wanted) in enumerate(zip(cases.inputs, cases.outputs, strict=True), start=1):
                done = await _run(programs, code, given, cases.fn_name)
                fault = _fault(done, wanted, cases.fn_name is not None)
                passed.append(fault is None)
                reason = reason or (fault and f"test {number}: {fault}")
                if done.stopped == "timeout" or time.monotonic() > deadline or (fault and self.stops_early):
                    break  # a program that hangs once hangs again
        if len(passed) < len(cases.inputs):
            reason = reason or f"not all tests were run within {self.total_seconds:g} seconds"
        return _verdict(passed, len(cases.inputs), reason)

    def _sandbox(self) -> Sandbox:
        if not self._sandboxes:
            self._sandboxes.append(choose(self.provider, limits=self.limits, packages=self.packages))
        return self._sandboxes[0]


def read_cases(value: Mapping[str, Any]) -> Cases:
    """Read a row's `unit_tests`.

    Raises:
        InputError: naming what is wrong.
    """
    try:
        return Cases.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in ("unit_tests", *first["loc"]))
        raise InputError(f"{place}: {first['msg'].removeprefix('Value error, ')}.") from None


def last_code_block(text: str) -> str | None:
    """Return the last fenced block of a text that is closed; None where there is none."""
    blocks = _FENCE.findall(text if text.endswith("\n") else f"{text}\n")
    return blocks[-1] if blocks and blocks[-1].strip() else None


def same_output(printed: str, wanted: str) -> bool:
    """Compare two outputs line by line, blanks at the edges left out; lines that differ are the same when both are
    equal numbers."""
    ours, theirs = ([line.strip() for line in text.strip().split("\n")] for text in (printed, wanted))
    return len(ours) == len(theirs) and all(
        one == two or ((numbers := _numbers(one)) is not None and numbers == _numbers(two))
        for one, two in zip(ours, theirs, strict=True)
    )


def same_result(returned: Any, wanted: Any) -> bool:
    """Compare two JSON values; plain numbers are the same when they are close."""
    if returned == wanted:
        return True
    if isinstance(returned, int | float) and isinstance(wanted, int | float):
        try:
            return abs(returned - wanted) <= _ABSOLUTE + _RELATIVE * abs(wanted)
        except OverflowError:
            return False
    return False


async def _run(programs: Programs, code: str, given: str, function: str | None) -> Execution:
    if function is None:
        return await programs.run(code, stdin=given, prelude=PRELUDE)
    return await programs.call(code, function, [json.loads(line) for line in given.split("\n")], prelude=PRELUDE)


def _fault(done: Execution, wanted: str, is_call: bool) -> str | None:
    """Say why a test failed; None when it passed."""
    if done.error is not None or done.stopped is not None:
        return (done.stderr.strip().split("\n")[-1] or done.error or f"stopped: {done.stopped}")[:200]
    if not is_call:
        return None if same_output(done.stdout, wanted) else f"wrong output {done.stdout[:80]!r}"
    try:
        returned = json.loads(done.value or "")
    except (ValueError, RecursionError):
        return "returned nothing that is JSON"
    return None if same_result(returned, json.loads(wanted)) else f"wrong result {(done.value or '')[:80]}"


def _numbers(line: str) -> list[Decimal] | None:
    try:
        numbers = [Decimal(word) for word in line.split()]
    except InvalidOperation:
        return None
    return numbers if all(number.is_finite() for number in numbers) else None


def _verdict(passed: list[bool], count: int, reason: str | None) -> Verdict:
    share = math.fsum(passed) / count
    return Verdict(float(share == 1.0), metrics={"passed_share": share, "unit_tests": count}, reason=reason)
