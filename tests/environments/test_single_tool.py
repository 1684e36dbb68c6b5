"""single_tool: the asked city, and its report without hedging."""

import asyncio

import pytest

from gymrail import Rollout, call
from gymrail.environment import Turn
from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail_environments.single_tool.environment import CITIES, SingleToolTask, asked_city, repeats
from gymrail_mcp_servers.weather.server import Report, report

SPEC = find("single_tool")
TASK = SingleToolTask.ask("What is the weather in Oslo?")
OSLO = report("Oslo")


def played(*turns: Turn, task: SingleToolTask = TASK) -> Rollout:
    return asyncio.run(play(SPEC, task, ScriptedModel(turns)))


def test_the_call_and_its_report_earn_one() -> None:
    assert played(call("get_weather", city=" oslo"), f"It is {OSLO.degrees} degrees and {OSLO.sky}.").reward == 1.0


def test_the_report_without_the_call_earns_nothing() -> None:
    assert played(f"It is {OSLO.text}.").reward == 0.0


def test_the_call_without_the_report_earns_nothing() -> None:
    assert played(call("get_weather", city="Oslo"), "Done.").reward == 0.0


def test_another_city_earns_nothing_even_with_its_true_report() -> None:
    assert played(call("get_weather", city="Rome"), f"It is {report('Rome').text}.").reward == 0.0


def test_looking_at_two_cities_is_fine_when_the_asked_one_is_reported() -> None:
    assert (
        played([call("get_weather", city="Rome"), call("get_weather", city="Oslo")], f"It is {OSLO.text}.").reward
        == 1.0
    )


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        ("Cloudy, 5 degrees.", True),
        ("cloudy at 5°C", True),
        ("On 3 May it is cloudy and 5 degrees.", True),
        ("Cloudy, 5.", True),
        ("cloudy and 25 degrees", False),
        ("cloudy and -5 degrees", False),
        ("cloudy and 5.5 degrees", False),
        ("cloudy and 5 or 6 degrees, 5 degrees", False),
        ("cloudy and 5 degrees or 6 degrees", False),
        ("cloudy or rainy, 5 degrees", False),
        ("rainy and 5 degrees", False),
        ("5 degrees", False),
        ("cloudy", False),
        ("", False),
    ],
)
def test_a_report_is_repeated_whole_and_alone(answer: str, is_right: bool) -> None:
    assert repeats(answer, Report("cloudy", 5)) is is_right


def test_degrees_below_zero_keep_their_sign() -> None:
    assert repeats("Snowy and -5 degrees", Report("snowy", -5))
    assert repeats("Snowy and \u22125 \u00b0C", Report("snowy", -5))
    assert not repeats("Snowy and 5 degrees", Report("snowy", -5))


@pytest.mark.parametrize(
    ("question", "city"),
    [
        ("What is the weather in Oslo?", "Oslo"),
        ("We fly from Paris to Nairobi. What is the weather in Nairobi?", "Nairobi"),
        ("How is it in San Francisco today?", "San Francisco"),
        ("Is it cold in the north, in Oslo right now", "Oslo"),
    ],
)
def test_the_asked_city_is_what_the_question_ends_with(question: str, city: str) -> None:
    assert asked_city(SingleToolTask.ask(question)) == city


def test_a_question_without_a_city_fails_and_is_not_guessed() -> None:
    rollout = played("Hello.", task=SingleToolTask.ask("Is it nice outside?"))
    assert rollout.reward is None
    assert rollout.failure is not None
    assert "add the field 'city' to the row" in rollout.failure.message


def test_a_few_cities_are_all_that_tasks_ask_for() -> None:
    few = SPEC.with_config({"cities": 3})
    texts = [str(task.input_items[-1]["content"]) for task in few.tasks("train", limit=40)]
    named = {city for city in CITIES for text in texts if city in text}
    assert named == set(CITIES[:3])
