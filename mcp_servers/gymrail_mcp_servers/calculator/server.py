"""A calculator that remembers its results. Names and schemas are tiny, because they stand in every prompt."""

from __future__ import annotations

from gymrail import ToolServer, tool
from gymrail_mcp_servers.calculator.expression import Number, evaluate


class Calculator(ToolServer):
    """Whole numbers: add, subtract, multiply."""

    def __init__(self) -> None:
        self.results: list[int] = []
        """What the calls returned, in order."""

    @tool(read_only=True)
    def add(self, a: int, b: int) -> int:
        """a + b"""
        return self._keep(a + b)

    @tool(read_only=True)
    def subtract(self, a: int, b: int) -> int:
        """a - b"""
        return self._keep(a - b)

    @tool(read_only=True)
    def multiply(self, a: int, b: int) -> int:
        """a * b"""
        return self._keep(a * b)

    def _keep(self, result: int) -> int:
        self.results.append(result)
        return result


class ExpressionCalculator(Calculator):
    """Whole numbers, and expressions with functions."""

    @tool(read_only=True)
    def calculate(self, expression: str) -> Number:
        """Compute an arithmetic expression: + - * / // % ^, parentheses, pi, e, sqrt, log, sin, factorial and the like.

        Args:
            expression: Such as 2 * (3 + 4) ^ 2.
        """
        return evaluate(expression)
