"""Scripts and oracles behind a program: they know the environment's tools by their own names and want each output as
the tool gave it, but a program renames tools, wraps outputs, adds turns of its own, asks on the side and asks twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import orjson

from gymrail.episode import Episode
from gymrail.messages import TOKEN_FIELDS
from gymrail.models.model import Model, ModelRequest, ModelResponse, message
from gymrail.rollout import ToolCall
from gymrail.serving.recording import short_name
from gymrail.task import Item

_SIDE_ANSWER = "ok"


class EpisodeScript:
    """Stands between a program and a script: each sees the conversation in its own words."""

    def __init__(self, model: Model, episode: Episode) -> None:
        self.model = model
        self.episode = episode
        self._answers: dict[bytes, ModelResponse] = {}

    async def respond(self, request: ModelRequest) -> ModelResponse:
        table = self.episode.table
        names = {short_name(tool["name"], table): tool["name"] for tool in request.tools}
        if table and not names.keys() & table.keys():
            return ModelResponse([message(_SIDE_ANSWER)], model="scripted")  # a title, a probe: nothing of the episode
        items = self._as_played(request.input)
        key = orjson.dumps(items)
        known = self._answers.get(key)
        if known is None:
            # A script moves on with every question, so the same question asked again has the same answer.
            known = self._answers[key] = await self.model.respond(replace(request, input=items))
        return replace(known, items=[_renamed(item, names) for item in known.items])

    def _as_played(self, items: Sequence[Item]) -> list[Item]:
        """The conversation as the tool loop would have it: the task's prompt, the script's turns, the tools'
        outputs."""
        rollout = self.episode.rollout
        played = list(rollout.conversation[: rollout.prompt_length])
        journal = list(rollout.calls)
        outputs: dict[str, object] = {}
        for item in items:
            kind = item.get("type")
            if kind == "function_call":
                name = short_name(item["name"], self.episode.table)
                call = _take(journal, name, item.get("arguments") or "{}")
                if call is not None:
                    outputs[item["call_id"]] = call.output
                played.append({**item, "name": name})
            elif kind == "function_call_output":
                output = outputs.get(item["call_id"], item["output"])
                played.append({"type": kind, "call_id": item["call_id"], "output": output})
            elif item.get("role") == "assistant":
                played.append(item)
        return played


def _take(journal: list[ToolCall], name: str, arguments: str) -> ToolCall | None:
    """Take a call out of the journal; MCP has no call ids, so it is known by its name and arguments."""
    wanted = ToolCall("", name, arguments).parsed
    for index, call in enumerate(journal):
        if call.name == name and call.parsed == wanted:
            return journal.pop(index)
    return None


def _renamed(item: Item, names: dict[str, str]) -> Item:
    item = {name: value for name, value in item.items() if name not in TOKEN_FIELDS}
    return {**item, "name": names.get(item["name"], item["name"])} if item.get("type") == "function_call" else item
