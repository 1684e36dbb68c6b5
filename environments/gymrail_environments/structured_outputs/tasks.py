"""A row of `structured_outputs`, and making one."""

from __future__ import annotations

import json
from random import Random
from typing import Any, Literal

from pydantic import Field, field_validator

from gymrail import Task
from gymrail.errors import InputError
from gymrail.verifiers.schema import parse_schema
from gymrail.verifiers.structured_text import SchemaType
from gymrail_environments.structured_outputs.records import TOPICS, make_records, object_of
from gymrail_environments.structured_outputs.writing import ROOT

PAYLOADS = (None, "extraction", "result")
TOOLS = ("submit", "record", "file", "archive", "register", "report")
UNSAID = "Where the notes are silent on a field that may be null, it is null. "


class StructuredOutputsTask(Task):
    schema_str: str
    """JSON of the schema that the answer fits."""
    schema_type: SchemaType = "json"
    response_mode: Literal["text", "tool_call"] = "text"
    tool_name: str | None = None
    """The tool to be called; any, where the row does not say."""
    tool_payload_key: str | None = None
    """The argument that holds the answer; all arguments are the answer where the row does not say."""
    expected_values: Any = Field(None)
    """What the answer holds; of objects the listed keys count."""

    @field_validator("schema_str")
    @classmethod
    def _is_a_schema(cls, schema_str: str) -> str:
        try:
            parse_schema(schema_str)
        except InputError as error:
            raise ValueError(str(error)) from None
        return schema_str


def make_task(rng: Random) -> StructuredOutputsTask:
    """Make a task: a record or, for CSV, several, answered in text or by the tool for its topic."""
    topic = rng.choice(list(TOPICS))
    kind: SchemaType = rng.choice(("json", "yaml", "xml", "toml", "csv"))
    may_hide = kind in ("json", "yaml")
    count = rng.randint(2, 4) if kind == "csv" else 1
    records = make_records(rng, topic, count, is_flat=kind == "csv", may_hide=may_hide)
    text, schema, values = records[0].text, records[0].schema, records[0].values
    if kind == "csv":
        text = "\n".join(f"{topic.capitalize()} {number}: {row.text}" for number, row in enumerate(records, 1))
        schema, values = {"type": "array", "items": schema}, [row.values for row in records]
    if kind == "json" and rng.random() < 0.5:
        return _tool_task(rng, topic, text, schema, values)
    root = f" with the root element <{ROOT}>" if kind == "xml" else ""
    prompt = (
        f"Notes on a {topic}:\n{text}\n\nGive what the notes say as {kind.upper()}{root}, by this JSON Schema:\n"
        f"{json.dumps(schema)}\n\n{UNSAID if may_hide else ''}"
        f"Answer with the {kind.upper()} alone, without a code fence."
    )
    return StructuredOutputsTask.ask(prompt, schema_str=json.dumps(schema), schema_type=kind, expected_values=values)


def _tool_task(rng: Random, topic: str, text: str, schema: Any, values: Any) -> StructuredOutputsTask:
    key = rng.choice(PAYLOADS)
    others = [other for other in TOPICS if other != topic]
    names = {other: f"{rng.choice(TOOLS)}_{other}" for other in (topic, *others)}
    shown = {topic: schema} | {other: make_records(rng, other)[0].schema for other in others}
    tools = [
        {
            "type": "function",
            "name": names[other],
            "description": f"Hand in what is known of a {other}.",
            "strict": True,
            "parameters": part if key is None else object_of({key: part}),
        }
        for other, part in shown.items()
    ]
    rng.shuffle(tools)
    return StructuredOutputsTask.ask(
        f"Notes:\n{text}\n\n{UNSAID}Hand in what these notes on a {topic} say, by the tool for it, in one call.",
        parameters={"tools": tools, "parallel_tool_calls": False},
        schema_str=json.dumps(schema), response_mode="tool_call", tool_name=names[topic], tool_payload_key=key,
        expected_values=values,
    )  # fmt: skip
