r"""math_with_code: the last boxed answer, as text or within a millionth; code runs in the sandbox."""

import asyncio
from typing import Any

import pytest

from gymrail import Rollout, call
from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail_environments.math_with_code.environment import MathWithCodeTask, is_same

SPEC = find("math_with_code")


def played(turns: list[Any], expected: str = "42") -> Rollout:
    task = MathWithCodeTask.ask("What is it?", expected_result=expected)
    rollout = asyncio.run(play(SPEC, task, ScriptedModel(turns)))
    assert rollout.failure is None
    return rollout


@pytest.mark.parametrize(
    ("answer", "expected", "same"),
    [
        ("42", "42", True),
        ("42.0", "42", True),
        (" 42 ", r"\(42\)", True),
        (r"\frac{1}{2}", r"$\frac{1}{2}$", True),
        (r"\text{yes}", "yes", True),
        ("3.14159265", "3.1415926", True),
        ("3.1416", "3.1415926", False),
        ("1000001", "1000000", True),
        ("1000002", "1000000", False),
        ("0.000002", "0.000001", False),
        ("0", "1e-9", False),
        ("nan", "42", False),
        ("inf", "42", False),
        ("-42", "42", False),
        ("42 or 43", "42", False),
        ("", "42", False),
        ("(1, 2)", "(1,2)", False),
    ],
)
def test_answers_are_the_same_as_text_or_within_a_millionth(answer: str, expected: str, same: bool) -> None:
    assert is_same(answer, expected) is same


def test_code_runs_with_state_and_the_last_box_counts() -> None:
    turns = [
        call("execute_python", code="x = 6"),
        call("execute_python", code="print(x * 7)"),
        r"\boxed{41}, no, \boxed{42}",
    ]
    rollout = played(turns)
    assert rollout.reward == 1.0
    assert rollout.metrics == {"extracted_answer": "42", "code_calls": 2}
    assert '"stdout":"42\\n"' in str(rollout.calls[1].output)


def test_a_box_that_code_printed_or_that_is_missing_earns_nothing() -> None:
    rollout = played([call("execute_python", code=r"print('\\boxed{42}')"), "It is above."])
    assert (rollout.reward, rollout.verdict_reason) == (0.0, "no boxed answer")
    assert played([r"\boxed{43}"]).verdict_reason == "43, not 42"


def test_a_bomb_is_a_tool_result_and_the_episode_goes_on() -> None:
    bomb = call("execute_python", code="import os\nos.kill(os.getpid(), 9)")
    rollout = played([bomb, r"\boxed{42}"])
    assert rollout.reward == 1.0
    assert "The interpreter starts anew" in str(rollout.calls[0].output)


def test_the_reference_code_of_every_family_gives_the_expected_result() -> None:
    families = {}
    for index in range(60):
        task = SPEC.generate("train", index)
        assert isinstance(task, MathWithCodeTask)
        families[str(task.reference_code).split("(")[0]] = task
    assert len(families) == 8
    for task in families.values():
        namespace: dict[str, Any] = {}
        source, _, last = str(task.reference_code).rpartition("\n")
        exec(source, namespace)
        assert repr(eval(last, namespace)) == task.expected_result
