"""word_math: one call, the right tool; nothing else pays."""

import asyncio
from collections import Counter

import pytest

from gymrail import Rollout, call
from gymrail.environment import Turn
from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail_environments.word_math.environment import TOOLS, WordMathTask

SPEC = find("word_math")
TASK = WordMathTask.ask("4 times 5 ?", word="times", a=4, b=5)


def played(*turns: Turn) -> Rollout:
    rollout = asyncio.run(play(SPEC, TASK, ScriptedModel(turns)))
    assert rollout.failure is None
    return rollout


def test_the_right_call_earns_one_and_ends_the_episode_at_once() -> None:
    rollout = played(call("multiply", a=4, b=5))
    assert (rollout.reward, rollout.steps, rollout.calls[0].output) == (1.0, 1, "20")


def test_the_arguments_may_be_exchanged_where_the_result_stays_right() -> None:
    assert played(call("multiply", a=5, b=4)).reward == 1.0


def test_another_tool_earns_nothing_and_says_why() -> None:
    rollout = played(call("add", a=4, b=5))
    assert (rollout.reward, rollout.verdict_reason) == (0.0, "the call gave 9, not 20")


def test_the_right_number_without_a_call_earns_nothing() -> None:
    assert played("20").reward == 0.0


def test_the_right_call_beside_a_second_one_earns_nothing() -> None:
    assert played([call("multiply", a=4, b=5), call("multiply", a=4, b=5)]).reward == 0.0


@pytest.mark.parametrize("wrong", [call("multiply", a=4), call("times", a=4, b=5), call("multiply", a="four", b=5)])
def test_a_refused_call_counts_as_the_one_call_and_ends_the_episode(wrong: Turn) -> None:
    rollout = played(wrong)
    assert (rollout.reward, rollout.steps, rollout.calls[0].is_error) == (0.0, 1, True)


def test_no_generated_sum_has_two_tools_that_agree() -> None:
    for index in range(300):
        task = SPEC.generate("train", index)
        results = {task.a + task.b, task.a - task.b, task.a * task.b}
        assert len(results) == len(TOOLS)
        assert task.responses_create_params == {"input": f"{task.a} {task.word} {task.b} ?"}


def test_digits_make_numbers_of_every_length_and_leave_the_usual_tasks_alone() -> None:
    spec = SPEC.with_config({"digits": 4})
    lengths = Counter(len(str(spec.generate("train", index).a)) for index in range(400))
    assert sorted(lengths) == [1, 2, 3, 4]
    assert min(lengths.values()) > 60
    assert SPEC.generate("train", 0).responses_create_params == {"input": "4 plus 17 ?"}


def test_train_and_validation_both_have_tasks_enough() -> None:
    train, validation = ({SPEC.generate(split, index).id for index in range(1500)} for split in ("train", "validation"))
    assert len(train) > 600
    assert len(validation) > 80
    assert not train & validation
