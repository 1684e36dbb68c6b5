r"""Problems in numbers, with a Python interpreter at hand.

One row:

    {"responses_create_params": {"input": "How many primes up to 5000 ... Give your answer in \\boxed{}."},
     "expected_result": "331"}
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator
from random import Random

import orjson
from pydantic import Field

from gymrail import Config, Environment, Rollout, Task, Verdict, call
from gymrail.environment import Call, Turn
from gymrail.sandbox import Limits, Sandbox, choose
from gymrail.verifiers.answer import last_boxed
from gymrail_environments.math_with_code.problems import make_problem
from gymrail_mcp_servers.python_sandbox.server import PythonSandbox

RELATIVE = 1e-6
_DELIMITED = re.compile(r"\\\((.*)\\\)|\\\[(.*)\\\]|\$(.*)\$|\\(?:text|mathrm)\{([^{}]*)\}", re.DOTALL)


class MathWithCodeConfig(Config):
    provider: str = "auto"
    """The sandbox; "subprocess" is unsafe."""
    packages: tuple[str, ...] = ()
    """Installed packages that the code may import: numpy, scipy, pandas, sympy."""
    wall_seconds: float = Field(20.0, gt=0)
    cpu_seconds: float = Field(10.0, gt=0)
    memory_megabytes: int = Field(512, gt=0)


class MathWithCodeTask(Task):
    expected_result: str
    reference_code: str | None = None
    """A program whose last line is the answer; for the gold policy."""


class MathWithCode(Environment[MathWithCodeTask]):
    """Work the answer out, with Python where it helps, and box it."""

    Config = MathWithCodeConfig
    python: PythonSandbox

    @classmethod
    def setup(cls, config: MathWithCodeConfig) -> Sandbox:
        limits = Limits(
            wall_seconds=config.wall_seconds,
            cpu_seconds=config.cpu_seconds,
            memory_bytes=config.memory_megabytes * 1024**2,
        )
        return choose(config.provider, limits=limits, packages=config.packages)

    @classmethod
    def generate(cls, rng: Random) -> MathWithCodeTask:
        question, code, answer = make_problem(rng)
        prompt = f"{question} You can run Python. Give your answer in \\boxed{{}}."
        return MathWithCodeTask.ask(prompt, expected_result=repr(answer), reference_code=code)

    def seed(self) -> None:
        self.python.seed(self.shared)

    def verify(self, rollout: Rollout) -> Verdict:
        boxed = (last_boxed(text) for text in reversed(rollout.answers))
        answer = next((found for found in boxed if found), None)
        is_right = answer is not None and is_same(answer, self.task.expected_result)
        calls = sum(call.name == "execute_python" for call in rollout.calls)
        reason = (
            None if is_right else "no boxed answer" if answer is None else f"{answer}, not {self.task.expected_result}"
        )
        return Verdict(float(is_right), metrics={"extracted_answer": answer, "code_calls": calls}, reason=reason)

    def solve(self) -> Generator[Turn, str, None]:
        answer = self.task.expected_result
        if self.task.reference_code is not None:
            heard = yield call("execute_python", code=self.task.reference_code)
            answer = orjson.loads(heard)["result"]
        yield f"The result is \\boxed{{{answer}}}."

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Slip by a little in the end."""
        if isinstance(turn, Call):
            return turn
        return f"I get \\boxed{{{_plain(self.task.expected_result)}{rng.randint(0, 9)}}}."


def is_same(answer: str, expected: str) -> bool:
    r"""Tell whether two results are the same text but for blanks and LaTeX delimiters around them, or numbers within a
    millionth of the expected one."""
    one, two = _plain(answer), _plain(expected)
    if one == two:
        return True
    try:
        found, wanted = float(one), float(two)
    except ValueError:
        return False
    return math.isfinite(found) and abs(found - wanted) <= RELATIVE * abs(wanted)


def _plain(text: str) -> str:
    text = " ".join(text.split())
    while found := _DELIMITED.fullmatch(text):
        text = next(group for group in found.groups() if group is not None).strip()
    return text
