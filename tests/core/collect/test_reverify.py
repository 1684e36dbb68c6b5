"""A run is judged again: the same rewards from the same verifier, and exactly the changes of a changed one."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from gymrail import Environment, Rollout, Task, Verdict
from gymrail.agents.tool_loop import ToolLoop
from gymrail.collect.reverify import Change, Reverified, is_stateless, rejudge, reverify
from gymrail.collect.run_directory import RunDirectory
from gymrail.errors import VerifierError
from gymrail.models.scripted import Oracle, ScriptedModel
from gymrail.play import play
from gymrail.spec import EnvironmentSpec, Manifest


class Parity(Environment[Task]):
    """Says whether a number is even."""

    judge_is_up = True

    @classmethod
    def generate(cls, rng: Random) -> Task:
        number = rng.randint(0, 10**6)
        return Task.ask(f"Is {number} even?", expected_answer="no" if number % 2 else "yes")

    def verify(self, rollout: Rollout) -> Verdict:
        if not self.judge_is_up:
            raise VerifierError("the judge is down")
        is_right = rollout.final_text == self.task.row["expected_answer"]
        return Verdict(float(is_right), reason="right" if is_right else "wrong")

    def solve(self) -> Any:
        yield self.task.row["expected_answer"]

    def sabotage(self, turn: Any, rng: Random) -> Any:
        return "perhaps"


PARITY = EnvironmentSpec("parity", Parity)


def played(spec: EnvironmentSpec, count: int = 12, noise: float = 0.5) -> list[Rollout]:
    async def play_all() -> list[Rollout]:
        tasks = list(spec.tasks("train", limit=count))
        return [await play(spec, task, Oracle(noise), task_index=index) for index, task in enumerate(tasks)]

    return asyncio.run(play_all())


def judged(
    path: Path, rollouts: Sequence[Rollout], spec: EnvironmentSpec, **options: Any
) -> tuple[Reverified, list[Change], list[Rollout]]:
    changes: list[Change] = []
    with RunDirectory.create(path, {}) as into:
        summary = asyncio.run(reverify(rollouts, {spec.name: spec}, into=into, on_change=changes.append, **options))
        return summary, changes, sorted(into.rollouts(), key=lambda rollout: rollout.task_index)


def changed(spec: EnvironmentSpec, verify: Any, **manifest: Any) -> EnvironmentSpec:
    cls = type("Changed", (spec.cls,), {"verify": verify})
    return EnvironmentSpec(spec.name, cls, Manifest(**manifest))


def test_the_same_verifier_gives_every_reward_again_with_and_without_state(
    counter: EnvironmentSpec, tmp_path: Path
) -> None:
    for spec in (counter, PARITY):
        rollouts = played(spec)
        assert {rollout.reward for rollout in rollouts} == {0.0, 1.0}

        summary, changes, again = judged(tmp_path / spec.name, rollouts, spec, concurrency=5)

        assert (summary, changes) == (Reverified(rollouts=12, unchanged=12), [])
        assert [rollout.to_row() for rollout in again] == [rollout.to_row() for rollout in rollouts]


def test_a_changed_verifier_changes_exactly_the_rollouts_that_it_judges_otherwise(
    counter: EnvironmentSpec, tmp_path: Path
) -> None:
    def close_is_enough(self: Any, rollout: Rollout) -> Verdict:
        distance = abs(self.count - self.task.expected_count)
        return Verdict(float(distance <= 2), metrics={"distance": distance}, reason=f"{distance} away")

    rollouts = played(counter, 40)
    close = [r for r in rollouts if r.reward == 0.0 and r.metrics["distance"] <= 2]
    assert 0 < len(close) < 20

    summary, changes, again = judged(tmp_path / "new", rollouts, changed(counter, close_is_enough))

    assert summary == Reverified(rollouts=40, unchanged=40 - len(close), changed=len(close))
    assert [(c.id, c.before, c.after) for c in changes] == [(r.id, 0.0, 1.0) for r in close]
    assert {c.reason_after for c in changes} <= {"1 away", "2 away"}
    assert [r.reward for r in again] == [float(r.metrics["distance"] <= 2) for r in rollouts]


def test_a_slow_judge_holds_up_only_what_comes_after_it(tmp_path: Path) -> None:
    asked: list[int] = []
    last = asyncio.Event()

    async def waits(self: Any, rollout: Rollout) -> Verdict:
        asked.append(rollout.task_index)
        if rollout.task_index == 0:
            await asyncio.wait_for(last.wait(), 120)
        elif rollout.task_index == 3:
            last.set()
        return Verdict(rollout.reward or 0.0)

    rollouts = played(PARITY, 6)
    summary, _, again = judged(tmp_path / "new", rollouts, changed(PARITY, waits), concurrency=2)
    assert (summary.rollouts, summary.unjudged) == (6, 0)
    assert asked == [0, 1, 2, 3, 4, 5]
    assert [rollout.id for rollout in again] == [rollout.id for rollout in rollouts]


def test_failed_judges_alone_are_asked_again_when_wanted(tmp_path: Path) -> None:
    up = played(PARITY, 4)
    down = EnvironmentSpec("parity", type("Down", (Parity,), {"judge_is_up": False}))
    lost = [rollout for rollout in played(down, 8)][4:]
    assert all(rollout.failure and rollout.failure.kind == "verifier" for rollout in lost)

    def strict(self: Any, rollout: Rollout) -> Verdict:
        return Verdict(0.25, reason="strict")

    summary, changes, again = judged(tmp_path / "new", [*up, *lost], changed(PARITY, strict), failed_only=True)

    assert summary == Reverified(rollouts=8, changed=4, kept=4)
    assert [rollout.reward for rollout in again] == [*(rollout.reward for rollout in up), *[0.25] * 4]
    assert {(c.before, c.after, c.reason_before, c.reason_after) for c in changes} == {
        (None, 0.25, "verifier: the judge is down", "strict")
    }


def test_a_truncated_rollout_whose_judge_was_down_comes_back_as_truncated() -> None:
    def down(self: Any, rollout: Rollout) -> Verdict:
        raise VerifierError("the judge is down")

    task = next(PARITY.tasks("train", limit=1))
    spec = changed(PARITY, down)
    spec.cls.reply = lambda self, rollout: "Sure?"
    rollout = asyncio.run(play(spec, task, ScriptedModel(["yes", "yes"]), agent=ToolLoop(max_steps=2)))
    assert rollout.outcome is not None
    assert rollout.outcome.status == "failed"

    asking = changed(PARITY, Parity.verify)
    asking.cls.reply = spec.cls.reply
    again = asyncio.run(rejudge(asking, rollout))

    assert again.outcome is not None
    assert (again.outcome.status, again.outcome.reason) == ("truncated", "max_steps")
    assert again.reward in (0.0, 1.0)


def test_what_comes_out_otherwise_is_reported_and_never_has_a_reward(counter: EnvironmentSpec, tmp_path: Path) -> None:
    rollouts = played(counter, 3, noise=0)
    rollouts[1].calls[0].output = "-1"

    summary, changes, again = judged(tmp_path / "new", rollouts, counter)

    assert summary == Reverified(rollouts=3, unchanged=2, unjudged=1)
    assert [(c.id, c.before, c.after) for c in changes] == [(rollouts[1].id, 1.0, None)]
    assert "call 1 (increment) gave '-1' and gives" in changes[0].reason_after
    assert again[1].failure is not None
    assert again[1].reward is None
    assert (again[1].failure.kind, again[1].failure.stage) == ("environment", "verify")


def test_a_verifier_that_breaks_now_leaves_no_reward(counter: EnvironmentSpec, tmp_path: Path) -> None:
    def breaks(self: Any, rollout: Rollout) -> Verdict:
        raise ZeroDivisionError("oops")

    summary, changes, again = judged(tmp_path / "new", played(counter, 2), changed(counter, breaks))
    assert summary == Reverified(rollouts=2, unjudged=2)
    assert {rollout.reward for rollout in again} == {None}
    assert changes[0].reason_after == "verifier: ZeroDivisionError: oops"


def test_state_that_cannot_be_had_again_is_not_judged_but_a_record_is(counter: EnvironmentSpec, tmp_path: Path) -> None:
    summary, changes, _ = judged(
        tmp_path / "a", played(counter, 2), changed(counter, counter.cls.verify, reproducible=False)
    )
    assert summary == Reverified(rollouts=2, unjudged=2)
    assert "reproducible: false" in changes[0].reason_after
    summary, _, _ = judged(tmp_path / "b", played(PARITY, 2), changed(PARITY, Parity.verify, reproducible=False))
    assert summary == Reverified(rollouts=2, unchanged=2)


def test_an_episode_that_broke_is_kept_as_it_is(counter: EnvironmentSpec, tmp_path: Path) -> None:
    def breaks(self: Any) -> None:
        raise RuntimeError("no counter")

    broken = EnvironmentSpec("counter", type("Broken", (counter.cls,), {"seed": breaks}))
    rollouts = played(broken, 2)
    summary, changes, again = judged(tmp_path / "new", rollouts, counter)
    assert (summary, changes) == (Reverified(rollouts=2, kept=2), [])
    assert [rollout.to_row() for rollout in again] == [rollout.to_row() for rollout in rollouts]


@pytest.mark.parametrize("hook", ["seed", "reply", "after_call"])
def test_any_hook_that_can_keep_state_makes_an_environment_stateful(hook: str, counter: EnvironmentSpec) -> None:
    assert is_stateless(PARITY)
    assert not is_stateless(counter)
    assert not is_stateless(EnvironmentSpec("parity", type("Hooked", (Parity,), {hook: lambda self, *_: None})))


def test_what_another_programs_tools_said_in_other_words_is_judged_when_asked_for(
    counter: EnvironmentSpec, tmp_path: Path
) -> None:
    rollouts = played(counter, 6)
    rewards = [rollout.reward for rollout in rollouts]
    for rollout in rollouts:
        for call in rollout.calls:
            call.output = f"other words for {call.output}"

    summary, _, _ = judged(tmp_path / "compared", rollouts, counter)
    assert summary.unjudged == sum(bool(rollout.calls) for rollout in rollouts) > 0

    summary, changes, again = judged(tmp_path / "not-compared", rollouts, counter, any_outputs=True)
    assert (summary, changes) == (Reverified(rollouts=6, unchanged=6), [])
    assert [rollout.reward for rollout in again] == rewards


def test_an_environment_that_runs_its_rows_tools_has_state() -> None:
    async def call_tool(self: Any, tool: str, arguments: Any) -> str:
        return "ok"

    assert is_stateless(PARITY)
    assert not is_stateless(EnvironmentSpec("parity", type("Serving", (Parity,), {"call_tool": call_tool})))
