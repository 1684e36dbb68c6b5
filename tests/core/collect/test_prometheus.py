import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gymrail.collect.counts import RunCounts
from gymrail.collect.finished import Finished, ToolUse
from gymrail.collect.journal import Key
from gymrail.collect.prometheus import RunCollector
from gymrail.collect.runner import Summary
from gymrail.models.pace import Load
from gymrail.rollout import Usage


def scraped(counts: RunCounts) -> dict[tuple[str, tuple], float]:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(RunCollector(counts, "runs/mine"))  # type: ignore[arg-type]
    families = list(text_string_to_metric_families(generate_latest(registry).decode()))
    assert all(family.documentation for family in families)
    found = [
        (sample.name, tuple(sorted(sample.labels.items())), sample.value) for f in families for sample in f.samples
    ]
    assert len({sample[:2] for sample in found}) == len(found)
    return {(name, labels): value for name, labels, value in found}


def labels(**values: str) -> tuple:
    return tuple(sorted(values.items()))


def played() -> RunCounts:
    loads = {"http://a/v1": Load(18, 3, 17), "http://b/v1": Load(65_536, 0, 5)}
    counts = RunCounts(
        {"counter": 20, "endless": None}, summary=Summary(asked=9, scored=4, failed=2, retried=5),
        loads=lambda: loads, concurrency=64,
    )  # fmt: skip
    use = {"usage": Usage(100, 10), "seconds": 1.5, "tools": (ToolUse("search", 2, 3.0),), "cost": 0.25}
    key = Key("counter", 0, "t", 0)
    counts.add(Finished(key, "scored", 0.5, **use))
    counts.add(Finished(key, "scored", -1.0, **use))
    counts.add(Finished(key, "failed", None, "model", **use))
    return counts


def test_every_number_of_a_run_is_on_the_page_under_a_conventional_name() -> None:
    found = scraped(played())
    here = labels(environment="counter")
    tool = labels(environment="counter", tool="search")
    assert found["gymrail_rollouts_total", labels(environment="counter", outcome="scored", failure_kind="")] == 2
    assert found["gymrail_rollouts_total", labels(environment="counter", outcome="failed", failure_kind="model")] == 1
    assert found["gymrail_rollouts_total", labels(environment="counter", outcome="failed", failure_kind="timeout")] == 0
    assert found["gymrail_rollouts_total", labels(environment="endless", outcome="scored", failure_kind="")] == 0
    assert (found["gymrail_reward_count", here], found["gymrail_reward_sum", here]) == (2, -0.5)
    assert (found["gymrail_rollout_seconds_count", here], found["gymrail_rollout_seconds_sum", here]) == (3, 4.5)
    assert found["gymrail_rollout_tokens_total", labels(environment="counter", direction="input")] == 300
    assert found["gymrail_rollout_tokens_total", labels(environment="counter", direction="output")] == 30
    assert found["gymrail_rollout_cost_dollars_total", here] == 0.75
    assert found["gymrail_rollout_tool_calls_total", tool] == 6
    assert found["gymrail_rollout_tool_seconds_total", tool] == 9.0
    assert found["gymrail_episodes_in_flight", ()] == 3
    assert found["gymrail_rollout_retries_total", ()] == 5
    assert found["gymrail_run_info", labels(run="runs/mine")] == 1


def test_an_endpoints_limit_is_what_it_bears_and_no_more_than_was_asked_for() -> None:
    found = scraped(played())
    names = ("concurrency_limit", "requests_in_flight", "requests_waiting")
    for address, numbers in (("http://a/v1", (18, 17, 3)), ("http://b/v1", (64, 5, 0))):
        assert tuple(found[f"gymrail_model_{name}", labels(endpoint=address)] for name in names) == numbers


def test_what_is_not_known_is_left_out() -> None:
    found = scraped(played())
    assert ("gymrail_rollouts_asked", labels(environment="counter")) in found
    assert ("gymrail_rollouts_asked", labels(environment="endless")) not in found
    assert ("gymrail_rollout_cost_dollars_total", labels(environment="endless")) not in found
    assert not any(name.startswith("gymrail_model_") for name, _ in scraped(RunCounts({"counter": 1})))


@pytest.mark.parametrize("name", ["\ud800", 'quo"te', "line\nbreak", "back\\slash"])
def test_a_tool_name_that_a_model_made_up_cannot_break_the_page(name: str) -> None:
    counts = RunCounts({"counter": 1})
    for written in (name, "\udfff"):
        counts.add(Finished(Key("counter", 0, "t", 0), "scored", 1.0, tools=(ToolUse(written, 1, 0.0),)))
    calls = [value for (sample, _), value in scraped(counts).items() if sample == "gymrail_rollout_tool_calls_total"]
    assert sum(calls) == 2
