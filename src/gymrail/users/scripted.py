"""A user without a model: tells a fact when asked for it, agrees to proposals, puts one request after another.

    script = UserScript(facts=[Fact(ask=["order number", "order id"], say="It is order 4417.")], requests=["Also, ..."])
    turn = await ScriptedUser(script).respond(rollout.items)

It understands little: words that ask, and nothing else. What it is good for is what a model is not: the same words
for the same talk on every machine, at no cost.

Covers: facts held back until asked, a second request after the first, confirmations, agents that only promise to
look, the end of patience.
Does not cover: irony, other languages than English, answers to what no fact was written for ("I do not know that.").
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from gymrail.rollout import text_of
from gymrail.task import Item
from gymrail.users.user import UserTurn

AGREE = "Yes, please go ahead."
DECLINE = "No, only what I asked for, please."
WAIT = "All right, I will wait."
UNKNOWN = "I do not know that, sorry."
THANKS = "Thank you, that was all."
GIVE_UP = "This takes too long for me. Goodbye."

_ASKS = re.compile(
    r"\?|\b(?:please|kindly)\s+(?:\w+\s+){0,2}?(?:provide|tell|give|share|send|confirm|state)\b"
    r"|\blet me know (?:your|the|which|what|whether|how|if you)\b"
    r"|\bI(?:'ll| will| would|'d)? (?:also )?need\b",
    re.IGNORECASE,
)
_MORE = re.compile(
    r"\b(?:anything|something) else\b|\b(?:any |other |more |further )+(?:help|questions?|assistance|requests?)\b",
    re.IGNORECASE,
)
_OTHER = re.compile(
    r"\b(?:instead|alternativ\w+|transfer|human|colleague|supervisor|different|another)\b", re.IGNORECASE
)
_CONFIRM = re.compile(
    r"\b(?:shall|should|may|can) I\b|\bwould you like me\b|\bdo you want me\b|\bis (?:that|this) (?:correct|right|ok)"
    r"|\bokay for you\b|\bconfirm\b|\bproceed\b|\bgo ahead\b|\bdo you agree\b",
    re.IGNORECASE,
)
_PROMISES = re.compile(
    r"\b(?:one|a) (?:moment|second|minute)\b|\blet me (?:check|look|see|find|pull)\b|\bplease (?:hold|wait)\b"
    r"|\bI(?:'ll| will) (?:check|look|now|take care|get back|find)\b",
    re.IGNORECASE,
)


class Fact(BaseModel):
    """Something that the user says when asked, not before."""

    model_config = ConfigDict(extra="forbid")

    ask: list[str] = Field(min_length=1)
    """Phrases, one of which stands in a question for it; upper and lower case are one."""
    say: str


class UserScript(BaseModel):
    """What a scripted user knows and wants."""

    model_config = ConfigDict(extra="forbid")

    facts: list[Fact] = []
    requests: list[str] = []
    """What it asks for after its first request, one by one."""
    patience: int = Field(default=12, ge=1)
    """Answers that it gives before it leaves."""


class ScriptedUser:
    """Plays a script for one episode."""

    def __init__(self, script: UserScript) -> None:
        self.script = script
        self.answers_given = 0
        self.requests_put = 0
        self.has_left = False
        """Its patience ended before its requests were dealt with."""

    async def respond(self, items: Sequence[Item]) -> UserTurn:
        """Answer the last message of the agent; see `User`."""
        said = next((text_of(item) for item in reversed(items) if item.get("role") == "assistant"), "")
        return self.answer(said)

    def answer(self, said: str) -> UserTurn:
        """Answer what the agent said.

        A question is answered by the facts that it asks for; a proposal is agreed to, unless it is for something
        else; a promise to look is waited
        for. Any other statement settles the request: the next one follows, or the talk ends.
        """
        if self.answers_given >= self.script.patience:
            self.has_left = True
            return UserTurn(GIVE_UP, ends=True)
        self.answers_given += 1
        if _ASKS.search(said):
            told = [fact.say for fact in self.script.facts if _asks_for(said, fact)]
            if told:
                return UserTurn(" ".join(told))
            if not _MORE.search(said):
                return UserTurn(_opinion(said))
        elif _PROMISES.search(said) or not said.strip():
            return UserTurn(WAIT)
        return self._next_request()

    def _next_request(self) -> UserTurn:
        if self.requests_put < len(self.script.requests):
            self.requests_put += 1
            return UserTurn(self.script.requests[self.requests_put - 1])
        return UserTurn(THANKS, ends=True)


def _opinion(said: str) -> str:
    """What the user says to a question that no fact answers."""
    if _OTHER.search(said):
        return DECLINE
    return AGREE if _CONFIRM.search(said) else UNKNOWN


def _asks_for(said: str, fact: Fact) -> bool:
    return any(
        re.search(rf"(?<!\w){re.escape(phrase)}s?(?!\w)", said, re.IGNORECASE) is not None for phrase in fact.ask
    )
