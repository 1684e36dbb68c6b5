# ruff: noqa: RUF001
# DeepSeek writes its control tokens with a bar that looks like another one.
"""Multi-turn tool episodes through `TokenModel` in six template families: what the policy is prompted with and trained
on, written out whole."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gymrail import Environment, Rollout, Task, tool
from gymrail.models.chat_template import ChatTemplate, TemplateError
from gymrail.models.model import function_call, message
from gymrail.models.token_model import Sample, Sampling, TokenModel
from gymrail.play import play
from gymrail.spec import EnvironmentSpec
from gymrail.tokens import sequence_of
from tests.core.models.chat_families import FAMILIES, ends_of, tokenizer_of

ENDS = {
    "qwen3": "<|im_end|>",
    "qwen2_5": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "mistral": "</s>",
    "deepseek": "<｜end▁of▁sentence｜>",
}


class Pad(Environment[Task]):
    """Two user turns, each with a call."""

    typed: list[int]

    def seed(self) -> None:
        self.typed = []

    @tool
    def press(self, digit: int) -> str:
        """Press a key.

        Args:
            digit: The key.
        """
        self.typed.append(digit)
        return f"The pad shows {digit}."

    def reply(self, rollout: Rollout) -> str | None:
        return "Now type 7." if len(rollout.answers) == 1 else None

    def verify(self, rollout: Rollout) -> float:
        return float(self.typed == [4, 7])


PAD = EnvironmentSpec("pad", Pad)
TASK = Task.ask("Type 4.", system="Be brief.")


def call_of(family: str, digit: int) -> str:
    """A call as the family's models write it, in a spacing of its own that no template renders."""
    arguments = f'{{ "digit":{digit} }}'
    return {
        "llama3": f'{{"name":"press",  "parameters":{arguments}}}',
        "mistral": f'[TOOL_CALLS][{{"name": "press","arguments":{arguments}, "id": "callnum{digit}x"}}]',
        "deepseek": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>press\n```json\n"
        f"{arguments}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    }.get(family, f'<tool_call>{{"name":"press","arguments":{arguments}}}</tool_call>')


def said_in(family: str) -> list[str]:
    thought = {"qwen3": "<think>\nA key.\n</think>\n\n", "deepseek": "A key.\n</think>\n\n"}.get(family, "")
    after_tool = {"qwen3": "<think>\nDone.\n</think>\n\n"}.get(family, "")
    end = ENDS[family]
    return [
        f"{thought}{call_of(family, 4)}{end}",
        f"{after_tool}Typed 4.{end}",
        f"{thought}{call_of(family, 7)}{end}",
        f"{after_tool}Typed 7.{end}",
    ]


BETWEEN = {
    "qwen": (
        "\n<|im_start|>user\n<tool_response>\nThe pad shows {}.\n</tool_response><|im_end|>\n<|im_start|>assistant\n",
        "\n<|im_start|>user\nNow type 7.<|im_end|>\n<|im_start|>assistant\n",
    ),
    "llama3": (
        '<|start_header_id|>ipython<|end_header_id|>\n\n"The pad shows {}."<|eot_id|>'
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|start_header_id|>user<|end_header_id|>\n\nNow type 7.<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "gemma": (
        "\n<start_of_turn>user\n<tool_response>The pad shows {}.</tool_response><end_of_turn>\n<start_of_turn>model\n",
        "\n<start_of_turn>user\nNow type 7.<end_of_turn>\n<start_of_turn>model\n",
    ),
    "mistral": (
        '[TOOL_RESULTS]{{"content": "The pad shows {0}.", "call_id": "callnum{0}x"}}[/TOOL_RESULTS]',
        "[INST]Now type 7.[/INST]",
    ),
    "deepseek": (
        "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>The pad shows {}.<｜tool▁output▁end｜><｜tool▁outputs▁end｜>",
        "<｜User｜>Now type 7.<｜Assistant｜><think>\n",
    ),
}
PROMPT_ENDS = {
    "qwen": "<|im_start|>user\nType 4.<|im_end|>\n<|im_start|>assistant\n",
    "llama3": "Type 4.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "gemma": "Type 4.<end_of_turn>\n<start_of_turn>model\n",
    "mistral": "[INST]Be brief.\n\nType 4.[/INST]",
    "deepseek": "<｜User｜>Type 4.<｜Assistant｜><think>\n",
}


class Voice:
    """Says the given turns, letter by letter where `in_pieces`, and keeps its own record."""

    def __init__(self, tokenizer: Any, turns: list[str], *, in_pieces: bool) -> None:
        self.tokenizer = tokenizer
        self.turns = turns
        self.in_pieces = in_pieces
        self.samples: list[Sample] = []

    async def sample(self, prompt_ids: list[int], sampling: Sampling) -> Sample:
        ids = self.tokenizer.encode(self.turns[len(self.samples)], add_special_tokens=False)
        if self.in_pieces:
            encode = self.tokenizer.encode
            added = set(self.tokenizer.get_added_vocab().values())
            ids = [
                piece
                for token in ids
                for piece in ([token] if token in added else self._letters(encode, token))
            ]  # fmt: skip
        start = sum(len(sample.token_ids) for sample in self.samples)
        self.samples.append(Sample(ids, [-(start + index + 1) / 100 for index in range(len(ids))]))
        return self.samples[-1]

    def _letters(self, encode: Any, token: int) -> list[int]:
        return [
            piece for letter in self.tokenizer.decode([token]) for piece in encode(letter, add_special_tokens=False)
        ]


@pytest.mark.parametrize("in_pieces", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_episode_of_a_family_is_trained_as_it_was_sampled(family: str, in_pieces: bool) -> None:
    tokenizer = tokenizer_of(family)
    voice = Voice(tokenizer, said_in(family), in_pieces=in_pieces)
    model = TokenModel(ChatTemplate(tokenizer, eos_token_ids=ends_of(family, tokenizer)), voice)

    rollout = asyncio.run(play(PAD, TASK, model))

    assert rollout.reward == 1.0, rollout.failure
    sequence = sequence_of(rollout)
    prompt, *rest = sequence.segments
    text = tokenizer.decode(prompt.token_ids)
    key = "qwen" if family.startswith("qwen") else family
    assert text.endswith(PROMPT_ENDS[key])
    assert text.count("Be brief.") == text.count('"press"') == 1
    assert text.startswith(tokenizer.bos_token or "<|im_start|>system")
    result, follow_up = BETWEEN[key]
    said = said_in(family)
    expected = [
        ("assistant", said[0]), ("user", result.format(4)), ("assistant", said[1]), ("user", follow_up),
        ("assistant", said[2]), ("user", result.format(7)), ("assistant", said[3]),
    ]  # fmt: skip
    assert [(segment.role, tokenizer.decode(segment.token_ids)) for segment in rest] == expected
    assert [segment.token_ids for segment in rest[::2]] == [sample.token_ids for sample in voice.samples]
    assert [segment.log_probs for segment in rest[::2]] == [sample.log_probs for sample in voice.samples]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_turn_that_was_cut_off_is_closed_before_the_next_one(family: str) -> None:
    tokenizer = tokenizer_of(family)
    template = ChatTemplate(tokenizer, eos_token_ids=ends_of(family, tokenizer))
    cut = {"prompt_token_ids": [5, 6], "generation_token_ids": [7, 8], "generation_log_probs": [-1.0, -1.0]}

    prompt = template.prompt([{**message("x"), **cut}, {"role": "user", "content": "Now type 7."}], ())

    assert prompt[:5] == [5, 6, 7, 8, tokenizer.convert_tokens_to_ids(ENDS[family])]
    key = "qwen" if family.startswith("qwen") else family
    assert tokenizer.decode(prompt[5:]) == BETWEEN[key][1]


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "llama3"])
def test_results_of_two_calls_at_once_follow_each_other(family: str) -> None:
    tokenizer = tokenizer_of(family)
    template = ChatTemplate(tokenizer, eos_token_ids=ends_of(family, tokenizer))
    ids = ("callnum4x", "callnum7x")
    calls = [function_call("press", '{"digit": 1}', call_id) for call_id in ids]
    end = tokenizer.convert_tokens_to_ids(ENDS[family])
    calls[-1] |= {"prompt_token_ids": [5], "generation_token_ids": [7, end], "generation_log_probs": [-1.0, -1.0]}
    results = [{"type": "function_call_output", "call_id": call_id, "output": f"of {call_id}"} for call_id in ids]

    text = tokenizer.decode(template.prompt([*calls, *results], ())[3:])

    assert text.index("of callnum4x") < text.index("of callnum7x")
    # ChatML and Gemma write both results into one user turn.
    assert text.count("user\n") == (family in ("qwen3", "qwen2_5", "gemma"))


@pytest.mark.parametrize("family", FAMILIES)
def test_arguments_are_given_to_a_template_in_the_form_that_it_writes(family: str) -> None:
    assert ChatTemplate(tokenizer_of(family)).arguments == ("text" if family == "deepseek" else "object")


def test_a_template_whose_end_of_turn_does_not_stop_sampling_is_refused_with_the_id_to_add() -> None:
    tokenizer = tokenizer_of("gemma")
    template = ChatTemplate(tokenizer)
    sampled = {"prompt_token_ids": [5], "generation_token_ids": [7], "generation_log_probs": [-1.0]}
    with pytest.raises(TemplateError, match=r"<end_of_turn>' \(id \d+\).*eos_token_id in generation_config.json"):
        template.prompt([{**message("x"), **sampled}, {"role": "user", "content": "y"}], ())
