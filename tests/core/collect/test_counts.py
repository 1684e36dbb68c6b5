import pytest

from gymrail.collect.counts import MAX_TOOLS, OTHER_TOOLS, RECENT_SECONDS, RunCounts, SlowestTool
from gymrail.collect.finished import Finished, ToolUse
from gymrail.collect.journal import Key
from gymrail.collect.runner import Summary
from gymrail.rollout import Usage


class Clock:
    def __init__(self) -> None:
        self.now = 1000.5

    def __call__(self) -> float:
        return self.now


def finished(environment: str = "a", reward: float | None = 1.0, **fields) -> Finished:
    status = fields.pop("status", "scored" if reward is not None else "failed")
    return Finished(Key(environment, 0, "t", 0), status, reward, **fields)


def test_the_speed_is_that_of_the_last_half_minute_and_the_mean_that_of_the_whole_run() -> None:
    clock = Clock()
    counts = RunCounts({"a": 1000}, clock=clock)
    for _ in range(100):  # ten seconds of ten rollouts each
        counts.add(finished(usage=Usage(50, 5)))
        clock.now += 0.1
    assert counts.speed == pytest.approx((10, 500, 50))
    assert counts.mean_speed == pytest.approx(10)
    clock.now += 90
    assert counts.speed == (0, 0, 0)
    assert counts.mean_speed == pytest.approx(1)
    assert counts.remaining_seconds == pytest.approx(900)
    for _ in range(2 * RECENT_SECONDS):
        counts.add(finished())
        clock.now += 1
    assert counts.speed.rollouts == pytest.approx(1, rel=0.05)


def test_rollouts_of_an_earlier_run_count_as_ended_and_not_for_the_speed() -> None:
    clock = Clock()
    counts = RunCounts({"a": 10}, clock=clock)
    counts.resume(finished(name) for name in ("a", "a", "of another run"))
    clock.now += 10
    assert (counts.ended, counts.earlier, counts.mean_speed, counts.remaining_seconds) == (2, 2, 0, None)
    counts.add(finished())
    assert counts.remaining_seconds == pytest.approx(70)


def test_an_unknown_number_of_rollouts_leaves_the_total_and_the_end_unknown() -> None:
    counts = RunCounts({"a": 10, "b": None})
    counts.add(finished("b"))
    assert (counts.ended, counts.asked, counts.remaining_seconds) == (1, None, None)


def test_a_failure_has_its_kind_and_no_part_in_the_mean_reward() -> None:
    counts = RunCounts({"a": 10})
    counts.add(finished(reward=0.5))
    counts.add(finished(reward=None, failure="model"))
    counts.add(finished(reward=1.0, status="truncated"))
    tally = counts.tallies["a"]
    assert tally.outcomes == {"scored": 1, "failed": 1, "truncated": 1}
    assert tally.failures == {"model": 1}
    assert tally.mean_reward == 0.75


def test_the_slowest_tool_is_the_one_with_the_longest_mean() -> None:
    counts = RunCounts({"a": 10, "b": 10})
    assert counts.slowest_tool is None
    counts.add(finished("a", tools=(ToolUse("often", 100, 10.0), ToolUse("search", 1, 1.0))))
    counts.add(finished("b", tools=(ToolUse("search", 2, 3.0),)))
    assert counts.slowest_tool == SlowestTool("search", 1.5)


def test_tool_names_that_a_model_makes_up_are_told_apart_up_to_a_limit() -> None:
    counts = RunCounts({"a": 10})
    for number in range(3 * MAX_TOOLS):
        counts.add(finished(tools=(ToolUse(f"made_up_{number}", 1, 0.0),)))
    tools = counts.tallies["a"].tools
    assert len(tools) == MAX_TOOLS + 1
    assert tools[OTHER_TOOLS].calls == 2 * MAX_TOOLS


def test_in_flight_is_what_was_given_out_and_has_not_ended_but_not_what_waits_at_a_worker() -> None:
    summary = Summary(asked=30, scored=7, failed=3)
    assert RunCounts({"a": 100}, summary=summary).in_flight == 20
    assert RunCounts({"a": 100}, summary=summary, concurrency=8).in_flight == 8
