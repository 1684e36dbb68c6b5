"""The tools that the official MCP conformance suite calls, as an ordinary environment; names and texts are the suite's.

gymrail serve tests/conformance
"""

from __future__ import annotations

import asyncio
import struct
import wave
import zlib
from io import BytesIO
from random import Random
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field

from gymrail import Environment, Rollout, Task, ToolError, tool
from gymrail.progress import report_progress
from gymrail.tools import File, Image

SCHEMA_TOOL = "json_schema_2020_12_tool"
INPUT_SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
"""Keywords beyond what a signature gives; a task's row may bring a tool's schema in its own words."""


class Address(BaseModel):
    street: str = ""
    city: str = ""


class ConformanceTask(Task):
    @classmethod
    def make(cls) -> Self:
        tools = [
            {**spec.schema, "parameters": INPUT_SCHEMA} if name == SCHEMA_TOOL else spec.schema
            for name, spec in Conformance.tools.items()
        ]
        return cls.ask("Call every tool.", parameters={"tools": tools})


class Conformance(Environment[ConformanceTask]):
    """Be called by the conformance suite."""

    @classmethod
    def generate(cls, rng: Random) -> ConformanceTask:
        return ConformanceTask.make()

    @tool(read_only=True)
    def test_simple_text(self) -> str:
        """Return text."""
        return "This is a simple text response for testing."

    @tool(read_only=True)
    def test_image_content(self) -> Image:
        """Return a picture."""
        return Image(red_pixel())

    @tool(read_only=True)
    def test_audio_content(self) -> File:
        """Return a sound."""
        return File(silence(), "silence.wav", "audio/wav")

    @tool(read_only=True)
    def test_embedded_resource(self) -> File:
        """Return a file."""
        return File(b"This is an embedded resource content.", "embedded-resource.txt", "text/plain")

    @tool(read_only=True)
    def test_multiple_content_types(self) -> list[Any]:
        """Return text, a picture and a file."""
        file = File(b'{"test":"data","value":123}', "mixed-content.json", "application/json")
        return ["Multiple content types test:", Image(red_pixel()), file]

    @tool
    def test_error_handling(self) -> str:
        """Refuse."""
        raise ToolError("This tool intentionally returns an error for testing")

    @tool
    async def test_tool_with_progress(self) -> str:
        """Report progress three times."""
        for done in (0, 50, 100):
            report_progress(done, 100)
            await asyncio.sleep(0.05)
        return "Done."

    @tool
    async def test_streaming_elicitation(self) -> str:
        """Take a while. The suite looks whether anything but progress and the result comes meanwhile."""
        await asyncio.sleep(0.05)
        return "Nothing was asked."

    @tool
    def test_logging_tool(self) -> str:
        """Answer. The suite looks whether log messages come that it did not ask for."""
        return "Logged nothing to the client."

    @tool(name=SCHEMA_TOOL)
    def schema_tool(
        self,
        name: str | None = None,
        address: Address | None = None,
        contactMethod: str | None = None,
        phone: str | None = None,
        email: str | None = None,
    ) -> str:
        """Tool with JSON Schema 2020-12 features"""
        return f"{name} by {contactMethod}: {phone or email}, {address}"

    @tool
    def test_custom_headers(
        self, region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})], query: str = ""
    ) -> str:
        """Take an argument that clients repeat in an HTTP header."""
        return f"{query} in {region}"

    def verify(self, rollout: Rollout) -> float:
        """All of the episode's tools were called."""
        return float({call.name for call in rollout.calls} >= self.tools.keys() - {SCHEMA_TOOL})


def red_pixel() -> bytes:
    """A PNG of one red pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\x00\xff\x00\x00")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def silence() -> bytes:
    """A WAV file of ten samples."""
    buffer = BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\x00\x00" * 10)
    return buffer.getvalue()
