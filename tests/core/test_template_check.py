"""`gymrail tokens check` over six template families: a planted drift is named in each, and the fixed ones pass."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gymrail.errors import GymrailError
from gymrail.models.chat_template import ChatTemplate
from gymrail.models.model import ModelRequest, ModelResponse
from gymrail.models.token_model import TokenModel
from gymrail.template_check import TemplateReport, check_template
from gymrail.template_probes import PROBES
from tests.core.models.chat_families import CLEAN, FAMILIES, ends_of, tokenizer_of

# A switch of the template, and how the check names what it does.
DRIFTS = {
    "tail": (True, "adds '\\n' after the last end-of-turn token"),
    "trim": (True, "trims white space of an answer"),
    "system_last": (True, "moves the system message to a later turn"),
    "tools_last": (True, "moves the tool schemas to a later turn"),
}
ARGUMENT_DRIFTS = {
    "indented": "re-renders tool arguments with other spacing",
    "compact": "re-renders tool arguments with other spacing",
    "escaped": "re-renders tool arguments with escaped letters",
    "sorted": "re-renders tool arguments in another order",
}
THINKING_DRIFTS = [
    ("keeps_thinking", False, "strips <think> of earlier turns"),
    ("empty_think", True, "adds an empty <think> block to an answer without one"),
    ("opens_think", "<think>\n\n", "opens <think> in the generation prompt otherwise than in the history"),
    ("opens_think", "<think>", "writes <think> with other white space"),
]
WITH_BOS = ("llama3", "gemma", "mistral", "deepseek")
PLANTED: list[tuple[str, str, Any, str]] = [
    *((family, name, *drift) for family in FAMILIES for name, drift in DRIFTS.items()),
    *((family, "arguments", *drift) for family in FAMILIES for drift in ARGUMENT_DRIFTS.items()),
    *((family, *drift) for family in ("qwen3", "deepseek") for drift in THINKING_DRIFTS),
    *((family, "bos_always", False, "drops the BOS once the conversation goes on") for family in WITH_BOS),
    # Llama 3's call after words is not read back, because its models do not write one.
    *(
        (family, "keeps_words", False, "drops the words before a tool call")
        for family in FAMILIES
        if family != "llama3"
    ),
]
BREAKS = {
    "counts_words": (True, "writes new messages otherwise depending on what an earlier turn said"),
    "end_of_earlier": ("<end>", "rewrites the end of an earlier turn"),
}


def check(family: str, switches: dict[str, Any] | None, ends: list[int] | None = None) -> TemplateReport:
    tokenizer = tokenizer_of(family, switches)
    return asyncio.run(check_template(tokenizer, ends_of(family, tokenizer) if ends is None else ends))


@pytest.mark.parametrize("family", FAMILIES)
def test_rollouts_of_a_family_as_published_are_trained_as_sampled(family: str) -> None:
    report = check(family, None)
    assert report.failures("rollouts") == []
    # Each family rewrites something when its messages are rendered again: that is what the splice is for.
    assert report.failures("messages")
    assert report.turns > report.episodes >= 9
    assert report.sampled_tokens > 10 * report.turns


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_without_its_drifts_passes_for_messages_too(family: str) -> None:
    report = check(family, CLEAN[family])
    assert report.failures("messages") == []
    assert report.failures("rollouts") == []
    # What the policy writes in its own way is told, and is no fault of the template.
    assert {finding.by for finding in report.findings if finding.kind == "drift"} == {"policy"}


@pytest.mark.parametrize(("family", "switch", "value", "cause"), PLANTED)
def test_a_planted_drift_is_named_with_its_first_token(family: str, switch: str, value: Any, cause: str) -> None:
    report = check(family, {**CLEAN[family], switch: value})
    failures = report.failures("messages")
    named = [finding for finding in failures if finding.cause.startswith(cause)]
    assert named, [finding.cause for finding in failures]
    (finding,) = named
    assert finding.token is not None
    assert finding.sampled != finding.rendered
    assert finding.fix
    assert report.failures("rollouts") == []


@pytest.mark.parametrize("switch", BREAKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_template_that_cannot_be_spliced_fails_for_rollouts(family: str, switch: str) -> None:
    value, words = BREAKS[switch]
    report = check(family, {**CLEAN[family], switch: value})
    failures = report.failures("rollouts")
    assert failures
    assert any(words in finding.cause for finding in failures)
    assert report.failures("messages") == failures


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        (lambda ids, log_probs: (ids[:-2] + ids[-1:], log_probs[1:]), "trains other tokens"),
        (lambda ids, log_probs: (ids, [*log_probs[1:], log_probs[0]]), "trains with log-probs of other tokens"),
    ],
)
def test_ids_or_log_probs_that_are_not_the_sampler_s_are_found(
    changed: Any, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Careless(TokenModel):
        async def respond(self, request: ModelRequest) -> ModelResponse:
            response = await super().respond(request)
            fields = response.items[-1]
            ids, log_probs = changed(fields["generation_token_ids"], fields["generation_log_probs"])
            fields |= {"generation_token_ids": ids, "generation_log_probs": log_probs}
            return response

    monkeypatch.setattr("gymrail.template_probes.TokenModel", Careless)
    report = check("qwen3", None)
    assert cause in {finding.cause for finding in report.failures("rollouts")}


def test_prompts_that_render_the_history_again_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_memory(self: ChatTemplate, items: Any, tools: Any, instructions: str | None = None) -> list[int]:
        return self.render(items, tools, instructions, add_generation_prompt=True)

    monkeypatch.setattr(ChatTemplate, "prompt", without_memory)
    failures = check("qwen3", None).failures("rollouts")
    assert any("does not continue what was sampled" in finding.cause for finding in failures)


def test_sampling_that_does_not_stop_where_the_template_ends_a_turn_fails_with_the_id_to_add() -> None:
    tokenizer = tokenizer_of("gemma")
    turn_end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    report = check("gemma", None, ends=[])
    (failure,) = report.failures("rollouts")
    assert f"'<end_of_turn>' (id {turn_end})" in failure.cause
    assert "['<eos>']" in failure.cause
    assert "eos_token_id in generation_config.json" in failure.cause
    assert report.turn_end is None


def test_a_family_that_refuses_something_is_told_as_a_limit() -> None:
    report = check("llama3", CLEAN["llama3"])
    limits = [finding.cause for finding in report.findings if finding.kind == "limit"]
    assert any("One call at a time." in limit for limit in limits)


def test_a_template_without_tool_calls_is_tried_with_talk_alone() -> None:
    tokenizer = tokenizer_of("qwen2_5")
    tokenizer.chat_template = (
        "{%- for message in messages -%}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' }}"
        "{{ '\\n' if not loop.last or add_generation_prompt else '' }}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
    )
    report = asyncio.run(check_template(tokenizer))
    assert report.failures("messages") == []
    assert [finding.cause for finding in report.findings if finding.kind == "limit"] == ["writes no tool calls"]
    assert report.episodes == sum(not probe.has_calls and not probe.thinks for probe in PROBES)


def test_a_bos_that_the_template_leaves_out_is_told() -> None:
    tokenizer = tokenizer_of("mistral")
    tokenizer.chat_template = tokenizer.chat_template.replace("{{ bos_token }}", "")
    from tokenizers.processors import TemplateProcessing

    bos = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(f"{bos[0]} $A", special_tokens=[bos])
    report = asyncio.run(check_template(tokenizer))
    assert any(finding.cause.startswith("drops the BOS '<s>'") for finding in report.findings)


def test_a_template_that_leaves_tool_results_out_is_told() -> None:
    tokenizer = tokenizer_of("qwen2_5", CLEAN["qwen2_5"])
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "+ message.content + '\\n</tool_response>'", "+ '</tool_response>'"
    )
    report = asyncio.run(check_template(tokenizer))
    assert "does not show the tool results" in {finding.cause for finding in report.findings}


def test_a_tokenizer_without_a_template_is_refused() -> None:
    tokenizer = tokenizer_of("qwen3")
    tokenizer.chat_template = None
    with pytest.raises(GymrailError, match="no chat template"):
        asyncio.run(check_template(tokenizer))
