"""Messages that are compared with each other: by rule, by a judge, and with whom."""

import asyncio
import itertools
from typing import Any

import pytest

from gymrail.collect.runner import Job, collect
from gymrail.errors import ModelError
from gymrail.models.model import ModelRequest, ModelResponse, message
from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task
from gymrail_environments.genrm_compare.environment import Facts
from tests.core.users.players import Player
from tests.core.verifiers.judges import texts_of

SPEC = find("genrm_compare")
ROW: dict[str, Any] = {
    "responses_create_params": {"input": "Invite Ana."}, "principle": "More is better.",
    "facts": ["Friday", "7 pm"], "private": ["90 euros"], "anchors": ["Come on Friday."],
}  # fmt: skip


def task(**changed: Any) -> Task:
    return SPEC.cls.task_type.from_row({**ROW, **changed})


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("Friday, 7 pm.", "Friday."),
        ("Friday.", "Friday, 7 pm, 90 euros."),
        ("Friday, 7 pm.", "We meet on Friday at 7 pm."),
        ("Friday.", "17 pm, Fridays"),
        ("Friday.", ""),
        ("Friday, 7 pm, and it cost 90 euros.", ""),
    ],
)
def test_the_rule_prefers_discretion_then_facts_then_brevity(better: str, worse: str) -> None:
    rule = Facts(["Friday", "7 pm"], ["90 euros"])

    async def both() -> tuple[float, float]:
        return (
            await rule.share(better, worse, question="", principle=""),
            await rule.share(worse, better, question="", principle=""),
        )

    assert asyncio.run(both()) == (1, 0)


def test_alone_an_answer_is_compared_with_the_rows_anchors() -> None:
    rollout = asyncio.run(play(SPEC, task(), ScriptedModel(["Friday, 7 pm."])))
    assert (rollout.reward, rollout.metrics["comparisons"], rollout.metrics["cohort"]) == (1, 1, 1)


class ByRepeat:
    """Gives the repeats of each task different answers; one of them may break."""

    def __init__(self, answers: list[str | None]) -> None:
        self.answers = itertools.cycle(answers)

    async def respond(self, request: ModelRequest) -> ModelResponse:
        answer = next(self.answers)
        if answer is None:
            raise ModelError("the policy's endpoint is down")
        return ModelResponse([message(answer)])


def run(
    spec: EnvironmentSpec, asked: Task, answers: list[str | None], concurrency: int = 8, retries: int = 0
) -> list[Rollout]:
    rollouts: list[Rollout] = []
    jobs = [Job(spec, asked, 0, repeat) for repeat in range(len(answers))]
    running = collect(
        jobs, ByRepeat(answers), concurrency=concurrency, retries=retries, retry_seconds=0.001, record=rollouts.append
    )

    async def bounded() -> None:
        async with asyncio.timeout(120):
            await running

    asyncio.run(bounded())
    return sorted(rollouts, key=lambda rollout: rollout.repeat)


def test_the_runners_repeats_of_a_task_are_one_cohort() -> None:
    spec = SPEC.with_config({"cohort_size": 3, "cohort_wait_seconds": 600})
    rollouts = run(spec, task(anchors=[]), ["Friday, 7 pm.", "Friday.", ""])
    assert [rollout.reward for rollout in rollouts] == [1, 0.5, 0]
    assert {rollout.metrics["cohort"] for rollout in rollouts} == {3}


def test_a_rollout_that_fails_is_not_waited_for_and_its_cohort_is_scored_without_it() -> None:
    spec = SPEC.with_config({"cohort_size": 3, "cohort_wait_seconds": 600})
    rollouts = run(spec, task(anchors=[]), ["Friday, 7 pm.", None, "Friday."])
    assert [rollout.reward for rollout in rollouts] == [1, None, 0]
    failure = rollouts[1].failure
    assert failure is not None
    assert failure.kind == "model"


def test_a_second_attempt_gets_its_score_against_the_cohort_that_it_missed() -> None:
    spec = SPEC.with_config({"cohort_size": 3, "cohort_wait_seconds": 600})
    rollouts = run(spec, task(anchors=[]), ["Friday, 7 pm.", None, "Friday."], retries=1)
    assert [rollout.attempt for rollout in rollouts] == [1, 2, 1]
    assert all(rollout.reward is not None for rollout in rollouts)


def test_one_episode_at_a_time_waits_no_longer_than_it_is_told_to() -> None:
    spec = SPEC.with_config({"cohort_size": 3, "cohort_wait_seconds": 0.02})
    rollouts = run(spec, task(), ["Friday, 7 pm.", "Friday.", ""], concurrency=1)
    assert [rollout.reward for rollout in rollouts] == [1, 1, 0]  # each against the anchor alone


def with_judge(monkeypatch: pytest.MonkeyPatch, judge: Player, **config: Any) -> EnvironmentSpec:
    monkeypatch.setattr("gymrail.models.settings.ModelSettings.build", lambda self: judge)
    return SPEC.with_config({"judge": {"model": "http://localhost:1/v1", "model_name": "m"}, **config})


def longer(request: ModelRequest) -> str:
    (_, _, one, other), _ = texts_of(request)
    return "[[A>B]]" if len(one) > len(other) else "[[B>A]]"


def test_a_judge_compares_rows_that_have_a_principle_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Player(longer)
    spec = with_judge(monkeypatch, judge, cohort_size=3, cohort_wait_seconds=600)
    rollouts = run(spec, task(facts=[], private=[], anchors=[]), ["aaa", "a", "aa"])
    assert [rollout.reward for rollout in rollouts] == [1, 0, 0.5]
    assert len(judge.requests) == 6  # three pairs in both orders
    assert {tuple(texts_of(request)[0][:2]) for request in judge.requests} == {("More is better.", "Invite Ana.")}


def down(request: ModelRequest) -> str:
    raise ModelError("503")


@pytest.mark.parametrize("said", [down, lambda request: "both"])
def test_a_judge_at_fault_fails_the_rollouts_and_gives_no_reward(monkeypatch: pytest.MonkeyPatch, said: Any) -> None:
    spec = with_judge(monkeypatch, Player(said), cohort_size=2, cohort_wait_seconds=600)
    for rollout in run(spec, task(), ["a", "b"]):
        assert rollout.reward is None
        assert rollout.failure is not None
        assert (rollout.failure.kind, rollout.failure.stage) == ("verifier", "verify")


@pytest.mark.parametrize(("changed", "reason"), [({"facts": []}, "name a generative"), ({"anchors": []}, "2 or more")])
def test_a_row_that_cannot_be_compared_is_refused_at_once(changed: dict[str, Any], reason: str) -> None:
    rollout = asyncio.run(play(SPEC, task(**changed), ScriptedModel(["a"])))
    assert rollout.failure is not None
    assert reason in rollout.failure.message
