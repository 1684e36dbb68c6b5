"""A calculator that remembers its results. Names and schemas are tiny, because they stand in every prompt."""

from __future__ import annotations

from gymrail import ToolServer, tool


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
