"""Episodes that try a chat template: what a policy of its family might say, sampled token by token without a model.

A turn's words come from the template itself: its own writing of a call is what its model writes. Each probe has one
feature that templates are known to rewrite, so that what breaks names its cause.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gymrail.environment import Environment
from gymrail.messages import reasoning_item
from gymrail.models.chat_template import ChatTemplate, TemplateError
from gymrail.models.model import ModelRequest, ModelResponse, function_call, message
from gymrail.models.token_model import Sample, Sampling, TokenModel
from gymrail.play import play
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec
from gymrail.task import Item, Task
from gymrail.tokens import first_difference
from gymrail.tools import tool

SYSTEM = "Answer in the words of a guide."
QUESTION = "Where does the tour begin?"
FOLLOW_UPS = ("And where does it end?", "Which of the two is older?")
ARGUMENTS: Mapping[str, Any] = {"days": 3, "city": "Zürich"}
RESULT = "Rain until noon in Zürich."
PASSING_THOUGHT = "Let me see."
"""Of turns without one, where the template's generation prompt opens <think>."""


@dataclass(frozen=True, slots=True)
class Said:
    """One turn of the policy."""

    text: str = ""
    thought: str = ""
    calls: int = 0


@dataclass(frozen=True, slots=True)
class Probe:
    """An episode: what is said in it, and which of its features a template may rewrite."""

    name: str
    turns: tuple[Said, ...]
    system: str | None = None
    writing: Literal["template", "compact", "pieces"] = "template"
    """As the template writes; JSON without spaces; or the same text in other tokens. The last two are the policy's own
    freedom: no template gives them back once they are messages."""

    @property
    def has_calls(self) -> bool:
        return any(turn.calls for turn in self.turns)

    @property
    def thinks(self) -> bool:
        return any(turn.thought for turn in self.turns)

    @property
    def follow_ups(self) -> tuple[str, ...]:
        return FOLLOW_UPS[: sum(not turn.calls for turn in self.turns) - 1]


_BEGIN, _END, _OLDER = Said("At the old bridge."), Said("At the mill."), Said("The mill is.")
_LOOK = Said(calls=1)
PROBES = (
    Probe("answer", (_BEGIN,)),
    Probe("follow-ups", (_BEGIN, _END, _OLDER)),
    Probe("white space", (Said("At the old bridge. \n\n"), _END)),
    Probe("system", (_BEGIN, _END), system=SYSTEM),
    Probe("thinking", (Said("At the old bridge.", "They meet at the river."), Said("At the mill.", "It is uphill."))),
    Probe("call", (_LOOK, _BEGIN)),
    Probe("call after words", (Said("I look first.", calls=1), _BEGIN)),
    Probe("calls and follow-ups", (_LOOK, _BEGIN, _LOOK, _END)),
    Probe("thinking and calls", (Said("", "Rain matters.", 1), Said("At the mill.", "It is dry there."), _END)),
    Probe("two calls at once", (Said(calls=2), _BEGIN)),
    Probe("other spacing", (_LOOK, _BEGIN), writing="compact"),
    Probe("other tokens", (_BEGIN, _END), writing="pieces"),
)


class GuideTask(Task):
    follow_ups: tuple[str, ...] = ()


class Talk(Environment[GuideTask]):
    """Questions, one after the other."""

    def reply(self, rollout: Rollout) -> str | None:
        asked = sum(item.get("role") == "user" for item in rollout.items)
        return self.task.follow_ups[asked] if asked < len(self.task.follow_ups) else None

    def verify(self, rollout: Rollout) -> float:
        return 1.0


class Guide(Talk):
    """The same with a tool."""

    @tool
    def forecast(self, city: str, days: int) -> str:
        """Look up the weather.

        Args:
            city: Where.
            days: For how long.
        """
        return RESULT


TALK, GUIDE = EnvironmentSpec("talk", Talk), EnvironmentSpec("guide", Guide)


@dataclass(slots=True)
class Played:
    """A probe that was played, with a record of what was sampled that is not the rollout's own."""

    probe: Probe
    rollout: Rollout
    tools: list[dict[str, Any]]
    prompts: list[list[int]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    refusal: TemplateError | None = None
    """What the template could not carry."""


async def play_probe(probe: Probe, template: ChatTemplate) -> Played:
    """Play a probe through the model, the agent and the environment that training uses."""
    spec = GUIDE if probe.has_calls else TALK
    task = GuideTask.ask(QUESTION, system=probe.system, follow_ups=probe.follow_ups)
    voice = Voice(probe, template)
    model = _Watched(TokenModel(template, voice, Sampling(max_output_tokens=4096)))
    rollout = await play(spec, task, model)
    return Played(probe, rollout, spec.tool_schemas(task), voice.prompts, voice.samples, model.refusal)


class _Watched:
    """Keeps the template's own error, which an episode's failure holds as text alone."""

    def __init__(self, model: TokenModel) -> None:
        self.model = model
        self.refusal: TemplateError | None = None

    async def respond(self, request: ModelRequest) -> ModelResponse:
        try:
            return await self.model.respond(request)
        except TemplateError as error:
            self.refusal = error
            raise


class Voice:
    """A sampler that says a probe's turns, in the template's own writing, and keeps what it gave."""

    def __init__(self, probe: Probe, template: ChatTemplate) -> None:
        self.probe = probe
        self.template = template
        self.prompts: list[list[int]] = []
        self.samples: list[Sample] = []

    async def sample(self, prompt_ids: list[int], sampling: Sampling) -> Sample:
        turn = self.probe.turns[len(self.samples)]
        ids = [*self._encode(prompt_ids, self._write(prompt_ids, turn)), self.template.turn_end]
        # Every log-prob of an episode is another, so that one at the wrong token is seen.
        start = sum(len(sample.token_ids) for sample in self.samples)
        sample = Sample(ids, [-(start + index + 1) / 1000 for index in range(len(ids))])
        self.prompts.append(list(prompt_ids))
        self.samples.append(sample)
        return sample

    def _write(self, prompt_ids: list[int], turn: Said) -> str:
        body = call_text(self.template, turn, compact=self.probe.writing == "compact") if turn.calls else turn.text
        is_open = self.template.tokenizer.decode(prompt_ids[-8:]).rstrip().endswith("<think>")
        if turn.thought or is_open:
            opening, closing = think_tags(self.template)
            return f"{'' if is_open else opening}{turn.thought or PASSING_THOUGHT}{closing}{body}"
        return body

    def _encode(self, prompt_ids: list[int], text: str) -> list[int]:
        encode = self.template.tokenizer.encode
        if self.probe.writing == "pieces":
            added = set(self.template.tokenizer.get_added_vocab().values())
            letters = self.template.tokenizer.decode
            return [
                piece
                for token in encode(text, add_special_tokens=False)
                for letter in ([None] if token in added else letters([token]))
                for piece in ([token] if letter is None else encode(letter, add_special_tokens=False))
            ]
        # After the last control token of the prompt, as the tokenizer would write both together.
        special = set(self.template.tokenizer.all_special_ids)
        start = next((index for index in range(len(prompt_ids) - 1, -1, -1) if prompt_ids[index] in special), 0)
        tail = prompt_ids[start:]
        whole = encode(self.template.tokenizer.decode(tail) + text, add_special_tokens=False)
        return whole[len(tail) :] if whole[: len(tail)] == tail else encode(text, add_special_tokens=False)


def think_tags(template: ChatTemplate) -> tuple[str, str]:
    """Return what the template writes before and after a thought, or what most families write."""
    text = _turn_text(template, [reasoning_item("They meet."), message("So.")])
    found = re.search(r"(<think>\s*)?They meet\.(\s*</think>\s*)So\.", text)
    return (found[1] or "<think>\n", found[2]) if found else ("<think>\n", "\n</think>\n\n")


def call_text(template: ChatTemplate, turn: Said, *, compact: bool = False) -> str:
    """Return a turn with calls as the template writes it, without its end; the arguments in JSON's usual spacing."""
    calls = [function_call("forecast", json.dumps(ARGUMENTS), f"abcdefgh{number + 1}") for number in range(turn.calls)]
    text = _turn_text(template, [*([message(turn.text)] if turn.text else []), *calls])
    if turn.text and (turn.text not in text or "forecast" not in text):
        text = turn.text + _turn_text(template, calls)
    written = json.dumps(ARGUMENTS, ensure_ascii=False, separators=(",", ":") if compact else (", ", ": "))
    return "".join(written if is_arguments else part for part, is_arguments in _parts(text))


def _turn_text(template: ChatTemplate, turn: list[Item]) -> str:
    asked = {"role": "user", "content": QUESTION}
    prompt = template.render([asked], add_generation_prompt=True)
    whole = template.render([asked, *turn], add_generation_prompt=False)
    start = first_difference(prompt, whole)
    end = max(index for index, token in enumerate(whole) if token == template.turn_end)
    return re.sub(r"\A\s*(<think>)?\s*</think>\s*", "", template.tokenizer.decode(whole[start:end]))


def _parts(text: str) -> list[tuple[str, bool]]:
    """Cut a text into JSON objects that are the arguments, and what stands around them."""
    decoder = json.JSONDecoder()
    parts: list[tuple[str, bool]] = []
    start = 0
    for match in re.finditer(r"\{", text):
        if match.start() < start:
            continue
        try:
            value, end = decoder.raw_decode(text, match.start())
        except json.JSONDecodeError:
            continue
        if value == ARGUMENTS:
            parts += [(text[start : match.start()], False), (text[match.start() : end], True)]
            start = end
    return [*parts, (text[start:], False)]
