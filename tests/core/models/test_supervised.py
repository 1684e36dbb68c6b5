"""A conversation as a supervised row: token for token what a policy that says it is trained on, in six families."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gymrail import Rollout
from gymrail.messages import chat_tools, to_messages
from gymrail.models.chat_template import ChatTemplate, TemplateError
from gymrail.models.model import function_call, message
from gymrail.models.supervised import supervised_row
from gymrail.models.token_model import Sample, Sampling, TokenModel
from gymrail.play import play
from gymrail.tokens import labels_as_sampled, sequence_of, up_to_end
from tests.core.models.chat_families import CLEAN, FAMILIES, ends_of, tokenizer_of
from tests.core.models.test_chat_families import PAD, TASK

ASKED = {"role": "user", "content": "x"}
TURNS = [
    function_call("press", '{"digit": 4}', "callnum4x"),
    message("Typed 4."),
    function_call("press", '{"digit": 7}', "callnum7x"),
    message("Typed 7."),
]


def template_of(family: str, **switches: Any) -> ChatTemplate:
    tokenizer = tokenizer_of(family, {**CLEAN[family], **switches})
    return ChatTemplate(tokenizer, eos_token_ids=ends_of(family, tokenizer))


class Canonical:
    """Says each turn as its template writes it, and stops where sampling does."""

    def __init__(self, template: ChatTemplate) -> None:
        self.template = template
        self.said = 0

    async def sample(self, prompt_ids: list[int], sampling: Sampling) -> Sample:
        opened = self.template.render([ASKED], add_generation_prompt=True)
        whole = self.template.render([ASKED, TURNS[self.said]], add_generation_prompt=False)
        self.said += 1
        ids = up_to_end(whole[len(opened) :], [self.template.turn_end])
        return Sample(ids, [-0.5] * len(ids))


def played(template: ChatTemplate) -> Rollout:
    return asyncio.run(play(PAD, TASK, TokenModel(template, Canonical(template), Sampling(), 4096)))


def row_of(template: ChatTemplate, rollout: Rollout) -> dict[str, list[int]]:
    messages = to_messages(rollout.conversation, arguments="object")
    return supervised_row(template, messages, chat_tools(PAD.tool_schemas(TASK)))


@pytest.mark.parametrize("tail", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_conversation_is_trained_as_the_policy_that_says_it(family: str, tail: bool) -> None:
    template = template_of(family, tail=tail)
    rollout = played(template)
    assert rollout.reward == 1.0
    sampled = sequence_of(rollout)

    row = row_of(template, rollout)

    length = len(sampled.input_ids)
    assert row["input_ids"][:length] == sampled.input_ids
    assert row["labels"][:length] == sampled.labels
    assert set(row["labels"][length:]) <= {-100}
    assert (len(row["input_ids"]) > length) == (tail and template.tokenizer.decode(row["input_ids"])[-1] == "\n")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trainers_own_labels_lose_the_header_and_what_follows_the_end(family: str) -> None:
    template = template_of(family, tail=True)
    rollout = played(template)
    row = row_of(template, rollout)
    ids, labels = row["input_ids"], list(row["labels"])
    # As a trainer that masks by messages has it: each run from within the header on, up to the next message.
    for place in range(1, len(ids)):
        if labels[place] == -100 and labels[place - 1] == template.turn_end:
            labels[place] = ids[place]
    starts = [place for place in range(1, len(ids)) if labels[place] != -100 == labels[place - 1]]
    inside = min(1, len(template.header))
    for start in starts:
        if ids[start - len(template.header) : start] == template.header:
            labels[start - inside : start] = ids[start - inside : start]
    assert labels != row["labels"]

    mended = labels_as_sampled(labels, ids, end_ids=[template.turn_end], header=template.header)

    assert mended == row["labels"]


def test_arguments_are_text_where_the_template_takes_text() -> None:
    template = template_of("deepseek", arguments="plain")
    tokenizer = template.tokenizer
    tokenizer.chat_template = tokenizer.chat_template.replace("given | tojson", "given + ''")
    strict = ChatTemplate(tokenizer)
    assert strict.arguments == "text"
    messages = to_messages([ASKED, TURNS[0]], arguments="object")
    row = supervised_row(strict, messages)
    assert '"digit"' in tokenizer.decode([label for label in row["labels"] if label != -100])


def test_a_template_that_rewrites_what_stood_before_an_answer_is_refused() -> None:
    template = template_of("qwen3", keeps_thinking=False)
    thought = {"role": "assistant", "content": "A.", "reasoning_content": "Hm."}
    messages = [ASKED, thought, ASKED, {"role": "assistant", "content": "B."}]
    tokenizer = template.tokenizer
    tokenizer.chat_template = "{{ messages | length }}" + tokenizer.chat_template
    with pytest.raises(TemplateError, match="otherwise once the answer is there"):
        supervised_row(template, messages)


def test_an_answer_ends_where_the_policy_stops() -> None:
    assert up_to_end([1, 2, 9, 5], [9]) == [1, 2, 9]
    assert up_to_end([1, 9, 2, 9], [9, 8]) == [1, 9, 2, 9]
    assert up_to_end([1, 2], [9]) == [1, 2], "an answer that was cut off has no end, and none is made up"
    assert up_to_end([], [9]) == []


def test_labels_of_sampled_tokens_stay_as_they_are() -> None:
    labels = [-100, -100, 3, 9, -100, 4, 5]
    ids = [1, 2, 3, 9, 6, 4, 5]
    assert labels_as_sampled(labels, ids, end_ids=[9], header=[1, 2]) == labels
    assert labels_as_sampled(labels, ids, end_ids=[9], header=[]) == labels
    assert labels_as_sampled([-100] * 7, ids, end_ids=[9], header=[1, 2]) == [-100] * 7


def test_a_header_that_is_labelled_in_part_or_whole_is_taken_out() -> None:
    ids = [7, 1, 2, 3, 9, 5]
    for first in (1, 2):
        labels = [-100] * first + ids[first:]
        assert labels_as_sampled(labels, ids, end_ids=[9], header=[1, 2]) == [-100, -100, -100, 3, 9, -100]
