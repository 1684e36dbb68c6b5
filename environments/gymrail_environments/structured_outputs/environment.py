"""A text and a schema: answer with the text's facts as JSON, YAML, XML, TOML or CSV that fits, or by a tool call.

One row:

    {"responses_create_params": {"input": "...It was built in 1987. Answer as YAML, by this schema: {...}"},
     "schema_str": "{\\"type\\": \\"object\\", \\"properties\\": {\\"year_built\\": {\\"type\\": \\"integer\\"}}}",
     "schema_type": "yaml", "expected_values": {"year_built": 1987}}
"""

from __future__ import annotations

import copy
import json
from collections.abc import Generator, Mapping
from random import Random
from typing import Any

from gymrail import Environment, Rollout, Verdict
from gymrail.environment import Call, Config, Turn
from gymrail.errors import InputError
from gymrail.verifiers.schema import SchemaAdherence
from gymrail_environments.structured_outputs.tasks import StructuredOutputsTask, make_task
from gymrail_environments.structured_outputs.writing import write


class StructuredOutputs(Environment[StructuredOutputsTask]):
    """The answer parses, fits the schema read strictly, and has the expected values."""

    class Config(Config):
        allow_fence: bool = False
        """Whether an answer may stand in a Markdown code fence."""

    @classmethod
    def generate(cls, rng: Random) -> StructuredOutputsTask:
        return make_task(rng)

    async def call_tool(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """Take the row's own tools: the first call is the answer, and the episode is over."""
        self.done = True
        return "Received."

    async def verify(self, rollout: Rollout) -> Verdict:
        task, verifier = self.task, SchemaAdherence(allow_fence=self.config.allow_fence)
        if task.response_mode == "text":
            return await verifier(
                "".join(rollout.answers),
                schema_str=task.schema_str, schema_type=task.schema_type, expected_values=task.expected_values,
            )  # fmt: skip
        value, problem = called_with(rollout, task)
        if problem is not None:
            return Verdict(0.0, metrics={"error_type": "tool_call"}, reason=problem)
        return verifier.judge_value(value, task.schema_str, task.expected_values)

    def solve(self) -> Generator[Turn, Any, None]:
        if self.task.expected_values is None:
            raise InputError(f"Task {self.task.id} has no expected_values, so there is no gold answer to it.")
        yield self._say(self.task.expected_values)

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Leave a field out, or misread one."""
        value = copy.deepcopy(self.task.expected_values)
        records = value if isinstance(value, list) else [value]
        name = rng.choice(sorted(records[0]))
        if rng.random() < 0.5:
            records[0][name] = f"{records[0][name]} or so"
        else:
            for record in records:
                del record[name]
        return self._say(value)

    def _say(self, value: Any) -> Turn:
        if self.task.response_mode == "text":
            return write(self.task.schema_type, value)
        tools = self.task.offered_tools or [{}]
        key = self.task.tool_payload_key
        return Call(self.task.tool_name or tools[0].get("name", ""), value if key is None else {key: value})


def called_with(rollout: Rollout, task: StructuredOutputsTask) -> tuple[Any, str | None]:
    """Return what the one tool call gave, or what is wrong with the calls."""
    calls = [item for item in rollout.items if item.get("type") == "function_call"]
    if len(calls) != 1:
        return None, f"{len(calls)} tool calls, not one"
    if task.tool_name is not None and calls[0]["name"] != task.tool_name:
        return None, f"{calls[0]['name']!r} was called, not {task.tool_name!r}"
    try:
        value = json.loads(calls[0].get("arguments") or "")
    except (ValueError, RecursionError) as error:
        return None, f"the arguments are no JSON: {error}"
    if task.tool_payload_key is None:
        return value, None
    if not isinstance(value, dict) or task.tool_payload_key not in value:
        return None, f"the argument {task.tool_payload_key!r} is missing"
    return value[task.tool_payload_key], None
