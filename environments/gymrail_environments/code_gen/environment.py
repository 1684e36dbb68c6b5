r"""Programming problems, judged by unit tests in a sandbox.

One row:

    {"responses_create_params": {"input": "Read two numbers and print their sum. ..."},
     "verifier_metadata": {"unit_tests": {"inputs": ["1 2\n"], "outputs": ["3\n"]}}}
"""

from __future__ import annotations

from collections.abc import Generator
from random import Random

from pydantic import Field

from gymrail import Config, Environment, Rollout, Task, Verdict
from gymrail.environment import Turn
from gymrail.errors import InputError
from gymrail.sandbox import Limits
from gymrail.verifiers.unit_tests import Cases, UnitTests
from gymrail_environments.code_gen.problems import make_problem

FORM = "Put your whole solution in one ```python code block at the end."


class CodeGenConfig(Config):
    provider: str = "auto"
    """The sandbox; "subprocess" is unsafe."""
    packages: tuple[str, ...] = ()
    """Installed packages that a solution may import."""
    test_cpu_seconds: float = Field(10.0, gt=0)
    test_wall_seconds: float = Field(20.0, gt=0)
    """Of each test; above the CPU time, because a busy machine is not the program's fault."""
    memory_megabytes: int = Field(1024, gt=0)
    stops_early: bool = False
    """End with the first test that fails."""


class CodeGenTask(Task):
    unit_tests: Cases
    reference_solution: str | None = None
    """For the gold policy."""


class CodeGen(Environment[CodeGenTask]):
    """Write a program that passes every test."""

    Config = CodeGenConfig
    split_by = ("responses_create_params",)

    @classmethod
    def setup(cls, config: CodeGenConfig) -> UnitTests:
        limits = Limits(
            wall_seconds=config.test_wall_seconds,
            cpu_seconds=config.test_cpu_seconds,
            memory_bytes=config.memory_megabytes * 1024**2,
            output_bytes=16 * 1024**2,
            file_bytes=32 * 1024**2,
        )
        return UnitTests(config.provider, limits, packages=config.packages, stops_early=config.stops_early)

    @classmethod
    def generate(cls, rng: Random) -> CodeGenTask:
        statement, solution, unit_tests = make_problem(rng)
        return CodeGenTask.ask(f"{statement}\n\n{FORM}", unit_tests=unit_tests, reference_solution=solution)

    async def verify(self, rollout: Rollout) -> Verdict:
        return await self.shared(rollout.final_text, unit_tests=self.task.unit_tests)

    def solve(self) -> Generator[Turn, str, None]:
        if self.task.reference_solution is None:
            raise InputError(f"Task {self.task.id} has no 'reference_solution' for the gold policy.")
        yield f"```python\n{self.task.reference_solution}\n```"

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Write a program that has the first test's answer for everything."""
        first = self.task.unit_tests.outputs[0]
        if self.task.unit_tests.fn_name is None:
            return f"```python\nprint({first!r}, end='')\n```"
        return f"```python\ndef {self.task.unit_tests.fn_name}(*arguments):\n    return {first}\n```"
