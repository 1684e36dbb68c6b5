"""tool_call_multireward: three components, each for its own virtue, and their sum."""

import asyncio
from typing import Any

import pytest

from gymrail import Rollout, call
from gymrail.environment import Turn
from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail.rollout import ToolCall
from gymrail_environments.tool_call_multireward.environment import (
    PLACES,
    ExpectedCall,
    ToolCallTask,
    has_form,
    is_expected,
)

SPEC = find("tool_call_multireward")
TASK = ToolCallTask.ask("Oslo?", expected_call={"name": "get_weather", "arguments": {"city": "Oslo"}})
RIGHT, FORM = call("get_weather", city="Oslo"), "Weather in Oslo: sunny"


def played(*turns: Turn) -> Rollout:
    rollout = asyncio.run(play(SPEC, TASK, ScriptedModel(turns)))
    assert rollout.failure is None
    return rollout


@pytest.mark.parametrize(
    ("turns", "correctness", "schema_valid", "form"),
    [
        ((RIGHT, FORM), 1, 1, 1),
        ((call("get_weather", city="oslo "), FORM), 1, 1, 1),
        ((RIGHT, "It is sunny."), 1, 1, 0),
        ((call("get_weather", city="Rome"), FORM), 0, 1, 1),
        ((call("get_weather", town="Oslo"), FORM), 0, 0, 1),
        ((call("weather", city="Oslo"), FORM), 0, 0, 1),
        (([RIGHT, RIGHT], FORM), 0, 1, 1),
        (([RIGHT, call("get_weather")], FORM), 0, 0, 1),
        ((FORM,), 0, 0, 1),
        (("",), 0, 0, 0),
    ],
)
def test_each_component_pays_for_its_own_virtue(
    turns: tuple[Turn, ...], correctness: int, schema_valid: int, form: int
) -> None:
    rollout = played(*turns)
    assert rollout.reward_components == {"correctness": correctness, "schema_valid": schema_valid, "format": form}
    assert rollout.reward == correctness + schema_valid + form


@pytest.mark.parametrize(
    "answer",
    [
        "Weather in Oslo:",
        "Weather in : sunny",
        "weather in Oslo: sunny",
        "Weather in Oslo: sunny\nBye",
        "So: Weather in Oslo: x",
    ],
)
def test_an_answer_in_another_form_misses_the_format_point(answer: str) -> None:
    assert not has_form(answer)


@pytest.mark.parametrize(
    ("made", "expected", "is_same"),
    [
        ('{"n": 1}', {"n": 1}, True),
        ('{"n": 1.0}', {"n": 1}, True),
        ('{"n": true}', {"n": 1}, False),
        ('{"n": "1"}', {"n": 1}, False),
        ('{"a": ["X "]}', {"a": ["x"]}, True),
        ('{"a": 1, "b": 2}', {"a": 1}, False),
        ("not json", {}, True),
        ("not json", {"a": 1}, False),
    ],
)
def test_calls_are_compared_by_value_and_type(made: str, expected: dict[str, Any], is_same: bool) -> None:
    assert is_expected(ToolCall("call_0", "f", made), ExpectedCall(name="f", arguments=expected)) is is_same


def test_a_few_cities_are_all_that_tasks_ask_for() -> None:
    few = SPEC.with_config({"cities": 3})
    texts = [str(task.input_items[-1]["content"]) for task in few.tasks("train", limit=40)]
    named = {city for city in PLACES for text in texts if city in text}
    assert named == set(PLACES[:3])
