import asyncio
import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gymrail import Environment, Rollout, Task, Verdict, call, tool
from gymrail.collect.budget import Budget, Spending
from gymrail.collect.counts import RunCounts
from gymrail.collect.drain import Drain
from gymrail.collect.finished import Finished, ToolUse, finished_of, finished_of_row
from gymrail.collect.journal import Key
from gymrail.collect.metrics import aggregate
from gymrail.collect.runner import Job, Summary, collect
from gymrail.errors import InputError
from gymrail.limits import Limits, Prices
from gymrail.models.model import ModelRequest, ModelResponse
from gymrail.models.scripted import ScriptedModel
from gymrail.rollout import Outcome, Usage
from gymrail.spec import EnvironmentSpec
from gymrail.users.simulated import CustomerBrief, SimulatedUser
from gymrail.verifiers.judge import Judge
from tests.core.verifiers.judges import EQUAL, Scripted

PRICES = Prices(1.0, 2.0)


class Adder(Environment[Task]):
    def seed(self) -> None:
        self.count = 0

    @tool
    def add(self, by: int) -> int:
        self.count += by
        return self.count

    def verify(self, rollout: Rollout) -> float:
        return float(self.count == 2)


SPEC = EnvironmentSpec("adder", Adder)


class Metered:
    """One call and one answer, at 10 tokens in and 5 out each."""

    async def respond(self, request: ModelRequest) -> ModelResponse:
        script = ScriptedModel([call("add", by=2), "Two.", "Two."])
        response = await script.respond(request)
        return ModelResponse(response.items, usage=Usage(10, 5))


class Flaky(Metered):
    """Breaks in every episode's first attempt, after one answer."""

    def __init__(self) -> None:
        self.broken: set[str] = set()

    async def respond(self, request: ModelRequest) -> ModelResponse:
        response = await super().respond(request)
        task = str(request.input[0]["content"])
        if len(request.input) > 1 and task not in self.broken:
            self.broken.add(task)
            raise OSError("connection lost")
        return response


def play(budget: Budget, model: Any = None, tasks: int = 50, concurrency: int = 4, **options: Any) -> Any:
    rollouts: list[Rollout] = []
    summary = Summary()

    async def run() -> Spending:
        drain = Drain()
        spending = Spending(budget, drain, PRICES)
        spending.resume(options.pop("earlier", ()))

        def count(rollout: Rollout) -> None:
            rollouts.append(rollout)
            spending.add(finished_of(rollout))

        with spending.clock():
            await collect(
                (Job(SPEC, Task.ask(f"Task {index}"), index) for index in range(tasks)),
                model or Metered(), limits=Limits(prices=PRICES), concurrency=concurrency, summary=summary,
                on_rollout=count, drain=drain, retry_seconds=0.001,
            )  # fmt: skip
        return spending

    spending = asyncio.run(asyncio.wait_for(run(), 120))
    assert summary.asked == summary.finished == len(rollouts)
    return spending, rollouts


@pytest.mark.parametrize(
    ("budget", "name", "least"),
    [
        (Budget(tokens=300), "tokens", 10),
        (Budget(tool_calls=7), "tool_calls", 7),
        (Budget(cost=0.0004), "cost", 10),
    ],
)
def test_a_run_ends_with_what_is_in_flight_once_its_budget_is_used_up(budget: Budget, name: str, least: int) -> None:
    spending, rollouts = play(budget)
    assert spending.used_up == name
    assert least <= len(rollouts) <= least + 4
    assert all(rollout.outcome == Outcome("scored") and rollout.reward == 1.0 for rollout in rollouts)
    assert spending.tokens == 30 * len(rollouts)
    assert spending.cost == pytest.approx(PRICES.cost(Usage(20, 10)) * len(rollouts))


def test_a_budget_that_is_not_reached_changes_nothing() -> None:
    spending, rollouts = play(Budget(tokens=30 * 50 + 1, tool_calls=51, cost=1.0, seconds=600), tasks=50)
    assert (spending.used_up, len(rollouts)) == (None, 50)


def test_what_a_run_spent_before_counts_and_unpriced_rollouts_are_priced() -> None:
    _, rollouts = play(Budget(), tasks=8)
    earlier = [finished_of(rollout)._replace(cost=None) for rollout in rollouts]
    spending, more = play(Budget(cost=0.0004), earlier=earlier, concurrency=1)
    assert (len(more), spending.used_up) == (2, "cost")
    spending, more = play(Budget(tokens=240), earlier=earlier)
    assert (len(more), spending.used_up) == (0, "tokens")


def test_the_time_runs_out_though_nothing_finishes() -> None:
    class Waits:
        def __init__(self) -> None:
            self.asked, self.drained = 0, asyncio.Event()
            self.all_asked = asyncio.Event()

        async def respond(self, request: ModelRequest) -> ModelResponse:
            self.asked += 1
            if self.asked == 3:
                self.all_asked.set()
            async with asyncio.timeout(120):
                await self.drained.wait()
            return await Metered().respond(request)

    async def run() -> tuple[Spending, int]:
        drain, model, rollouts = Drain(), Waits(), list[Rollout]()
        spending = Spending(Budget(seconds=0.05), drain)

        async def release() -> None:
            await drain.wait(120)
            model.drained.set()

        releasing = asyncio.create_task(release())
        jobs = (Job(SPEC, Task.ask(f"Task {index}"), index) for index in range(100))
        playing = asyncio.create_task(collect(jobs, model, concurrency=3, on_rollout=rollouts.append, drain=drain))
        await asyncio.wait_for(model.all_asked.wait(), 120)
        with spending.clock():
            await playing
        await releasing
        assert [rollout.reward for rollout in rollouts] == [1.0] * 3
        return spending, len(rollouts)

    spending, played = asyncio.run(asyncio.wait_for(run(), 120))
    assert (spending.used_up, played) == ("seconds", 3)


def test_a_run_that_somebody_else_ended_was_not_ended_by_its_budget() -> None:
    drain = Drain()
    drain.request("Ctrl-C")
    spending = Spending(Budget(tokens=1), drain)
    spending.add(Finished(Key("a", 0, "0", 0), "scored", usage=Usage(5, 5)))
    assert (spending.used_up, drain.reason) == (None, "Ctrl-C")


def test_attempts_that_were_played_again_are_paid_for() -> None:
    spending, rollouts = play(Budget(), Flaky(), tasks=3)
    assert [(rollout.attempt, rollout.usage, rollout.earlier_usage) for rollout in rollouts] == [
        (2, Usage(20, 10), Usage(10, 5))
    ] * 3
    assert spending.tokens == 3 * 45
    assert spending.cost == pytest.approx(3 * PRICES.cost(Usage(30, 15)))
    cost = aggregate(rollouts)["overall"]["cost"]
    assert cost["total"] == pytest.approx(spending.cost)
    assert cost["per_rollout"]["max"] == pytest.approx(PRICES.cost(Usage(30, 15)))


class Judged(Adder):
    """Asks a judge, and a simulated user before that; both use 100 tokens in and 10 out for each answer."""

    judge = Judge(Scripted(lambda request: EQUAL), prices=Prices(100.0, 1000.0), swap=("expected_answer", "answer"))
    user = Scripted(lambda request: "Go on.")

    async def reply(self, rollout: Rollout) -> str | None:
        if rollout.steps > 2:
            return None
        return (
            await SimulatedUser(self.user, CustomerBrief("Be kind."), seed=self.task.id).respond(rollout.conversation)
        ).text

    async def verify(self, rollout: Rollout) -> Verdict:  # pyright: ignore[reportIncompatibleMethodOverride]
        return await self.judge(rollout.final_text, question="How many?", expected_answer="Two")


def test_judges_and_simulated_users_count_for_the_run_and_for_no_limit_of_an_episode() -> None:
    spec = EnvironmentSpec("judged", Judged)
    drain, rollouts = Drain(), list[Rollout]()
    spending = Spending(Budget(tokens=1000), drain, PRICES)
    written: list[Finished] = []

    def count(rollout: Rollout) -> None:
        rollouts.append(rollout)
        written.append(finished_of(rollout))
        spending.add(written[-1])

    jobs = (Job(spec, Task.ask(f"Task {index}"), index) for index in range(9))
    limits = Limits(token_limit=50, prices=PRICES)
    asyncio.run(collect(jobs, Metered(), limits=limits, concurrency=2, on_rollout=count, drain=drain))
    assert [rollout.failure for rollout in rollouts] == [None] * len(rollouts)
    own, beside = Usage(30, 15), Usage(300, 30)  # the user once; the judge twice, with the answers exchanged
    assert [(rollout.usage, rollout.environment_usage) for rollout in rollouts] == [(own, beside)] * len(rollouts)
    assert (spending.used_up, spending.tokens) == ("tokens", len(rollouts) * 375)
    judged = 2 * Prices(100.0, 1000.0).cost(Usage(100, 10))
    assert spending.cost == pytest.approx(len(rollouts) * (PRICES.cost(own) + judged))
    rows = [rollout.to_row() for rollout in rollouts]
    assert [finished_of_row(row) for row in rows] == written
    assert [Rollout.from_row(row).to_row() for row in rows] == rows
    found = aggregate(rollouts)["overall"]
    assert found["environment_tokens"] == {"input": 300 * len(rollouts), "output": 30 * len(rollouts)}
    assert found["environment_cost"] == pytest.approx(len(rollouts) * judged)
    assert found["tokens"]["input"] == 30 * len(rollouts)
    counts = RunCounts({"judged": 9})
    for finished in written:
        counts.add(finished)
    assert counts.cost == pytest.approx(spending.cost)


Make = Callable[..., Rollout]
spent = st.tuples(
    st.sampled_from("ab"), st.integers(0, 10**7), st.integers(0, 10**6), st.integers(0, 9),
    st.none() | st.floats(0, 1e6, allow_subnormal=False),
)  # fmt: skip


@settings(max_examples=80)
@given(st.lists(spent, max_size=60), st.randoms(use_true_random=False))
def test_spending_and_metrics_are_the_exact_sums_in_any_order(
    parts: list[tuple[str, int, int, int, float | None]], rng: random.Random
) -> None:
    exact = sum((Fraction(cost) for *_, cost in parts if cost is not None), Fraction())
    rollouts = []
    for index, (name, tokens_in, tokens_out, _, cost) in enumerate(parts):
        rollout = Rollout(name, Task.ask(f"{index}"), f"r{index}", index, outcome=Outcome("scored"), reward=1.0)
        rollout.usage, rollout.cost = Usage(tokens_in, tokens_out), cost
        rollouts.append(rollout)
    rng.shuffle(parts)
    spending = Spending(Budget(), Drain())
    for index, (name, tokens_in, tokens_out, calls, cost) in enumerate(parts):
        tools = (ToolUse("add", calls, 0.0),)
        spending.add(
            Finished(Key(name, index, "0", 0), "scored", usage=Usage(tokens_in, tokens_out), tools=tools, cost=cost)
        )
    assert spending.tokens == sum(part[1] + part[2] for part in parts)
    assert spending.tool_calls == sum(part[3] for part in parts)
    assert spending.cost == pytest.approx(float(exact), rel=1e-15, abs=0)
    found = aggregate(rollouts)["overall"]["cost"]
    if found is None:
        assert all(cost is None for *_, cost in parts)
    else:
        assert found["total"] == float(exact)


def test_a_million_small_costs_add_up() -> None:
    spending = Spending(Budget(), Drain())
    one = Finished(Key("a", 0, "0", 0), "scored", cost=0.1)
    spending.add(one._replace(cost=1e9))
    for _ in range(100_000):
        spending.add(one)
    assert spending.cost == 1e9 + 10_000


def test_a_budget_that_means_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="budget of tokens is 0; it must be above 0"):
        Budget(tokens=0)
    with pytest.raises(InputError, match=r"budget of cost is 5\.0, and nothing has a price"):
        Spending(Budget(cost=5.0), Drain())
