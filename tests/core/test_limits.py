"""Limits of an episode: each truncates with its own reason, what was done is judged, and the record stays whole."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gymrail import Environment, Reply, Rollout, Task, Verdict, tool
from gymrail.agents.tool_loop import ToolLoop
from gymrail.collect.finished import finished_of, finished_of_row
from gymrail.collect.replay import replay
from gymrail.episode import Episode
from gymrail.errors import EpisodeClosed, InputError
from gymrail.limits import Limits, Prices
from gymrail.models.model import ModelRequest, ModelResponse, function_call, message
from gymrail.play import play
from gymrail.rollout import Outcome, Usage
from gymrail.spec import EnvironmentSpec


class Counter(Environment[Task]):
    """Counts its calls; its user always asks for more."""

    def seed(self) -> None:
        self.count = 0

    @tool
    def add(self) -> int:
        self.count += 1
        return self.count

    def reply(self, rollout: Rollout) -> Reply | None:
        return Reply("More.") if len(rollout.answers) < 10 else None

    def verify(self, rollout: Rollout) -> Verdict:
        return Verdict(self.count / 100)


SPEC = EnvironmentSpec("counter", Counter)
PRICES = Prices(2.0, 10.0, 0.5)
EACH = Usage(10, 5)
CALL = [function_call("add", "{}", "a")]


class Spends:
    """A model that answers in turn what it is given, at 10 tokens in and 5 out per call, or what the request allows."""

    def __init__(self, *turns: Sequence[Any], usage: Usage = EACH) -> None:
        self.turns = list(turns)
        self.usage = usage
        self.allowed: list[int | None] = []

    async def respond(self, request: ModelRequest) -> ModelResponse:
        turn = self.turns[min(len(self.allowed), len(self.turns) - 1)]
        allowed = request.parameters.get("max_output_tokens")
        self.allowed.append(allowed)
        items = [{**item, "call_id": f"{item['call_id']}_{len(self.allowed)}"} if "call_id" in item else item
                 for item in turn]  # fmt: skip
        if allowed is not None and allowed < self.usage.output_tokens:
            return ModelResponse([message("cut o")], "max_output_tokens", self.usage._replace(output_tokens=allowed))
        return ModelResponse(items, usage=self.usage)


def run(model: Any, task: Task | None = None, **limits: Any) -> Rollout:
    playing = play(SPEC, task or Task.ask("Go"), model, limits=Limits(**limits), agent=ToolLoop(max_steps=20))
    return asyncio.run(asyncio.wait_for(playing, 120))


def check_is_whole(rollout: Rollout) -> None:
    """A record that can be read back, counted and replayed."""
    row = orjson.loads(orjson.dumps(rollout.to_row()))
    again = Rollout.from_row(row)
    assert (again.usage, again.cost, again.outcome, again.calls) == (
        rollout.usage, rollout.cost, rollout.outcome, rollout.calls,
    )  # fmt: skip
    assert finished_of_row(row) == finished_of(rollout)
    replayed = asyncio.run(replay(SPEC, again))
    assert (replayed.reward, replayed.differences) == (rollout.reward, ())


@pytest.mark.parametrize(
    ("limits", "reason", "steps"),
    [
        ({"token_limit": 45}, "token_limit", 3),
        ({"token_limit": 46}, "token_limit", 4),
        ({"output_token_limit": 10}, "output_token_limit", 2),
        ({"cost_limit": 0.00021, "prices": Prices(2.0, 10.0)}, "cost_limit", 3),
        ({"cost_limit": 0.00021, "prices": Prices(2.0, 30.0)}, "cost_limit", 2),
        ({"time_limit_seconds": 1e-9}, "time_limit", 1),
    ],
)
def test_a_limit_ends_the_talk_after_the_step_that_reaches_it(limits: dict[str, Any], reason: Any, steps: int) -> None:
    rollout = run(Spends(CALL), **limits)
    assert rollout.outcome == Outcome("truncated", reason=reason)
    assert (rollout.steps, len(rollout.calls), rollout.reward) == (steps, steps, steps / 100)
    assert rollout.is_trainable
    assert rollout.items[-1]["type"] == "function_call_output"
    check_is_whole(rollout)


@pytest.mark.parametrize("parallel", [True, False])
def test_tool_calls_beyond_the_limit_are_not_run_and_stand_without_an_output(parallel: bool) -> None:
    turn = [function_call("add", "{}", name) for name in "abc"]
    task = Task.ask("Go", parameters={"parallel_tool_calls": parallel})
    rollout = run(Spends(turn), task, tool_call_limit=5)
    assert rollout.outcome == Outcome("truncated", reason="tool_call_limit")
    assert (len(rollout.calls), rollout.reward, rollout.steps) == (5, 0.05, 2)
    said = [item["call_id"] for item in rollout.items if item["type"] == "function_call"]
    heard = [item["call_id"] for item in rollout.items if item["type"] == "function_call_output"]
    assert said == ["a_1", "b_1", "c_1", "a_2", "b_2", "c_2"]
    assert heard == said[:5]
    check_is_whole(rollout)


def test_an_answer_in_words_after_the_last_allowed_call_is_scored() -> None:
    class Silent(Counter):
        def reply(self, rollout: Rollout) -> None:
            return None

    spec = EnvironmentSpec("silent", Silent)
    playing = play(spec, Task.ask("Go"), Spends(CALL, [message("One.")]), limits=Limits(tool_call_limit=1))
    rollout = asyncio.run(asyncio.wait_for(playing, 120))
    assert (rollout.outcome, len(rollout.calls)) == (Outcome("scored"), 1)


def test_the_last_word_of_a_talk_is_scored_though_it_reaches_the_limit() -> None:
    rollout = run(Spends([message("Enough.")]), token_limit=150)
    assert (rollout.outcome, rollout.steps, sum(rollout.usage[:2])) == (Outcome("scored"), 10, 150)


def test_a_limit_between_user_turns_keeps_the_turn_that_replay_asks_for_again() -> None:
    rollout = run(Spends([message("Hm.")]), token_limit=30)
    assert rollout.outcome == Outcome("truncated", reason="token_limit")
    assert [item["role"] for item in rollout.items] == ["assistant", "user", "assistant", "user"]
    check_is_whole(rollout)


def test_requests_ask_for_no_more_output_than_the_episode_has_left() -> None:
    model = Spends(CALL, CALL, [message("A long answer")])
    rollout = run(model, output_token_limit=12)
    assert model.allowed == [12, 7, 2]
    assert rollout.outcome == Outcome("truncated", reason="output_token_limit")
    assert rollout.usage.output_tokens == 12
    check_is_whole(rollout)
    smaller = Spends(CALL)
    run(smaller, Task.ask("Go", parameters={"max_output_tokens": 6}), output_token_limit=15)
    assert smaller.allowed == [6, 6, 5]


def test_an_answer_that_the_models_own_limit_cuts_off_says_so() -> None:
    rollout = run(Spends(CALL), Task.ask("Go", parameters={"max_output_tokens": 4}), output_token_limit=100)
    assert rollout.outcome == Outcome("truncated", reason="max_output_tokens")


def test_a_call_beyond_the_limit_from_outside_the_loop_is_refused_and_not_recorded() -> None:
    async def test() -> None:
        episode = await Episode.open(SPEC, Task.ask("Go"), limits=Limits(tool_call_limit=1))
        await episode.call("add", "{}", "a")
        assert (await episode.call("add", "{}", "a")).output == "1"
        with pytest.raises(EpisodeClosed, match="has had its 1 tool calls"):
            await episode.call("add", "{}", "b")
        assert (len(episode.rollout.calls), episode.refused_by) == (1, "tool_call_limit")
        assert (await episode.verify()).reward == 0.01
        await episode.close()

    asyncio.run(test())


def test_a_rollout_costs_what_its_tokens_cost() -> None:
    rollout = run(Spends(CALL, usage=Usage(1000, 100, 400)), token_limit=2200, prices=PRICES)
    assert rollout.usage == Usage(2000, 200, 800)
    assert rollout.cost == pytest.approx((1200 * 2.0 + 800 * 0.5 + 200 * 10.0) / 1e6)
    row = rollout.to_row()
    assert row["response"]["usage"]["input_tokens_details"] == {"cached_tokens": 800}
    assert row["gymrail"]["cost"] == rollout.cost
    assert "cost" not in run(Spends(CALL), token_limit=10).to_row()["gymrail"]


def test_what_an_earlier_attempt_used_up_is_counted_apart() -> None:
    first, second, third = (run(Spends(CALL), token_limit=15, prices=PRICES) for _ in range(3))
    second.add_earlier(first)
    third.add_earlier(second)
    assert (third.usage, third.earlier_usage) == (Usage(10, 5), Usage(20, 10))
    assert third.cost == pytest.approx(3 * PRICES.cost(Usage(10, 5)))
    assert finished_of(third).other_tokens == 30
    check_is_whole(third)


counts = st.integers(0, 10**9)
prices = st.floats(0, 1000, allow_subnormal=False)


@given(counts, counts, counts, prices, prices, st.none() | prices)
def test_prices_are_per_million_and_cached_tokens_are_part_of_the_input(
    fresh: int, cached: int, output: int, input_price: float, output_price: float, cached_price: float | None
) -> None:
    cost = Prices(input_price, output_price, cached_price).cost(Usage(fresh + cached, output, cached))
    each = (fresh / 1e6 * input_price, output / 1e6 * output_price,
            cached / 1e6 * (input_price if cached_price is None else cached_price))  # fmt: skip
    assert cost == pytest.approx(sum(each), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Limits(token_limit=0), "token_limit is 0; it must be above 0"),
        (lambda: Limits(time_limit_seconds=float("inf")), "time_limit_seconds is inf"),
        (lambda: Limits(cost_limit=1.0), "cost_limit is 1.0, and nothing has a price"),
        (lambda: Prices(-1, 2), "price 'input' is -1"),
    ],
)
def test_limits_that_mean_nothing_are_refused(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        make()
