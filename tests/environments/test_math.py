"""math and math_with_judge: many families, public rows, settings, and a judge on a miss."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from fractions import Fraction
from itertools import combinations, permutations, product
from random import Random
from typing import Any

import pytest

from gymrail import Rollout
from gymrail.errors import InputError
from gymrail.models.scripted import Oracle, ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail.spec import EnvironmentSpec
from gymrail_environments.math.families import LEVELS, TOPICS
from tests.core.models.endpoint import Endpoint, Received, chat, error
from tests.core.verifiers.judges import DIFFERENT, EQUAL

FAMILIES = [family for families in TOPICS.values() for family in families]
ROW = {"responses_create_params": {"input": "?"}, "question": "When is noon?", "expected_answer": "12 o'clock"}


def answered(spec: EnvironmentSpec, rows: list[tuple[dict[str, Any], str]]) -> list[Rollout]:
    async def main() -> list[Rollout]:
        try:
            return [await play(spec, spec.cls.task_type.from_row(row), ScriptedModel([said])) for row, said in rows]
        finally:
            await spec.teardown()

    return asyncio.run(main())


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_a_family_makes_problems_of_every_level_that_depend_on_the_seed_alone(family: Callable[..., Any]) -> None:
    for level in LEVELS:
        problems = [family(Random(f"{seed}:{level}"), level) for seed in range(40)]
        assert problems == [family(Random(f"{seed}:{level}"), level) for seed in range(40)]
        assert len(set(problems)) >= 4
        assert all(answer for _, answer in problems)


def test_thousands_of_tasks_differ() -> None:
    spec = find("math")
    questions = {spec.generate("train", index).row["question"] for index in range(4000)}
    assert len(questions) > 2500


def numbers(text: str) -> list[int]:
    return [int(found) for found in re.findall(r"-?\d+", text)]


def by_enumeration(name: str, question: str) -> Fraction | int:
    """Answer a question by brute force, from its text alone."""
    given = numbers(question)
    if name == "divisor_counts":
        return sum(given[0] % n == 0 for n in range(1, given[0] + 1))
    if name == "arrangements":
        word = re.findall(r"[A-Z]{4,}", question)[0]
        return len(set(permutations(word)))
    if name == "dice":
        count, _, sides, total = given
        thrown = list(product(range(1, sides + 1), repeat=count))
        return Fraction(sum(sum(one) == total for one in thrown), len(thrown))
    if name == "bases":
        return int(str(given[0]), given[1])
    if name == "urns":
        red, blue = given[:2]
        drawn = given[2] if len(given) > 2 else 1
        hands = list(combinations(["red"] * red + ["blue"] * blue, drawn))
        return Fraction(sum(set(hand) == {"red"} for hand in hands), len(hands))
    if name == "committees":
        seats, people = given
        chosen = len(list(combinations(range(people), seats)))
        return chosen * seats if "chair" in question else chosen
    if name == "remainders":
        return given[0] - given[1] * (given[0] // given[1])
    assert name == "arithmetic_series"
    count, first, second = given[:3]
    return sum(range(first, first + count * (second - first), second - first))


@pytest.mark.parametrize(
    "name",
    ["divisor_counts", "arrangements", "dice", "bases", "urns", "committees", "remainders", "arithmetic_series"],
)
def test_answers_are_those_of_brute_force(name: str) -> None:
    (family,) = (family for family in FAMILIES if family.__name__ == name)
    for level in (1, 2, 3):
        for seed in range(10):
            question, answer = family(Random(f"{seed}:{level}"), level)
            expected = Fraction(*numbers(answer)) if "frac" in answer else int(answer)
            assert by_enumeration(name, question) == expected, question


def test_topics_and_levels_are_those_of_the_settings() -> None:
    spec = find("math").with_config({"topics": ["geometry"], "min_level": 4, "max_level": 5})
    rows = [spec.generate("train", index).row for index in range(50)]
    assert {row["topic"] for row in rows} == {"geometry"}
    assert {row["level"] for row in rows} == {4, 5}
    with pytest.raises(InputError, match=r"no topic 'geometri'\. Did you mean 'geometry'"):
        find("math").with_config({"topics": ["geometri"]})
    with pytest.raises(InputError, match="min_level 4 is above max_level 3"):
        find("math").with_config({"min_level": 4})


def test_a_public_row_is_graded_by_its_box() -> None:
    row = {
        "responses_create_params": {"input": [{"role": "user", "content": "Find x."}]},
        "question": "Find x.",
        "expected_answer": "34",
    }
    said = [r"\boxed{34}", r"x = \boxed{34.0}", "34", r"\boxed{35}", r"\boxed{2 \cdot 17}", ""]
    rollouts = answered(find("math"), [(row, text) for text in said])
    assert [rollout.reward for rollout in rollouts] == [1.0, 1.0, 0.0, 0.0, 1.0, 0.0]
    generated = {**row, "is_evaluated": True, "expected_answer": 34}
    assert answered(find("math"), [(generated, r"\boxed{2 \cdot 17}")])[0].reward == 0.0


def test_a_runs_metrics_tell_topics_and_levels_apart() -> None:
    spec = find("math")

    async def main() -> list[Rollout]:
        tasks = list(spec.tasks("train", limit=20))
        try:
            return [await play(spec, task, Oracle(), task_index=index) for index, task in enumerate(tasks)]
        finally:
            await spec.teardown()

    metrics = spec.cls.compute_metrics(asyncio.run(main()))
    assert {"mean/reward/arithmetic", "mean/reward/level 1"} <= metrics.keys()
    assert set(metrics.values()) == {1.0}


def with_judge(script: Any, said: str, row: dict[str, Any] = ROW) -> tuple[Rollout, int]:
    async def main() -> tuple[Rollout, int]:
        async with Endpoint(script) as endpoint:
            judge = {"model": endpoint.url, "model_name": "m", "max_retries": 0, "retries": 0}
            spec = find("math_with_judge").with_config({"judge": judge})
            try:
                return await play(spec, spec.cls.task_type.from_row(row), ScriptedModel([said])), len(endpoint.received)
            finally:
                await spec.teardown()

    return asyncio.run(main())


def test_the_judge_is_not_asked_where_the_library_sees_equality() -> None:
    rollout, asked = with_judge([], r"\boxed{0.5}", {**ROW, "expected_answer": r"\frac{1}{2}"})
    assert (rollout.reward, asked) == (1.0, 0)
    assert rollout.metrics["library_reward"] == 1.0


def test_on_a_miss_both_orders_must_agree() -> None:
    rollout, asked = with_judge([chat(EQUAL), chat(EQUAL)], r"\boxed{midday}")
    assert (rollout.reward, asked) == (1.0, 2)
    assert (rollout.metrics["library_reward"], rollout.metrics["swap_agrees"]) == (0.0, True)
    rollout, asked = with_judge([chat(EQUAL), chat(DIFFERENT)], r"\boxed{midday}")
    assert (rollout.reward, asked, rollout.metrics["swap_agrees"]) == (0.0, 2, False)
    rollout, asked = with_judge([chat(DIFFERENT)], r"\boxed{midnight}")
    assert (rollout.reward, asked) == (0.0, 1)


def test_a_judge_that_fails_makes_a_failure_and_no_score() -> None:
    for script in ([error(500, "broken")], [chat("I cannot say.")]):
        rollout, _ = with_judge(script, r"\boxed{midday}")
        assert rollout.reward is None
        assert rollout.failure is not None
        assert (rollout.failure.kind, rollout.failure.stage) == ("verifier", "verify")


def test_nothing_said_is_no_matter_of_opinion() -> None:
    rollout, asked = with_judge([], "  ")
    assert (rollout.reward, asked) == (0.0, 0)


def test_both_orders_show_the_judge_the_same_two_answers() -> None:
    seen: list[str] = []

    def judge(received: Received) -> Any:
        seen.append(received.body["messages"][1]["content"])
        return chat(EQUAL)

    with_judge(judge, r"\boxed{midday}")
    first, second = (text.index("midday") > text.index("12 o'clock") for text in seen)
    assert (first, second) == (True, False)
