"""Remote environments with user turns or step rewards: `/reset`, then one `/step` for each thing the agent does.

A tool call is a step, and so is an answer to the user; the reward is the sum of the steps' rewards.
Does not cover: text that a model writes beside its tool calls, which the server does not get to see.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import orjson

from gymrail.clients.fleet import Session
from gymrail.clients.remote import RemoteEnvironment, object_in, wire_item
from gymrail.environment import Reply
from gymrail.errors import InfrastructureError
from gymrail.rollout import Rollout, Verdict
from gymrail.task import Item

_TRUNCATED = {"output": [], "incomplete_details": {"reason": "max_output_tokens"}}


class SteppedEnvironment(RemoteEnvironment):
    """An episode on a server that is driven step by step."""

    opening = "reset"

    async def seed(self) -> None:
        self.total = 0.0
        self.components: dict[str, float] = {}
        self.metrics: dict[str, Any] = {}
        self.is_over = False
        # A step is the episode's whole next move: two at once have no order.
        self.stepping = asyncio.Lock()
        await super().seed()

    async def call_tool(self, tool: str, arguments: dict[str, Any]) -> Any:
        call_id = f"call_{uuid.uuid4().hex[:12]}"
        text = orjson.dumps(arguments).decode()
        item = {"type": "function_call", "call_id": call_id, "name": tool, "arguments": text}
        answer = await self._step({"output": [item]})
        if self.is_over:
            self.done = True
        outputs = {output.get("call_id"): output for output in (answer.get("info") or {}).get("tool_outputs") or ()}
        if call_id not in outputs:
            if self.is_over:
                return ""
            raise InfrastructureError(f"The server's step gave no output for the call of {tool!r}.")
        return outputs[call_id].get("output", "")

    async def reply(self, rollout: Rollout) -> Reply | None:
        said: list[Item] = []
        for item in reversed(rollout.items):
            if item.get("role") != "assistant" and item.get("type") != "reasoning":
                break
            said.insert(0, item)
        first = len(rollout.items) - len(said)
        answer = await self._step({"output": [wire_item(item, first + index) for index, item in enumerate(said)]})
        observation = answer.get("observation")
        if self.is_over or observation is None:
            return None
        return Reply(observation, float(answer.get("reward") or 0.0))

    async def verify(self, rollout: Rollout) -> Verdict:
        if not self.is_over and self.config.protocol == "gymrail":
            # The agent ran out of a budget; our servers judge what there is.
            await self._step(_TRUNCATED)
        return Verdict(self.total, self.components, self.metrics)

    async def _step(self, response: dict[str, Any]) -> dict[str, Any]:
        head = {"id": "resp_0", "object": "response", "created_at": 0, "model": "", "parallel_tool_calls": True}
        whole = {**head, "tool_choice": "auto", "tools": [], **response}
        body = self.row[:-1] + b',"response":' + orjson.dumps(whole) + b"}"
        async with self.stepping:
            is_ours = self.config.protocol == "gymrail"
            session = self.session
            if is_ours:
                session = Session({**session.headers, "X-Call-Id": uuid.uuid4().hex})
            reply = await self.post("step", body, session, repeat=is_ours)
            self.check_status("step", reply)
            answer = object_in(reply)
            self.total += float(answer.get("reward") or 0.0)
            self.is_over = self.is_judged = bool(answer.get("terminated") or answer.get("truncated"))
        info = answer.get("info") or {}
        self.components = info.get("reward_components") or {}
        self.metrics = (info.get("gymrail") or {}).get("metrics") or {}
        return answer
