import itertools
import math
import statistics
import tracemalloc
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gymrail import Outcome, Rollout, Task
from gymrail.collect.metrics import Metrics, aggregate
from gymrail.errors import FAILURE_KINDS, Failure
from gymrail.rollout import Timing, ToolCall, Usage

Make = Callable[..., Rollout]


rollout_parts = st.tuples(
    st.sampled_from(["a", "b"]),
    st.integers(0, 4),
    st.sampled_from(["scored", "scored", "truncated", "failed", "cancelled"]),
    st.sampled_from([0.0, 1.0]) | st.floats(-1, 1),
    st.sampled_from(FAILURE_KINDS),
)


def build(make: Make, parts: list[tuple[str, int, str, float, str]]) -> list[Rollout]:
    rollouts = []
    for repeat, (environment, index, status, reward, kind) in enumerate(parts):
        failure = Failure(kind, "verify", "broken") if status == "failed" else None  # type: ignore[arg-type]
        reason = "max_steps" if status == "truncated" else None
        outcome = Outcome(status, failure, reason)  # type: ignore[arg-type]
        kept = reward if status in ("scored", "truncated") else None
        rollout = make(index, repeat, kept, environment, outcome=outcome)
        rollouts.append(rollout)
    return rollouts


@settings(max_examples=60)
@given(st.lists(rollout_parts, max_size=40))
def test_outcomes_and_rewards_agree_with_counting_by_hand(parts: list[tuple[str, int, str, float, str]]) -> None:
    rollouts = build(_make, parts)
    result = aggregate(rollouts)
    assert set(result["environments"]) == {rollout.environment for rollout in rollouts}
    for name, found in [("overall", result["overall"]), *result["environments"].items()]:
        mine = [rollout for rollout in rollouts if name in ("overall", rollout.environment)]
        statuses = Counter(rollout.outcome.status for rollout in mine if rollout.outcome)
        assert found["rollouts"] == sum(found["outcomes"].values()) == len(mine)
        assert found["outcomes"] == {
            status: statuses[status] for status in ("scored", "truncated", "failed", "cancelled")
        }
        shares = {status: number / len(mine) for status, number in found["outcomes"].items()} if mine else {}
        assert found["outcome_shares"] == shares
        assert found["failures"] == dict(Counter(rollout.failure.kind for rollout in mine if rollout.failure))
        assert found["truncations"] == ({"max_steps": statuses["truncated"]} if statuses["truncated"] else {})
        check_rewards(found, mine)


def check_rewards(found: dict, rollouts: list[Rollout]) -> None:
    tasks: dict[tuple[str, int], list[float]] = {}
    for rollout in rollouts:
        if rollout.reward is not None:
            tasks.setdefault((rollout.environment, rollout.task_index), []).append(rollout.reward)
    assert found["tasks"] == len(tasks)
    groups = [rewards for rewards in tasks.values() if len(rewards) > 1]
    flat = sum(len(set(rewards)) == 1 for rewards in groups)
    by_rate = found["groups"].pop("by_pass_rate")
    assert found["groups"] == {
        "count": len(groups),
        "zero_spread": flat,
        "zero_spread_share": flat / len(groups) if groups else None,
    }
    assert sum(row["count"] for row in by_rate.values()) == len(groups)
    if not tasks:
        assert set(found["reward"].values()) == {None}
        return
    means = [statistics.fmean(rewards) for rewards in tasks.values()]
    everything = [reward for rewards in tasks.values() for reward in rewards]
    assert found["reward"]["mean"] == pytest.approx(statistics.fmean(means), abs=1e-12)
    assert (found["reward"]["min"], found["reward"]["max"]) == (min(everything), max(everything))
    if set(everything) <= {0.0, 1.0}:
        most = max(map(len, tasks.values()))
        assert set(found["pass@k"]) == {str(k) for k in (1, 2, 4, 8, 16, 32) if k <= most} | {str(most)}
        for k, row in found["pass@k"].items():
            able = [rewards for rewards in tasks.values() if len(rewards) >= int(k)]
            shares = [_share_of_choices(rewards, int(k)) for rewards in able if len(rewards) <= 10]
            if len(shares) == len(able):
                assert (row["mean"], row["tasks"]) == (pytest.approx(statistics.fmean(shares)), len(able))
            every = [_share_of_choices(rewards, int(k), all) for rewards in able if len(rewards) <= 10]
            if len(every) == len(able):
                assert found["pass^k"][k]["mean"] == pytest.approx(statistics.fmean(every))
    else:
        assert (found["pass@k"], found["pass^k"]) == ({}, {})
    for k, row in found["avg@k"].items():
        firsts = [statistics.fmean(rewards[: int(k)]) for rewards in tasks.values() if len(rewards) >= int(k)]
        assert row["mean"] == pytest.approx(statistics.fmean(firsts), abs=1e-12)


def _share_of_choices(rewards: list[float], k: int, quantifier: Callable[..., bool] = any) -> float:
    choices = list(itertools.combinations(rewards, k))
    return sum(quantifier(choice) for choice in choices) / len(choices)


def _make(index: int, repeat: int, reward: float | None, environment: str, **fields: Any) -> Rollout:
    return Rollout(
        environment, Task.ask(f"question {index}"), f"{index}-{repeat}", index, repeat, reward=reward, **fields
    )  # type: ignore[arg-type]


def test_the_interval_counts_tasks_and_not_rollouts(make_rollout: Make) -> None:
    once = aggregate(make_rollout(index, 0, index % 2 * 0.5) for index in range(10))["overall"]["reward"]
    often = aggregate(make_rollout(index, repeat, index % 2 * 0.5) for index in range(10) for repeat in range(50))[
        "overall"
    ]["reward"]
    assert often == once


def test_the_interval_of_a_mean_of_zeros_and_ones_says_nothing_that_cannot_be(make_rollout: Make) -> None:
    rewards = [(0, 0, 0.0), (0, 1, 1.0), (1, 0, 0.0), (1, 1, 0.0)]
    found = aggregate(make_rollout(index, repeat, reward) for index, repeat, reward in rewards)["overall"]
    assert (found["reward"]["mean"], found["reward"]["low"], found["reward"]["high"]) == (0.25, 0.0, 1.0)
    assert (found["avg@k"]["2"]["low"], found["avg@k"]["2"]["high"]) == (0.0, 1.0)
    partial = aggregate(make_rollout(index, repeat, reward / 2) for index, repeat, reward in rewards)["overall"]
    assert partial["reward"]["low"] < 0.0  # nobody said that these are between 0 and 1


def test_a_failure_moves_no_mean(make_rollout: Make) -> None:
    good = [
        make_rollout(index, 0, 0.25 * index, metrics={"length": 4}, reward_components={"format": 0.5})
        for index in range(4)
    ]
    bad = make_rollout(9, 0, None, metrics={"length": 1000}, reward_components={"format": 0.0})
    alone, both = aggregate(good)["overall"], aggregate([*good, bad])["overall"]
    assert both["failures"] == {"model": 1}
    for part in ("reward", "metrics", "reward_components", "groups", "pass@k", "tasks"):
        assert both[part] == alone[part]


def test_numbers_of_verdicts_are_averaged_and_texts_are_not(make_rollout: Make) -> None:
    metrics = [
        {"length": 3, "is_short": True, "note": "x"},
        {"length": 5, "is_short": False, "bad": math.nan},
        {"extra": 7.0},
    ]
    rollouts = [make_rollout(i, metrics=m, reward_components={"a": i, "b": 1.0}) for i, m in enumerate(metrics)]
    found = aggregate(rollouts)["overall"]
    assert found["metrics"] == {"extra": 7.0, "is_short": 0.5, "length": 4.0}
    assert found["reward_components"] == {"a": 1.0, "b": 1.0}


def test_tools_tokens_and_times_are_counted(make_rollout: Make) -> None:
    calls = [
        ToolCall("1", "add", "{}", seconds=0.5),
        ToolCall("2", "add", "{}", is_error=True, seconds=1.5),
        ToolCall("3", "look", "{}"),
    ]
    times = [float(index) for index in range(101)]
    rollouts = [
        make_rollout(
            index, calls=calls if index < 2 else [], usage=Usage(10, 2), steps=3, timing=Timing(0.0, total=seconds)
        )
        for index, seconds in enumerate(times)
    ]
    found = aggregate(rollouts)["overall"]
    assert found["tools"] == {
        "add": {"calls": 4, "errors": 2, "error_share": 0.5, "mean_seconds": 1.0},
        "look": {"calls": 2, "errors": 0, "error_share": 0.0, "mean_seconds": 0.0},
    }
    assert found["tokens"] == {"input": 1010, "cached": 0, "output": 202}
    assert found["steps"] == 3
    assert found["seconds"] == {"mean": 50.0, "p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0}


def test_asking_for_the_result_on_the_way_changes_nothing(make_rollout: Make) -> None:
    rollouts = [make_rollout(index % 5, index, float(index % 3 == 0), "ab"[index % 2]) for index in range(30)]
    metrics = Metrics()
    for rollout in rollouts:
        metrics.add(rollout)
        metrics.result()
    assert metrics.result() == aggregate(rollouts)


def test_no_rollouts_give_empty_metrics() -> None:
    found = aggregate([])
    assert found["environments"] == {}
    assert found["overall"]["rollouts"] == 0
    assert found["overall"]["reward"]["mean"] is None


answers = st.sampled_from(["A", "B", None])


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.tuples(answers, st.sampled_from([0.0, 1.0])), min_size=1, max_size=5), min_size=1, max_size=5)
)
def test_majority_at_k_agrees_with_a_vote_by_hand(tasks: list[list[tuple[str | None, float]]]) -> None:
    rollouts = [
        _make(index, repeat, reward, "a", outcome=Outcome("scored"), metrics={"extracted_answer": answer})
        for index, votes in enumerate(tasks) for repeat, (answer, reward) in enumerate(votes)
    ]  # fmt: skip
    found = aggregate(reversed(rollouts))["overall"]
    for k, row in found["majority@k"].items():
        able = [votes[: int(k)] for votes in tasks if len(votes) >= int(k)]
        assert row["tasks"] == len(able)
        assert row["mean"] == pytest.approx(statistics.fmean(map(_vote, able)))
    everyone = [answer for votes in tasks for answer, _ in votes]
    assert found["no_answer_share"] == pytest.approx(everyone.count(None) / len(everyone))


def _vote(votes: list[tuple[str | None, float]]) -> float:
    cast = [vote for vote in votes if vote[0] is not None]
    most = max((cast.count(vote) for vote in cast), default=0)
    winners = {vote for vote in cast if cast.count(vote) == most}
    return sum(score for _, score in winners) / len(winners) if winners else 0.0


def test_a_verdict_without_an_answer_gives_no_majority(make_rollout: Make) -> None:
    found = aggregate(make_rollout(index, 0, metrics={"length": 3}) for index in range(3))["overall"]
    assert (found["majority@k"], found["no_answer_share"]) == ({}, None)


def test_the_spread_of_groups_is_told_by_their_pass_rate(make_rollout: Make) -> None:
    groups = [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 0.5], [1]]
    rollouts = [make_rollout(i, r, float(reward)) for i, group in enumerate(groups) for r, reward in enumerate(group)]
    found = aggregate(rollouts)["overall"]["groups"]
    assert (found["count"], found["zero_spread"]) == (6, 2)
    assert found["zero_spread_share"] == pytest.approx(1 / 3)
    spread = {name: (row["count"], round(row["std"], 6)) for name, row in found["by_pass_rate"].items()}
    assert spread == {
        "0": (1, 0.0),
        "0-0.25": (1, 0.5),
        "0.25-0.5": (1, round(statistics.stdev(groups[2]), 6)),
        "0.5-0.75": (2, round((statistics.stdev(groups[3]) + statistics.stdev(groups[5])) / 2, 6)),
        "1": (1, 0.0),
    }


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-1, 1), st.floats(-5, 5)), min_size=1, max_size=20))
def test_every_component_and_metric_has_the_mean_and_interval_of_its_tasks(
    parts: list[tuple[int, float, float]],
) -> None:
    rollouts = [
        _make(i, r, 0.5, "a", outcome=Outcome("scored"), reward_components={"form": form}, metrics={"length": length})
        for r, (i, form, length) in enumerate(parts)
    ]
    found = aggregate(rollouts)["overall"]["measures"]
    assert set(found) == {"form", "length"}
    for name, column in (("form", 1), ("length", 2)):
        tasks = [[part[column] for part in parts if part[0] == index] for index in range(4)]
        means = [sum(values) / len(values) for values in tasks if values]
        assert found[name]["mean"] == pytest.approx(sum(means) / len(means), abs=1e-9)
        assert (found[name]["low"] is None) == (len(means) < 2)
        if len(means) > 1:
            assert found[name]["low"] - 1e-9 <= found[name]["mean"] <= found[name]["high"] + 1e-9


def test_subsets_are_the_rollouts_with_one_value_of_a_task_field() -> None:
    rows = [
        {"level": {"name": "easy"}},
        {"level": {"name": "hard"}},
        {"verifier_metadata": {"level": {"name": "hard"}}},
        {},
    ]
    rollouts = [
        Rollout("a", Task.ask(f"q{i}", **row), str(i), i, reward=float(i), outcome=Outcome("scored"))
        for i, row in enumerate(rows)
    ]
    found = aggregate(rollouts, by="level.name")["environments"]["a"]["subsets"]
    assert {name: (row["rollouts"], row["reward"]["mean"]) for name, row in found.items()} == {
        "(absent)": (1, 3.0), "easy": (1, 0.0), "hard": (2, 1.5),
    }  # fmt: skip
    alone = aggregate(rollouts[1:3])["overall"]
    assert found["hard"] == alone


def test_properties_gather_the_environments_that_share_a_value(make_rollout: Make) -> None:
    metrics = Metrics()
    rollouts = [make_rollout(i, 0, float(i), name) for i, name in enumerate("abc")]
    for rollout in rollouts:
        metrics.add(rollout)
    said = {
        "a": {"knowledge_domain": "math", "capabilities": ["plan", "code"]},
        "b": {"knowledge_domain": "office", "capabilities": ["plan"]},
        "c": {"knowledge_domain": "math", "capabilities": []},
        "unplayed": {"knowledge_domain": "law"},
    }
    found = metrics.result(said)["properties"]
    means = {name: {value: row["reward"]["mean"] for value, row in values.items()} for name, values in found.items()}
    assert means == {"knowledge_domain": {"math": 1.0, "office": 1.0}, "capabilities": {"plan": 0.5, "code": 0.0}}
    assert found["knowledge_domain"]["math"] == aggregate([rollouts[0], rollouts[2]])["overall"]
    assert "properties" not in metrics.result()


def test_tokens_and_truncations_are_told_per_rollout(make_rollout: Make) -> None:
    rollouts = [
        make_rollout(i, usage=Usage(100 + i, i), outcome=Outcome("truncated", reason="max_steps") if i < 25 else None)
        for i in range(101)
    ]
    found = aggregate(rollouts)["overall"]
    assert found["tokens_per_rollout"]["output"] == {"mean": 50.0, "p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0}
    assert found["tokens_per_rollout"]["input"]["p90"] == 190.0
    assert found["truncation_shares"] == {"max_steps": pytest.approx(25 / 101)}


def test_metrics_keep_a_few_numbers_of_each_rollout(make_rollout: Make) -> None:
    def add(count: int, first: int) -> None:
        for index in range(first, first + count):
            measured = {"distance": 1, "extracted_answer": "a"}
            metrics.add(make_rollout(index, index % 3, float(index % 2), metrics=measured))

    metrics = Metrics()
    add(100, 0)
    tracemalloc.start()
    try:
        add(5_000, 100)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert metrics.result()["overall"]["rollouts"] == 5_100
    assert held < 5_000 * 200
