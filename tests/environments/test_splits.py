"""Held-out tasks of environments whose prompt alone decides what is right: no question of theirs is trained on."""

import json

import pytest

from gymrail.registry import find

ASKED_WHOLE = [
    "code_gen", "equivalence_llm_judge", "genrm_compare", "instruction_following", "long_context", "math",
    "math_with_code", "math_with_judge", "mcqa", "reasoning_gym", "reward_model", "search_qa", "structured_outputs",
    "word_math",
]  # fmt: skip
"""In the others hidden state makes two tasks of one prompt."""


@pytest.mark.parametrize("name", ASKED_WHOLE)
def test_no_held_out_question_is_trained_on(name: str) -> None:
    spec = find(name)
    prompts = {
        split: [json.dumps(spec.generate(split, index).input_items) for index in range(count)]
        for split, count in (("train", 600), ("validation", 200))
    }
    assert not set(prompts["train"]) & set(prompts["validation"])


def test_a_question_is_held_out_by_both_environments_that_ask_it_or_by_none() -> None:
    math, judged = find("math"), find("math_with_judge")
    trained = {math.generate("train", index).row["question"] for index in range(1500)}
    assert not trained & {judged.generate("validation", index).row["question"] for index in range(500)}
