"""A Python interpreter per episode, in a sandbox: what one call defines, the next one has."""

from __future__ import annotations

from gymrail import ToolServer, tool
from gymrail.sandbox import Interpreter, Sandbox, choose

_CALL_SECONDS = 900.0
"""Waiting for a free place included; the code's own limits are the sandbox's."""


class PythonSandbox(ToolServer):
    """Runs Python code in a sandbox without network; variables stay for the whole episode."""

    def __init__(self) -> None:
        self._sandbox: Sandbox | None = None
        self._interpreter: Interpreter | None = None

    def seed(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, sandbox: Sandbox | None = None, provider: str = "auto"
    ) -> None:
        """Take the sandbox that episodes share, or choose one by a provider's name at the first call.

        Raises:
            InputError: no provider of that name works here.
        """
        self._sandbox = sandbox or choose(provider)

    @tool(timeout_seconds=_CALL_SECONDS)
    async def execute_python(self, code: str) -> dict[str, str | None]:
        """Run Python code. Variables, functions and imports stay for later calls. There is no network.

        Args:
            code: The code. `result` is the value of its last line if that is an expression; print what else you need.
        """
        if self._interpreter is None:
            self._sandbox = self._sandbox or choose()
            self._interpreter = self._sandbox.interpreter()
        done = await self._interpreter.execute(code)
        return {"stdout": done.stdout, "stderr": done.stderr, "error": done.error, "result": done.value}

    async def close(self) -> None:
        if self._interpreter is not None:
            await self._interpreter.close()
