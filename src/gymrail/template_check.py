"""`gymrail tokens check`: whether what is trained with a chat template is what was sampled.

Two ways lead from an episode to a trainer, and both are tried on the same episodes:

- rollouts: the sampled ids are kept and spliced (GRPO; `gymrail export sft --tokens`). Held against the sampler's own
  record: every sampled token is trained once, in order, with its own log-prob, and nothing else is.
- messages: the conversation is rendered again from its messages (SFT and DPO on messages; chat endpoints that render
  the history for every answer). The first token that differs is shown, with the part of the template that does it.

Only the tokenizer is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gymrail.models.chat_template import ChatTemplate, TemplateError, TemplateRefusal
from gymrail.template_causes import CAUSES, SPLICE, By, Rendered, cause_of
from gymrail.template_probes import PROBES, QUESTION, RESULT, SYSTEM, Played, Probe, play_probe
from gymrail.tokens import TokenError, first_difference, sequence_of

Train = Literal["rollouts", "messages"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a template does to episodes."""

    kind: Literal["differs", "drift", "limit"]
    """`differs`: rollouts themselves cannot be trained as sampled. `drift`: only what is rendered again from messages
    differs. `limit`: what cannot be played with this template, or is not shown to the policy."""
    probe: str
    cause: str
    fix: str
    by: By = "template"
    """`policy`: a writing that no template gives back, such as JSON in another spacing."""
    token: int | None = None
    """Place of the first token that differs."""
    sampled: str | None = None
    rendered: str | None = None


@dataclass(frozen=True, slots=True)
class TemplateReport:
    """What the check found."""

    tool_format: str
    turn_end: str | None
    """The token that ends a turn, in words; None where sampling does not stop at it."""
    episodes: int
    turns: int
    sampled_tokens: int
    """Each was trained once, and nothing else, unless a finding says otherwise."""
    findings: tuple[Finding, ...]

    def failures(self, train: Train) -> list[Finding]:
        """The findings because of which training differs from sampling."""
        return [
            finding
            for finding in self.findings
            if finding.kind == "differs" or (train == "messages" and finding.kind == "drift" and finding.by != "policy")
        ]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


async def check_template(tokenizer: Any, end_ids: Sequence[int] = ()) -> TemplateReport:
    """Play episodes through a tokenizer's chat template and hold what would be trained against what was sampled.

    Args:
        end_ids: all ids at which the checkpoint's sampling stops; the tokenizer's own is always among them.

    Raises:
        TemplateError: the tokenizer has no chat template.
    """
    template = ChatTemplate(tokenizer, eos_token_ids=end_ids)
    try:
        turn_end = tokenizer.decode([template.turn_end])
    except TemplateRefusal:
        raise
    except TemplateError as error:
        finding = Finding("differs", "answer", str(error), "Until then episodes run past their turns.")
        return TemplateReport(template.tool_format, None, 0, 0, 0, (finding,))
    findings: list[Finding] = [*_bos_limits(template), *_call_limits(template)]
    played: list[Played] = []
    for probe in _suited(template):
        done = await play_probe(probe, template)
        if done.refusal is not None or done.rollout.reward is None:
            findings.append(_refused(done))
            continue
        played.append(done)
        # Every model call is held against the sampler's record before anything is said of what messages would give.
        findings += [*_as_sampled(done, template), *_shown(done, template), *_rendered_again(done, template)]
    samples = [sample for done in played for sample in done.samples]
    total = sum(len(sample.token_ids) for sample in samples)
    return TemplateReport(template.tool_format, turn_end, len(played), len(samples), total, _distinct(findings))


def _suited(template: ChatTemplate) -> list[Probe]:
    source = str(template.tokenizer.chat_template)
    has_calls = template.arguments is not None and template.tool_format != "none"
    has_thinking = "think" in source or "reasoning" in source
    return [probe for probe in PROBES if (has_calls or not probe.has_calls) and (has_thinking or not probe.thinks)]


def _bos_limits(template: ChatTemplate) -> Iterator[Finding]:
    tokenizer = template.tokenizer
    bos = tokenizer.bos_token_id
    prompt = template.render([{"role": "user", "content": QUESTION}], add_generation_prompt=True)
    if bos is not None and tokenizer.encode("x")[:1] == [bos] != prompt[:1]:
        cause = f"drops the BOS {tokenizer.bos_token!r}, which the tokenizer puts before other text"
        yield Finding("limit", "answer", cause, "Write {{ bos_token }} first, if the model was trained with it.")


def _call_limits(template: ChatTemplate) -> Iterator[Finding]:
    if template.arguments is None:
        yield Finding("limit", "call", "writes no tool calls", "Play environments without tools, or set a template.")
    elif template.tool_format == "none":
        formats = "Hermes, Llama 3, Mistral, DeepSeek and XML"
        fix = f"Gymrail reads the calls of {formats}; environments without tools can be played."
        yield Finding("limit", "call", "writes tool calls in a form that is not read", fix)


def _refused(done: Played) -> Finding:
    """A probe that could not be played: the family lacks what it tries, or the template cannot be continued."""
    error = done.refusal
    failure = done.rollout.failure
    text = str(error or (failure.message if failure else done.rollout.outcome))
    if isinstance(error, TemplateRefusal):
        return Finding("limit", done.probe.name, text, "Episodes of this kind fail, and are never trained.")
    return Finding("differs", done.probe.name, text, "Change the template.")


def _as_sampled(done: Played, template: ChatTemplate) -> Iterator[Finding]:
    """Hold the rollout's sequence against what the sampler gave, token by token and log-prob by log-prob."""
    name = done.probe.name
    try:
        sequence = sequence_of(done.rollout)
    except TokenError as error:
        yield Finding("differs", name, str(error), "Change the template.")
        return
    trained = [index for index, keep in enumerate(sequence.mask) if keep]
    sampled = [token for sample in done.samples for token in sample.token_ids]
    got = [sequence.completion_ids[index] for index in trained]
    if got != sampled:
        at = first_difference(got, sampled)
        words = [template.tokenizer.decode(ids[at : at + 1]) for ids in (sampled, got)]
        yield Finding("differs", name, "trains other tokens", "Change the template.", "template", at, *words)
    elif [sequence.log_probs[index] for index in trained] != [p for sample in done.samples for p in sample.log_probs]:
        yield Finding("differs", name, "trains with log-probs of other tokens", "Change the template.")
    elif [sequence.input_ids[: len(prompt)] for prompt in done.prompts] != done.prompts:
        yield Finding("differs", name, "trains after another prompt", "Change the template.")
    calls = sum(turn.calls for turn in done.probe.turns)
    if len(done.rollout.calls) != calls or any(call.is_error for call in done.rollout.calls):
        fix = "Tell the family with ChatTemplate(tool_format=...), or report the template."
        cause = f"is read wrongly: {len(done.rollout.calls)} of {calls} sampled calls were found"
        yield Finding("limit", name, cause, fix)


def _shown(done: Played, template: ChatTemplate) -> Iterator[Finding]:
    """What the policy must be able to read in its prompts."""
    text = template.tokenizer.decode(done.prompts[-1])
    for what, words in (
        ("system message", SYSTEM if done.probe.system else ""),
        ("user's question", QUESTION),
        ("follow-up question", next(iter(done.probe.follow_ups), "")),
        ("tool schemas", "Look up the weather" if done.probe.has_calls else ""),
        ("tool results", RESULT if done.rollout.calls else ""),
    ):
        if words not in text:
            yield Finding("limit", done.probe.name, f"does not show the {what}", "The policy cannot know it.")


def _rendered_again(done: Played, template: ChatTemplate) -> Iterator[Finding]:
    """Compare each prompt, and the whole conversation, with what the template makes of the messages."""
    rollout = done.rollout
    turns = [
        (len(prompt), len(prompt) + len(sample.token_ids))
        for prompt, sample in zip(done.prompts, done.samples, strict=True)
    ]
    calls = [index for index, item in enumerate(rollout.conversation) if "generation_token_ids" in item]
    # The items of a call's turn stand before the one that carries its tokens: a prompt ends where the answer before it
    # and what followed end.
    starts = [rollout.prompt_length, *(_next_turn(rollout.conversation, index) for index in calls[:-1])]
    stages = [(prompt, start, True) for prompt, start in zip(done.prompts, starts, strict=True)]
    whole = [*done.prompts[-1], *done.samples[-1].token_ids]
    for spliced, length, is_prompt in [*stages, (whole, len(rollout.conversation), False)]:
        try:
            ids = template.render(rollout.conversation[:length], done.tools, add_generation_prompt=is_prompt)
        except TemplateError as error:
            yield Finding("drift", done.probe.name, str(error), SPLICE)
            continue
        if not is_prompt:
            ids, extra = _cut_after_end(ids, template.turn_end)
            if extra:
                text, option = CAUSES["after_end"]
                token = template.tokenizer.decode(extra)
                yield Finding(
                    "drift", done.probe.name, text.format(extra=token), option, "template", len(ids), "the end", token
                )
        rendering = Rendered(done.probe, template.tokenizer, spliced, ids, turns)
        if rendering.at is not None:
            yield _drift(rendering)


def _cut_after_end(ids: list[int], turn_end: int) -> tuple[list[int], list[int]]:
    """Cut a rendering after its last end of a turn: what stands there was never sampled, whatever came before."""
    end = next((index + 1 for index in range(len(ids) - 1, -1, -1) if ids[index] == turn_end), len(ids))
    return ids[:end], ids[end:]


def _next_turn(items: Sequence[Any], index: int) -> int:
    """Where the environment's answer to a model call ends and the next model call begins."""
    index += 1
    while items[index].get("type") == "function_call_output" or items[index].get("role") == "user":
        index += 1
    return index


def _drift(rendering: Rendered) -> Finding:
    key, by = cause_of(rendering)
    at = rendering.at
    assert at is not None
    text, option = CAUSES[key]
    fix = option if by == "template" else f"No template can give it back. {SPLICE}"
    sampled, rendered = rendering.token(rendering.spliced, at), rendering.token(rendering.rendered, at)
    cause = text.format(extra=rendering.text_rendered(at))
    return Finding("drift", rendering.probe.name, cause, fix, by, at, sampled, rendered)


def _distinct(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The first of each kind and cause."""
    first: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        first.setdefault((finding.kind, finding.cause), finding)
    return tuple(first.values())
