"""Why a conversation that is rendered again is not what was sampled: the part of a chat template that does it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from gymrail.template_probes import PASSING_THOUGHT, QUESTION, SYSTEM, Probe
from gymrail.tokens import first_difference

By = Literal["template", "policy"]

SPLICE = "GRPO and `gymrail export sft --tokens` keep the sampled ids."
_EACH_ANSWER = "To train on messages, give each answer a row of its own: `gymrail export sft --per step`."
_WRITE = "To train on messages, let the template write earlier turns as it writes the last one."


class Cause(NamedTuple):
    """What the template does, and what to set for who trains on messages."""

    text: str
    option: str


CAUSES = {
    "drops_bos": Cause("drops the BOS once the conversation goes on", "Write {{ bos_token }} whatever follows."),
    "adds_bos": Cause("adds a second BOS", "Write {{ bos_token }} once."),
    "moves_system": Cause(
        "moves the system message to a later turn", "Write it where it stands, or in the first turn."
    ),
    "moves_tools": Cause("moves the tool schemas to a later turn", "Write them before the first turn."),
    "strips_thinking": Cause("strips <think> of earlier turns", _EACH_ANSWER),
    "thinking_spacing": Cause("writes <think> with other white space", _WRITE),
    "adds_thinking": Cause("adds an empty <think> block to an answer without one", _WRITE),
    "opens_thinking": Cause("opens <think> in the generation prompt otherwise than in the history", _WRITE),
    "arguments_spacing": Cause("re-renders tool arguments with other spacing", "Write them with `| tojson` alone."),
    "arguments_escaped": Cause("re-renders tool arguments with escaped letters", "Write them with `| tojson` alone."),
    "arguments_order": Cause("re-renders tool arguments in another order", "Keep the order: no `sort_keys`."),
    "calls": Cause("writes a tool call otherwise than it was sampled", _WRITE),
    "drops_words": Cause("drops the words before a tool call", "Write `message.content` of turns with calls too."),
    "trims": Cause("trims white space of an answer", "Write assistant turns without `| trim`."),
    "turn_end": Cause("ends an earlier turn with another token", "End every assistant turn alike."),
    "answer": Cause("rewrites an earlier answer", _WRITE),
    "after_end": Cause(
        "adds {extra!r} after the last end-of-turn token: a token that is never sampled",
        "`gymrail train` leaves it out; in a script of your own, gymrail_trl.train_as_sampled(trainer) does.",
    ),
    "scaffolding": Cause("rewrites user turns or tool results once the conversation goes on", _WRITE),
    "other_tokens": Cause("makes other tokens of the same text", SPLICE),
}


@dataclass(frozen=True, slots=True)
class Rendered:
    """A probe's ids as they were sampled and spliced, and the same conversation rendered from its messages."""

    probe: Probe
    tokenizer: Any
    spliced: list[int]
    rendered: list[int]
    turns: list[tuple[int, int]]
    """Where each sampled turn begins and ends in `spliced`."""

    @property
    def at(self) -> int | None:
        """The first token that differs, or None."""
        return None if self.spliced == self.rendered else first_difference(self.spliced, self.rendered)

    def token(self, ids: list[int], at: int) -> str:
        return self.tokenizer.decode([ids[at]]) if at < len(ids) else "the end"

    def text(self, start: int = 0, end: int | None = None) -> str:
        return self.tokenizer.decode(self.spliced[start:end])

    def text_rendered(self, start: int = 0) -> str:
        return self.tokenizer.decode(self.rendered[start:])


def cause_of(rendering: Rendered) -> tuple[str, By]:
    """Return the key of the cause in `CAUSES`, and whose doing it is."""
    at = rendering.at
    assert at is not None, "there is no difference to explain"
    key = _bos(rendering) or _in_prompt(rendering, at) or _in_turn(rendering, at) or "scaffolding"
    freedom = {"compact": ("arguments_spacing", "calls"), "pieces": ("other_tokens",)}
    return key, "policy" if key in freedom.get(rendering.probe.writing, ()) else "template"


def _bos(rendering: Rendered) -> str | None:
    bos = rendering.tokenizer.bos_token_id
    if bos is None:
        return None
    before, now = (
        next((index for index, token in enumerate(ids) if token != bos), len(ids))
        for ids in (rendering.spliced, rendering.rendered)
    )
    return "drops_bos" if now < before else "adds_bos" if now > before else None


def _in_prompt(rendering: Rendered, at: int) -> str | None:
    """What stood before the first turn or between turns, and stands elsewhere now."""
    if any(start <= at < end for start, end in rendering.turns):
        return None
    spliced, rendered = rendering.text(), rendering.text_rendered()
    for key, words in (("moves_system", SYSTEM), ("moves_tools", "forecast")):
        asked = [text.find(QUESTION) for text in (spliced, rendered)]
        found = [text.find(words) for text in (spliced, rendered)]
        if min(*found, *asked) >= 0 and (found[0] < asked[0]) != (found[1] < asked[1]):
            return key
        if key == "moves_system" and rendering.probe.system and found[0] >= 0 > found[1]:
            return key
    start = next((start for start, _ in rendering.turns if start > at), None)
    if start is not None and _lost_thought(rendering, start):
        return "strips_thinking"
    # The tag itself may be the same, and the white space after it another.
    if start is not None and re.fullmatch(r"(\s|</?think>)*", rendering.text(at, start)):
        return "opens_thinking" if "<think>" in rendering.text(0, start)[-24:] else None
    return None


def _in_turn(rendering: Rendered, at: int) -> str | None:
    turn = next(((start, end) for start, end in rendering.turns if start <= at < end), None)
    if turn is None:
        return None
    start, end = turn
    said, now = rendering.text(start, end - 1), rendering.text_rendered(start)
    if _lost_thought(rendering, start):
        return "strips_thinking"
    if "</think>" not in said and re.match(r"\s*(<think>)?\s*</think>", now):
        return "adds_thinking"
    if "</think>" in said and "</think>" not in rendering.text(start, at):
        return "thinking_spacing"
    rewritten = now.split(rendering.text(end - 1, end))[0]
    if rewritten == said:
        return "other_tokens" if at < end - 1 else "turn_end"
    if "forecast" in said:
        return _in_call(said, rewritten, rendering.probe)
    if rewritten.strip() == said.strip():
        return "trims"
    return "turn_end" if now.startswith(said) else "answer"


def _in_call(said: str, rewritten: str, probe: Probe) -> str:
    words = next((turn.text for turn in probe.turns if turn.calls and turn.text), None)
    if words is not None and words in said and words not in rewritten:
        return "drops_words"
    kept, now = re.sub(r"\s", "", said), re.sub(r"\s", "", rewritten)
    if kept == now:
        return "arguments_spacing"
    if re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), now) == kept:
        return "arguments_escaped"
    return "arguments_order" if sorted(kept) == sorted(now) else "calls"


def _lost_thought(rendering: Rendered, start: int) -> bool:
    """Whether the turn that begins at `start` thought something that is nowhere in the rendering."""
    end = next((end for begin, end in rendering.turns if begin == start), start)
    said = rendering.text(start, end)
    now = rendering.text_rendered()
    thoughts = {PASSING_THOUGHT, *(turn.thought for turn in rendering.probe.turns if turn.thought)}
    return any(thought in said and thought not in now for thought in thoughts)
