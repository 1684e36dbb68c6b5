"""Scripted players of simulated users and tools: they see what a model would see, and what they say depends on it."""

import re
from collections.abc import Callable

from gymrail.models.model import FinishReason, ModelRequest, ModelResponse, function_call, message

Says = Callable[[ModelRequest], str]


class Player:
    """Says the texts one after the other, the last one for ever, or what a function of the request says."""

    def __init__(self, said: list[str] | Says, finish_reason: FinishReason = "stop") -> None:
        self.said = said
        self.finish_reason: FinishReason = finish_reason
        self.requests: list[ModelRequest] = []

    async def respond(self, request: ModelRequest) -> ModelResponse:
        self.requests.append(request)
        said = self.said
        text = said(request) if callable(said) else said[min(len(self.requests), len(said)) - 1]
        return ModelResponse([message(text)], self.finish_reason)


class CallingPlayer:
    async def respond(self, request: ModelRequest) -> ModelResponse:
        return ModelResponse([function_call("refund", "{}", "c1")])


def end_mark(request: ModelRequest) -> str:
    """The word that ends the talk, as the player's instructions name it."""
    found = re.search(r"\[\[[0-9a-f]{8}\]\]", request.input[0]["content"])
    assert found is not None
    return found[0]


def heard(request: ModelRequest) -> list[str]:
    """What the player was told besides its instructions, agent and customer in turn."""
    return [item["content"] for item in request.input[1:]]
