"""A tool that somebody else's server describes by a JSON Schema and runs: the arguments are checked there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from gymrail.errors import ToolError
from gymrail.tools import ToolOptions, ToolSpec

_NO_OPTIONS = ToolOptions()
_EMPTY: dict[str, Any] = {"type": "object", "properties": {}}


@dataclass(frozen=True, slots=True)
class ForeignTool(ToolSpec):
    """Its owner has `async def call_tool(self, tool, arguments)`; `foreign_name` is the tool's name on its server."""

    foreign_name: str = ""

    def parse(self, arguments: str | bytes | dict[str, Any]) -> dict[str, Any]:
        """Return what `call_tool` takes.

        Raises:
            ToolError: the arguments are no JSON object.
        """
        if not isinstance(arguments, dict):
            try:
                value = orjson.loads(arguments or b"{}")
            except orjson.JSONDecodeError as error:
                raise ToolError(f"Invalid arguments for tool {self.name!r}: no JSON ({error}).") from None
            if not isinstance(value, dict):
                raise ToolError(f"Invalid arguments for tool {self.name!r}: {value!r} is no JSON object.")
            arguments = value
        return {"tool": self.foreign_name, "arguments": arguments}


def foreign_tool(
    name: str,
    description: str = "",
    parameters: dict[str, Any] | None = None,
    *,
    strict: bool = False,
    options: ToolOptions = _NO_OPTIONS,
    foreign_name: str | None = None,
) -> ForeignTool:
    """Build a tool from what its server says of it."""
    return ForeignTool(
        name, description, parameters or dict(_EMPTY), strict, options, "call_tool", foreign_name=foreign_name or name
    )
