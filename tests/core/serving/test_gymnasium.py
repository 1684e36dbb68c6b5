"""`/reset` and `/step`, as NeMo Gym's Gymnasium-style agents use them, and metrics over what was judged."""

import math
from collections.abc import Generator, Sequence
from typing import Any

import pytest

from gymrail import Environment, Rollout, Task, Verdict, tool
from gymrail.collect.nemo_gym_metrics import aggregate_metrics
from gymrail.environment import Reply
from gymrail.registry import find
from gymrail.serving.settings import Settings
from gymrail.spec import EnvironmentSpec
from tests.core.serving.office import Served, run, said

OPEN = Settings.for_address("127.0.0.1", is_open=True)


class Dice(Environment[Task]):
    """Three rounds; each answer is worth 0.25, the verdict twice the sum of them."""

    reward_range = (0.0, 2.0)

    def seed(self) -> None:
        self.rolls = 0

    @tool
    def roll(self) -> int:
        """Roll."""
        self.rolls += 1
        return self.rolls

    def reply(self, rollout: Rollout) -> Reply | None:
        if rollout.final_text == "crash":
            raise RuntimeError("no")
        return Reply(f"round {len(rollout.step_rewards) + 1}", 0.25) if len(rollout.step_rewards) < 2 else None

    def verify(self, rollout: Rollout) -> Verdict:
        return Verdict(2 * sum(rollout.step_rewards), metrics={"rolls": self.rolls})


ROW = {"responses_create_params": {"input": "Play."}}
CALL = {"type": "function_call", "call_id": "c", "name": "roll", "arguments": "{}"}


def test_the_step_rewards_of_an_episode_sum_up_to_the_verdict() -> None:
    async def test(server: Served) -> None:
        client = server.agent
        begun = (await client.post("/reset", json=ROW)).json()
        assert begun["observation"] is None
        steps: list[dict[str, Any]] = []
        for response in ({"output": [CALL]}, {"output": [CALL]}, said("one"), said("two"), said("three")):
            steps.append((await client.post("/step", json={**ROW, "response": response})).json())
        assert [step["observation"] for step in steps] == [None, None, "round 1", "round 2", None]
        assert [step["info"].get("tool_outputs") for step in steps[:2]] == [
            [{"call_id": "c", "output": "1"}], [{"call_id": "c", "output": "2"}],
        ]  # fmt: skip
        assert [step["reward"] for step in steps] == [0, 0, 0.25, 0.25, 0.5]
        assert [step["terminated"] for step in steps] == [False] * 4 + [True]
        assert steps[-1]["info"]["gymrail"]["metrics"] == {"rolls": 2}
        assert len(server.service.table) == 0
        assert (await client.post("/step", json={**ROW, "response": said("more")})).status_code == 404

    run(test, EnvironmentSpec("dice", Dice), settings=OPEN)


def test_an_incomplete_answer_truncates_the_episode_and_it_is_judged_as_it_stands() -> None:
    async def test(server: Served) -> None:
        await server.agent.post("/reset", json=ROW)
        response = {**said("on"), "incomplete_details": {"reason": "max_output_tokens"}}
        step = (await server.agent.post("/step", json={**ROW, "response": response})).json()
        assert (step["terminated"], step["truncated"], step["reward"]) == (False, True, 0.0)
        assert step["info"]["gymrail"]["reason"] == "max_output_tokens"

    run(test, EnvironmentSpec("dice", Dice), settings=OPEN)


def test_a_step_with_a_known_call_id_is_taken_once() -> None:
    async def test(server: Served) -> None:
        await server.agent.post("/reset", json=ROW)
        body = {**ROW, "response": said("one")}
        answers = [await server.agent.post("/step", json=body, headers={"x-call-id": "1"}) for _ in range(3)]
        assert [answer.json()["observation"] for answer in answers] == ["round 1"] * 3
        after = await server.agent.post("/step", json=body, headers={"x-call-id": "2"})
        assert after.json()["observation"] == "round 2"

    run(test, EnvironmentSpec("dice", Dice), settings=OPEN)


def test_a_reply_that_breaks_is_a_5xx_and_not_a_step() -> None:
    async def test(server: Served) -> None:
        await server.agent.post("/reset", json=ROW)
        broken = await server.agent.post("/step", json={**ROW, "response": said("crash")})
        assert (broken.status_code, broken.json()["error"]["stage"]) == (500, "reply")

    run(test, EnvironmentSpec("dice", Dice), settings=OPEN)


def test_a_shipped_environment_with_follow_ups_pays_its_gold_policy_by_steps() -> None:
    spec = find("follow_ups")
    task = spec.generate("train", 3)

    async def test(server: Served) -> None:
        await server.agent.post("/reset", json=task.row)
        environment = spec.cls()
        environment.task = task
        policy: Generator[Any, Any, None] = environment.solve()
        total, step = 0.0, {"terminated": False}
        for turn in policy:
            step = (await server.agent.post("/step", json={**task.row, "response": said(turn)})).json()
            total += step["reward"]
        assert step["terminated"]
        assert total == 1.0

    run(test, spec, settings=OPEN)


def test_an_environment_without_user_turns_has_no_steps() -> None:
    async def test(server: Served) -> None:
        assert (await server.agent.post("/reset", json=ROW)).status_code == 404

    run(test, settings=OPEN)


def test_the_two_ways_of_seeding_do_not_mix() -> None:
    async def test(server: Served) -> None:
        await server.agent.post("/reset", json=ROW)
        assert (await server.agent.post("/verify", json={**ROW, "response": said("x")})).status_code == 404
        assert (await server.agent.post("/close", json={})).status_code == 200
        server.agent.cookies.clear()
        await server.agent.post("/seed_session", json=ROW)
        assert (await server.agent.post("/step", json={**ROW, "response": said("x")})).status_code == 404

    run(test, EnvironmentSpec("dice", Dice), settings=OPEN)


def test_metrics_over_verify_responses_have_nemo_gyms_names() -> None:
    rows = [
        {"_ng_task_index": task, "_ng_rollout_index": repeat, "reward": reward, "steps": 3, "is_long": True,
         "response": {"usage": {"input_tokens": 10}}, "text": "x"}
        for task, rewards in enumerate([(0.0, 1.0), (1.0, 1.0)]) for repeat, reward in enumerate(rewards)
    ]  # fmt: skip
    metrics = aggregate_metrics(rows)
    agent = metrics["agent_metrics"]
    assert agent["mean/reward"] == 0.75
    assert (agent["max/reward"], agent["min/reward"], agent["median/reward"]) == (1.0, 0.0, 1.0)
    assert agent["std/reward"] == pytest.approx(0.5)
    assert (agent["mean/input_tokens"], agent["mean/is_long"]) == (10, 1)
    assert (agent["pass@1/reward"], agent["pass@2/reward"]) == (75.0, 100.0)
    assert (agent["pass@1[avg-of-1]/reward"], agent["pass@1[avg-of-2]/reward"]) == (50.0, 75.0)
    assert [group["mean/reward"] for group in metrics["group_level_metrics"]] == [0.5, 1.0]
    assert metrics["key_metrics"] == {name: value for name, value in agent.items() if name.startswith("mean/")}
    assert aggregate_metrics([]) == {"group_level_metrics": [], "agent_metrics": {}, "key_metrics": {}}


def test_numbers_that_no_statistic_can_hold_are_left_out_of_the_metrics() -> None:
    agent = aggregate_metrics([{"reward": 1.0, "a": math.nan, "b": math.inf, "c": 10**400, "d": 1e200}])
    assert set(agent["agent_metrics"]) & {"mean/a", "mean/b", "mean/c", "mean/d"} == set()


class Measured(Dice):
    """Measures its runs."""

    key_metrics = ("best", "mean/reward", "unknown")

    @classmethod
    def compute_metrics(cls, rollouts: Sequence[Rollout]) -> dict[str, float]:
        rewards = [rollout.reward for rollout in rollouts if rollout.reward is not None]
        return {"best": max(rewards), "broken": math.nan, "share": 1 / (len(rewards) - 1)}


def test_what_the_environment_computes_is_in_the_aggregate_metrics() -> None:
    async def test(server: Served) -> None:
        rows = [
            {**ROW, "response": said("x"), "reward": reward, "extracted_answer": answer, "_ng_rollout_index": repeat}
            for repeat, (reward, answer) in enumerate([(0.0, "a"), (1.0, "b"), (1.0, "b")])
        ]
        answer = await server.control.post("/aggregate_metrics", json={"verify_responses": rows})
        agent = answer.json()["agent_metrics"]
        assert (agent["best"], agent["share"], agent["broken"]) == (1.0, 0.5, None)
        assert answer.json()["key_metrics"] == {"best": 1.0, "mean/reward": pytest.approx(2 / 3)}
        assert (agent["majority@3/accuracy"], agent["pass@3/accuracy"]) == (100.0, 100.0)
        one = await server.control.post("/aggregate_metrics", json={"verify_responses": rows[:1]})
        assert (one.status_code, one.json()["error"]["stage"]) == (500, "verify")
        assert (await server.control.post("/aggregate_metrics", json={"verify_responses": [{}]})).status_code == 422
        assert (await server.control.post("/aggregate_metrics", json={"verify_responses": []})).status_code == 200

    run(test, EnvironmentSpec("measured", Measured), settings=OPEN)


def test_aggregate_metrics_is_served() -> None:
    async def test(server: Served) -> None:
        answer = await server.control.post("/aggregate_metrics", json={"verify_responses": [{"reward": 0.5}]})
        assert answer.json()["key_metrics"] == {"mean/reward": 0.5}
        for body in ({}, {"verify_responses": 3}, {"verify_responses": [3]}):
            assert (await server.control.post("/aggregate_metrics", json=body)).status_code == 422

    run(test)
