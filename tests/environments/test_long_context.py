"""long_context: every question can be answered from its text, and what looks like a needle is none."""

import asyncio
import re

import pytest

from gymrail import GymrailError
from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail_environments.long_context.environment import LongContextTask

SPEC = find("long_context")
_HANDED = re.compile(r"(\w+ \w+) handed the ([\w ]+) to (\w+ \w+)\.")
_LOCKER = re.compile(r"The locker of (\w+ \w+) has the number (\d+)\.")


def text_of(task: LongContextTask) -> str:
    return task.responses_create_params["input"]


def reward(task: LongContextTask, text: str) -> float | None:
    return asyncio.run(play(SPEC, task, ScriptedModel([text]))).reward


def read(task: LongContextTask) -> str:
    """Answer by reading, as an agent has to."""
    log = text_of(task).split("End of the log.")[0]
    lockers = dict(_LOCKER.findall(log))
    asked = re.search(r"(\w+ \w+) had the ([\w ]+) at first", task.question)
    if asked is None:
        alone = re.search(r"number of (\w+ \w+)'s locker", task.question)
        assert alone is not None
        return lockers[alone[1]]
    person, thing = asked.groups()
    hands = {(giver, what): taker for giver, what, taker in _HANDED.findall(log)}
    while (person, thing) in hands:
        person = hands[person, thing]
    return lockers[person]


@pytest.mark.parametrize("needles", [1, 2, 5])
def test_a_reader_who_follows_the_chain_finds_the_answer_in_every_task(needles: int) -> None:
    spec = SPEC.with_config({"needles": needles, "words": 400, "near_misses": 12})
    for index in range(60):
        task = spec.generate("train", index)
        assert read(task) == task.answer
        assert len(task.needles) == needles
        assert all(text_of(task).count(needle) == 1 for needle in task.needles)


def test_near_misses_are_many_and_have_numbers_of_their_own() -> None:
    task = SPEC.generate("train", 0)
    numbers = re.findall(r"\b\d{4}\b", text_of(task))
    assert len(numbers) == len(set(numbers)) >= 4
    assert numbers.count(task.answer) == 1


def test_length_and_depth_are_as_asked() -> None:
    for words in (300, 20_000):
        task = SPEC.with_config({"words": words}).generate("train", 1)
        assert words <= len(text_of(task).split()) <= words + 120
    early, late = (SPEC.with_config({"depth": depth}).generate("train", 2) for depth in (0.0, 1.0))
    assert all(text_of(early).index(needle) < 600 for needle in early.needles)
    assert all(text_of(late).index(needle) > len(text_of(late)) - 1200 for needle in late.needles)
    assert (early.depth, late.depth) == (0.0, 1.0)


def test_the_number_alone_pays_and_a_choice_of_two_does_not() -> None:
    task = SPEC.generate("train", 3)
    other = next(number for number in re.findall(r"\b\d{4}\b", text_of(task)) if number != task.answer)
    assert reward(task, f"I followed it. Answer: {task.answer}") == 1.0
    assert reward(task, rf"\boxed{{{task.answer}}}") == 1.0
    assert reward(task, f"Answer: {other}") == 0.0
    assert reward(task, f"Answer: {task.answer} or {other}") == 0.0
    assert reward(task, "Answer:") == 0.0


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(GymrailError, match="depth"):
        SPEC.with_config({"depth": 2})
