"""A stand-in of NeMo Gym's model server in front of NeMo RL's vLLM: Responses with token fields, strict about both.

NeMo RL's HTTP server refuses sampling that is not the trainer's own, and continues a conversation exactly only where
every earlier answer comes back with its token ids.
"""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gymrail.errors import ContextOverflow
from gymrail.messages import TOKEN_FIELDS
from gymrail.models.model import ModelRequest, message
from gymrail.models.token_model import TokenModel

_KNOWN = ("temperature", "top_p", "max_output_tokens")


class PolicyServer:
    """Serves a model, and holds every request against what it said before."""

    def __init__(self, model: TokenModel) -> None:
        self.model = model
        self.app = Starlette(routes=[Route("/v1/responses", self.respond, methods=["POST"])])
        self._said: dict[tuple[int, ...], dict[str, Any]] = {}
        self._wrong: list[str] = []
        self._continued = 0

    def check(self) -> None:
        """Every request's sampling was the trainer's, and every earlier answer came back as it was given."""
        assert not self._wrong, self._wrong
        assert self._continued > 10

    async def respond(self, request: Request) -> JSONResponse:
        body = await request.json()
        if (body.get("temperature"), body.get("top_p"), body.get("max_output_tokens")) != (1.0, 1.0, 96):
            self._wrong.append(f"sampling: { {name: body.get(name) for name in _KNOWN} }")
        for item in body["input"]:
            if "generation_token_ids" in item:
                self._continued += 1
                said = self._said[tuple(item["prompt_token_ids"])]
                if any(item[name] != said[name] for name in TOKEN_FIELDS):
                    self._wrong.append(f"token fields: {item}")
        parameters = {name: body[name] for name in _KNOWN}
        asked = ModelRequest(body["input"], body.get("tools") or (), parameters)
        head = {"id": "resp_1", "object": "response", "created_at": 0, "model": "policy_model"}
        try:
            answer = await self.model.respond(asked)
        except ContextOverflow:  # as NeMo Gym's server answers what vLLM refuses as too long
            cut = {"incomplete_details": {"reason": "max_output_tokens"}, "status": "incomplete"}
            return JSONResponse({**head, **cut, "output": [message("")]})
        self._said[tuple(answer.items[-1]["prompt_token_ids"])] = dict(answer.items[-1])
        cut = answer.finish_reason != "stop"
        details = {"incomplete_details": {"reason": answer.finish_reason}, "status": "incomplete"} if cut else {}
        return JSONResponse({**head, "status": "completed", "output": answer.items, **details})
