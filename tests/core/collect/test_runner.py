import asyncio
import gc
import itertools
import logging
import time
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from gymrail import Environment, Outcome, Rollout, Task, call, tool
from gymrail.agents.tool_loop import ToolLoop
from gymrail.collect.metrics import aggregate
from gymrail.collect.runner import Job, Summary, collect
from gymrail.episode import Episode
from gymrail.errors import InputError
from gymrail.models.model import Model, ModelRequest, ModelResponse, message
from gymrail.models.scripted import Oracle, ScriptedModel
from gymrail.spec import EnvironmentSpec
from tests.yardstick import seconds_of_steps

COUNTS = ("asked", "scored", "truncated", "failed", "cancelled", "retried")


def counts(summary: Summary) -> dict[str, int]:
    return {name: value for name in COUNTS if (value := getattr(summary, name))}


def jobs_of(spec: EnvironmentSpec, count: int, repeats: int = 1) -> list[Job]:
    return [
        Job(spec, spec.generate("train", index), index, repeat) for index in range(count) for repeat in range(repeats)
    ]


def test_every_job_becomes_one_recorded_rollout(counter: EnvironmentSpec) -> None:
    jobs = jobs_of(counter, 50, repeats=2)
    recorded: list[Rollout] = []
    summary = asyncio.run(collect(jobs, Oracle(), record=recorded.append, concurrency=7))
    assert counts(summary) == {"asked": 100, "scored": 100}
    assert summary.seconds > 0
    assert sorted((r.task_index, r.repeat, r.task.id) for r in recorded) == [
        (j.task_index, j.repeat, j.task.id) for j in jobs
    ]
    assert {rollout.reward for rollout in recorded} == {1.0}


class Turnstile:
    """A model that answers only once `capacity` episodes ask at the same time, and knows how many ever did."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.inside = self.most = 0
        self.full = asyncio.Event()

    async def respond(self, request: ModelRequest) -> ModelResponse:
        self.inside += 1
        self.most = max(self.most, self.inside)
        if self.inside == self.capacity:
            self.full.set()
        await asyncio.wait_for(self.full.wait(), 120)
        self.inside -= 1
        return ModelResponse([message("done")])


def test_as_many_episodes_as_allowed_run_at_once_and_jobs_are_taken_only_when_there_is_room(
    counter: EnvironmentSpec,
) -> None:
    taken = 0

    def endless() -> Iterator[Job]:
        nonlocal taken
        task = counter.generate("train", 0)
        for index in itertools.count():
            taken += 1
            yield Job(counter, task, index)

    async def run() -> tuple[Summary, Turnstile]:
        model, summary = Turnstile(5), Summary()

        def stop(rollout: Rollout) -> None:
            assert taken <= summary.finished + 5
            if summary.finished == 200:
                playing.cancel()

        playing = asyncio.ensure_future(collect(endless(), model, concurrency=5, on_rollout=stop, summary=summary))
        with pytest.raises(asyncio.CancelledError):
            await playing
        return summary, model

    summary, model = asyncio.run(run())
    assert model.most == 5
    assert summary.asked == taken < 5_000
    assert summary.asked == summary.scored + summary.cancelled


def test_memory_stays_flat_over_many_jobs(counter: EnvironmentSpec) -> None:
    task = counter.generate("train", 0)
    model = ScriptedModel(["done"])
    sizes: list[int] = []

    def measure(rollout: Rollout) -> None:
        if rollout.task_index in (500, 10_000):
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        asyncio.run(
            collect((Job(counter, task, index) for index in range(10_001)), model, concurrency=8, on_rollout=measure)
        )
    finally:
        tracemalloc.stop()
    # How many episodes are between two steps varies by some 100 kB; records that stay would be 30 MB.
    assert sizes[1] - sizes[0] < 50 * 9_500


class Tracked(Environment[Task]):
    """Tells of its own end."""

    alive: ClassVar[list[weakref.ref["Tracked"]]] = []

    def seed(self) -> None:
        self.alive.append(weakref.ref(self))

    @tool
    def look(self) -> str:
        return "nothing"

    def verify(self, rollout: Rollout) -> float:
        return 1.0


class TrackedLater(Tracked):
    async def verify(self, rollout: Rollout) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
        await asyncio.sleep(0)
        return 1.0


@pytest.mark.parametrize("environment", [Tracked, TrackedLater])
def test_a_rollout_leaves_memory_when_it_is_recorded_and_waits_for_no_garbage_collection(
    environment: type[Tracked],
) -> None:
    spec = EnvironmentSpec("tracked", environment)
    jobs = [Job(spec, Task.ask("Look."), index) for index in range(20)]
    gc.collect()
    gc.disable()
    try:
        summary = asyncio.run(collect(jobs, ScriptedModel([call("look"), "done"]), concurrency=4))
        assert counts(summary) == {"asked": 20, "scored": 20}
        assert len(Tracked.alive) == 20
        assert [ref() for ref in Tracked.alive] == [None] * 20
    finally:
        gc.enable()
        Tracked.alive.clear()


class Outage:
    """A model that is down for the first `failures` calls of each episode's task."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls: dict[str, int] = {}

    async def respond(self, request: ModelRequest) -> ModelResponse:
        prompt = str(request.input[0]["content"])
        self.calls[prompt] = self.calls.get(prompt, 0) + 1
        if self.calls[prompt] <= self.failures:
            raise ConnectionResetError("connection lost")
        return ModelResponse([message("done")])


def test_a_failure_that_may_go_away_is_played_again_and_the_attempt_is_recorded(
    counter: EnvironmentSpec, caplog: pytest.LogCaptureFixture
) -> None:
    recorded: list[Rollout] = []
    with caplog.at_level(logging.WARNING):
        summary = asyncio.run(
            collect(jobs_of(counter, 3), Outage(2), record=recorded.append, retries=2, retry_seconds=0)
        )
    assert counts(summary) == {"asked": 3, "scored": 3, "retried": 6}
    assert [rollout.attempt for rollout in recorded] == [3, 3, 3]
    lost = {"kind": "model", "stage": "model", "message": "ConnectionResetError: connection lost"}
    for rollout in recorded:
        row = rollout.to_row()
        assert row["gymrail"]["earlier_failures"] == [lost, lost]
        assert Rollout.from_row(row).to_row() == row
    assert aggregate(recorded)["overall"]["retries"] == {"model": 6}
    assert "attempt 1 of 3 failed (model at stage model: ConnectionResetError: connection lost)" in caplog.text


def test_retries_end_and_the_last_failure_is_the_outcome(counter: EnvironmentSpec) -> None:
    recorded: list[Rollout] = []
    summary = asyncio.run(collect(jobs_of(counter, 2), Outage(99), record=recorded.append, retries=1, retry_seconds=0))
    assert counts(summary) == {"asked": 2, "failed": 2, "retried": 2}
    assert [(rollout.attempt, rollout.reward, rollout.failure and rollout.failure.kind) for rollout in recorded] == [
        (2, None, "model")
    ] * 2


class Broken(Environment):
    """Its tool crashes."""

    @tool
    def crash(self) -> str:
        """Crash."""
        raise ZeroDivisionError("a bug")

    def verify(self, rollout: Rollout) -> float:
        return 1.0


def test_a_bug_is_not_played_again_and_is_never_a_reward() -> None:
    spec = EnvironmentSpec("broken", Broken)
    recorded: list[Rollout] = []
    jobs = [Job(spec, Task.ask("go"), index) for index in range(3)]
    summary = asyncio.run(collect(jobs, ScriptedModel([call("crash"), "done"]), record=recorded.append, retries=5))
    assert counts(summary) == {"asked": 3, "failed": 3}
    assert {(r.reward, r.failure and r.failure.kind, r.attempt) for r in recorded} == {(None, "tool", 1)}


def test_a_task_that_does_not_fit_its_environment_fails_alone(counter: EnvironmentSpec) -> None:
    bad = Task.ask("go", parameters={"tools": [{"type": "function", "name": "incremnt"}]})
    recorded: list[Rollout] = []
    jobs = [*jobs_of(counter, 2), Job(counter, bad, 2), Job(counter, counter.generate("train", 3), 3)]
    summary = asyncio.run(collect(jobs, Oracle(), record=recorded.append))
    assert counts(summary) == {"asked": 4, "scored": 3, "failed": 1}
    (failed,) = [rollout for rollout in recorded if rollout.failure]
    assert failed.task_index == 2
    assert failed.failure is not None
    assert (failed.failure.kind, failed.failure.stage) == ("environment", "seed")
    assert "Did you mean 'increment'?" in failed.failure.message


class CrashingAgent(ToolLoop):
    async def run(self, episode: Episode, model: Model) -> Outcome:
        if episode.rollout.task_index == 1:
            raise KeyError("a bug in an agent")
        return await super().run(episode, model)


def test_a_bug_in_an_agent_fails_its_rollout_and_not_the_run(counter: EnvironmentSpec) -> None:
    summary = asyncio.run(collect(jobs_of(counter, 3), Oracle(), agent=CrashingAgent(), retries=0))
    assert counts(summary) == {"asked": 3, "scored": 2, "failed": 1}


class Leaky:
    """A model whose library raises CancelledError although nobody cancelled anything."""

    async def respond(self, request: ModelRequest) -> ModelResponse:
        raise asyncio.CancelledError


def test_a_cancellation_that_leaks_out_of_an_episode_is_a_failure_and_the_run_goes_on(counter: EnvironmentSpec) -> None:
    recorded: list[Rollout] = []
    summary = asyncio.run(collect(jobs_of(counter, 5), Leaky(), record=recorded.append, concurrency=1, retries=0))
    assert counts(summary) == {"asked": 5, "failed": 5}
    assert {rollout.failure and rollout.failure.stage for rollout in recorded} == {"model"}


class Watched(Environment):
    """Knows which episodes are open."""

    open_now = 0

    def seed(self) -> None:
        type(self).open_now += 1

    def close(self) -> None:
        type(self).open_now -= 1

    def verify(self, rollout: Rollout) -> float:
        return 1.0


class Silent:
    """A model that never answers."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.asked = 0
        self.all_asked = asyncio.Event()

    async def respond(self, request: ModelRequest) -> ModelResponse:
        self.asked += 1
        if self.asked == self.expected:
            self.all_asked.set()
        await asyncio.Event().wait()
        raise AssertionError


def test_cancelling_closes_every_episode_and_counts_it() -> None:
    spec = EnvironmentSpec("watched", Watched)

    async def run() -> Summary:
        model, summary = Silent(6), Summary()
        jobs = (Job(spec, Task.ask("go"), index) for index in range(100))
        playing = asyncio.ensure_future(collect(jobs, model, concurrency=6, summary=summary))
        await asyncio.wait_for(model.all_asked.wait(), 120)
        assert Watched.open_now == 6
        playing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await playing
        return summary

    assert counts(asyncio.run(run())) == {"asked": 6, "cancelled": 6}
    assert Watched.open_now == 0


def test_a_rollout_that_cannot_be_recorded_stops_the_run_and_is_not_counted_as_scored(counter: EnvironmentSpec) -> None:
    recorded: list[Rollout] = []

    def record(rollout: Rollout) -> None:
        if len(recorded) == 10:
            raise InputError("the disk is full")
        recorded.append(rollout)

    summary = Summary()
    with pytest.raises(InputError, match="the disk is full"):
        asyncio.run(collect(jobs_of(counter, 100), Oracle(), record=record, concurrency=4, summary=summary))
    assert summary.scored == 10
    assert summary.cancelled >= 1
    assert summary.asked == summary.finished < 100


def test_a_bad_row_ends_the_run_after_what_was_being_played_is_recorded(counter: EnvironmentSpec) -> None:
    def source() -> Iterator[Job]:
        yield from jobs_of(counter, 5)
        raise InputError("tasks.jsonl, line 6: not valid JSON")

    recorded: list[Rollout] = []
    with pytest.raises(InputError, match="line 6"):
        asyncio.run(collect(source(), Oracle(), record=recorded.append, concurrency=3))
    assert len(recorded) == 5


def test_no_jobs_give_an_empty_summary() -> None:
    assert counts(asyncio.run(collect([], Oracle()))) == {}


@pytest.mark.parametrize("settings", [{"concurrency": 0}, {"retries": -1}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="at least 1 and 0 are needed"):
        asyncio.run(collect([], Oracle(), **settings))


def test_the_runner_adds_little_to_an_episode(counter: EnvironmentSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    task = counter.generate("train", 0)
    finished = Rollout("counter", task, "x", outcome=Outcome("scored"), reward=1.0)

    async def instant(*arguments: Any, **options: Any) -> Rollout:
        return finished

    monkeypatch.setattr("gymrail.collect.runner.play", instant)
    # The best of three: the machine is shared, and what is measured is the least it takes.
    best = min(
        _seconds(lambda: asyncio.run(collect((Job(counter, task, i) for i in range(5_000)), Oracle())))
        for _ in range(3)
    )
    assert best < 5 * seconds_of_steps()  # 30 microseconds each on a fast core


def _seconds(function: Callable[[], object]) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started
