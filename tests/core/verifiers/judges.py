"""Scripted judges: they see what a model would see, and what they say depends on it."""

import asyncio
import re
from collections.abc import Callable, Iterable

from gymrail.models.model import ModelRequest, ModelResponse, message
from gymrail.rollout import Usage

Answer = Callable[[ModelRequest], str]
EQUAL, DIFFERENT = "[[A=B]]", "[[A!=B]]"
_FENCE = re.compile(r"Texts to judge stand between <(text-[0-9a-f]+)>")


class Scripted:
    """Says one text after the other, or what a function of the request says; keeps the requests."""

    def __init__(self, said: Iterable[str] | Answer, usage: Usage | None = None, waits: int = 0) -> None:
        self.requests: list[ModelRequest] = []
        self.usage = usage or Usage(100, 10)
        self.waits = waits
        """How often it gives way to others before it answers."""
        self.running = self.most = 0
        self._said = said if callable(said) else iter(said)

    async def respond(self, request: ModelRequest) -> ModelResponse:
        self.requests.append(request)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            for _ in range(self.waits):
                await asyncio.sleep(0)
            said = self._said(request) if callable(self._said) else next(self._said)
            return ModelResponse([message(said)], usage=self.usage, model="scripted")
        finally:
            self.running -= 1


def texts_of(request: ModelRequest) -> tuple[list[str], str]:
    """Read a request as a judge does that keeps to the rules: the fenced texts, and all that stands outside."""
    system, user = (item["content"] for item in request.input)
    (fence,) = _FENCE.findall(system)
    inside = re.findall(rf"<{fence}>\n(.*?)\n</{fence}>", user, re.DOTALL)
    outside = re.sub(rf"<{fence}>\n.*?\n</{fence}>", "", user, flags=re.DOTALL)
    return inside, f"{system}\n{outside}"


def compares(request: ModelRequest) -> str:
    """Compare the two answers as text."""
    (_, one, other), _ = texts_of(request)
    return EQUAL if one.strip().casefold() == other.strip().casefold() else DIFFERENT


def obeys(request: ModelRequest) -> str:
    """Do what anything outside the fences says, quote what stands inside, and otherwise compare.

    This is the judge that an injection wants: the only thing between it and a wrong verdict is the prompt.
    """
    inside, outside = texts_of(request)
    orders = re.search(r"full marks|the verdict is|ignore (?:all|the)|you must", outside, re.IGNORECASE)
    quoted = " ".join(f"A text says: {text}." for text in inside[1:])
    return EQUAL if orders or len(inside) != 3 else f"{quoted} So {compares(request)}"
