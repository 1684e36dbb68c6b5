"""instruction_following: both grading modes, bad rows, and instructions in every place."""

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

from gymrail import GymrailError, Rollout
from gymrail.models.scripted import Oracle, ScriptedModel
from gymrail.play import play
from gymrail.registry import find

SPEC = find("instruction_following")
IDS = ["punctuation:no_comma", "keywords:existence"]
KWARGS = [None, {"keywords": ["rain"]}]


def played(text: str, mode: str) -> Rollout:
    task = SPEC.cls.task_type.ask("Write.", instruction_id_list=IDS, kwargs=KWARGS, grading_mode=mode)
    rollout = asyncio.run(play(SPEC, task, ScriptedModel([text])))
    assert rollout.failure is None
    return rollout


def test_binary_pays_for_all_and_fraction_for_each() -> None:
    assert [played("rain, sun", mode).reward for mode in ("binary", "fraction")] == [0.0, 0.5]
    assert [played("rain", mode).reward for mode in ("binary", "fraction")] == [1.0, 1.0]
    assert [played("", mode).reward for mode in ("binary", "fraction")] == [0.0, 0.0]
    assert played("sun", "fraction").verdict_reason == "not followed: keywords:existence"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"instruction_id_list": ["punctuation:no_commas"], "kwargs": [{}]}, "Did you mean 'punctuation:no_comma'?"),
        ({"kwargs": [{}]}, "2 instructions and 1 kwargs"),
        ({"kwargs": [{}, {}]}, "'keywords' is missing"),
        ({"instruction_id_list": []}, "instruction_id_list"),
        ({"grading_mode": "mean"}, "grading_mode"),
    ],
)
def test_a_bad_row_is_refused_with_its_place_and_field(fields: dict[str, Any], message: str) -> None:
    row = {"responses_create_params": {"input": "Write."}, "instruction_id_list": IDS, "kwargs": KWARGS, **fields}
    with pytest.raises(GymrailError, match=r"rows\.jsonl, line 3: ") as error:
        SPEC.cls.task_type.from_row(row, "rows.jsonl, line 3")
    assert message in str(error.value)


def test_generated_instructions_stand_where_the_task_says_and_can_be_kept() -> None:
    places: Counter[Any] = Counter()
    ids: set[str] = set()
    for index in range(400):
        made: Any = SPEC.generate("train", index)
        places[made.placement] += 1
        ids.update(made.instruction_id_list)
        roles = [item["role"] for item in made.input_items]
        assert roles == (["user"] if made.placement == "user" else ["system", "user"])
        if made.placement == "metadata":
            assert "rules:\n  - " in made.input_items[1]["content"]
        rollout = asyncio.run(play(SPEC, made, Oracle()))
        assert rollout.reward == 1.0, json.dumps(made.row)
    assert set(places) == {"user", "system", "metadata"}
    assert sum(name.startswith("counterintuitive:") for name in ids) == 8
    assert len(ids) > 30
