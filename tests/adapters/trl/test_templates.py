"""Published chat templates, as TRL ships them: rollouts train what was sampled, and what messages lose is named."""

from __future__ import annotations

import asyncio
import re
from importlib import resources
from typing import Any

import pytest

from gymrail.template_check import check_template
from tests.core.models.chat_families import tokenizer_of

NEWLINE = "adds '\\n' after the last end-of-turn token: a token that is never sampled"
STRIPS = "strips <think> of earlier turns"
OPENS = "opens <think> in the generation prompt otherwise than in the history"
TRIMS = "trims white space of an answer"
# The end of a turn, the form of its tool calls, and what is rewritten where messages are rendered again.
PUBLISHED: dict[str, tuple[str, str, set[str]]] = {
    "qwen2_5": ("<|im_end|>", "hermes", {NEWLINE}),
    "qwen3": ("<|im_end|>", "hermes", {NEWLINE, STRIPS, "adds an empty <think> block to an answer without one"}),
    "qwen3_instruct_2507": ("<|im_end|>", "hermes", {NEWLINE}),
    "qwen3_5_think": ("<|im_end|>", "xml", {NEWLINE, STRIPS, OPENS}),
    "nemotron_3_nano": ("<|im_end|>", "xml", {NEWLINE, STRIPS, OPENS}),
    "nemotron_3_super": ("<|im_end|>", "xml", {NEWLINE, STRIPS, OPENS}),
    "llama3_1": ("<|eot_id|>", "llama", {TRIMS}),
    "llama3_2": ("<|eot_id|>", "llama", {TRIMS}),
    "gemma3": ("<end_of_turn>", "none", {NEWLINE, TRIMS}),
    "deepseekv3": ("<｜end▁of▁sentence｜>", "deepseek", {STRIPS}),  # noqa: RUF001
}
CONTROL = re.compile(r"<[|｜][^<>|｜ ]+[|｜]>|<(?:start|end)_of_\w+>")  # noqa: RUF001


def published(name: str, end: str) -> Any:
    """The template with a tokenizer made here, which knows its control tokens."""
    file = resources.files("trl").joinpath(f"chat_templates/{name}.jinja")
    if not file.is_file():
        pytest.skip(f"this TRL ships no {name}.jinja")
    source = file.read_text(encoding="utf-8")
    tokenizer = tokenizer_of("qwen3")
    tokenizer.add_special_tokens({"bos_token": "<bos>", "eos_token": end})
    tokenizer.add_special_tokens({"additional_special_tokens": sorted(set(CONTROL.findall(source)))})
    tokenizer.chat_template = source
    return tokenizer


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_template_is_trained_as_sampled_and_its_rewriting_is_named(name: str) -> None:
    end, tool_format, causes = PUBLISHED[name]
    report = asyncio.run(check_template(published(name, end)))
    assert report.failures("rollouts") == []
    assert {finding.cause for finding in report.failures("messages")} == causes
    assert report.tool_format == tool_format
    assert not any("read wrongly" in finding.cause for finding in report.findings if finding.probe == "call")
