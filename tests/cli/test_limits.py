"""Limits, budgets and prices on the command line, against an endpoint that reports what it used."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gymrail.cli.limits import parse_count, parse_dollars, parse_prices, parse_seconds
from gymrail.errors import InputError
from gymrail.limits import Limits, Prices
from tests.serving import stop_serving

USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 400}}
COST = (600 * 1.0 + 400 * 0.1 + 100 * 10.0) / 1e6
PRICE = ("--price", "1,10,0.1")
SUMS = '''
from random import Random

from gymrail import Environment, Rollout, Task, tool


class Sums(Environment[Task]):
    """Add and add."""

    @classmethod
    def generate(cls, rng: Random) -> Task:
        return Task.ask(f"Add {rng.random()}")

    @tool
    def add(self, a: int, b: int) -> int:
        return a + b

    def verify(self, rollout: Rollout) -> float:
        return len(rollout.calls) / 10
'''


class Endpoint:
    """Calls `add` until it was told a sum three times, then gives up."""

    def __init__(self) -> None:
        self.url = ""
        self.environment = Path()
        self.asked: list[dict[str, Any]] = []
        self.breaks = False
        """Whether it refuses every second call of a conversation."""
        self.hangs = False
        """Whether it answers no second call of a conversation."""
        self.ended = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append(body)
        heard = sum(message["role"] == "tool" for message in body["messages"])
        if self.breaks and heard:
            return web.json_response({"error": {"message": "broken"}}, status=400)
        if self.hangs and heard:
            await self.ended.wait()
        call = {"id": f"call_{heard}", "type": "function", "function": {"name": "add", "arguments": '{"a":1,"b":2}'}}
        said = {"role": "assistant", "content": "I give up."} if heard >= 3 else {"role": "assistant", "content": None}
        if heard < 3:
            said["tool_calls"] = [call]  # type: ignore[assignment]
        choice = {"index": 0, "finish_reason": "stop", "message": said}
        return web.json_response({"object": "chat.completion", "model": "m", "choices": [choice], "usage": USAGE})

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "m"}]})


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    made, ready = Endpoint(), Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]()
    made.environment = tmp_path / "sums.py"
    made.environment.write_text(SUMS)

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", made.answer)
        app.router.add_get("/v1/models", made.models)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        ready.set_result((asyncio.get_running_loop(), made.ended))
        await made.ended.wait()
        await stop_serving(runner)

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    loop, ended = ready.result(120)
    yield made
    loop.call_soon_threadsafe(ended.set)
    thread.join(120)


def rollout(endpoint: Endpoint, folder: Path, tasks: int, *more: object) -> tuple[object, ...]:
    model = ("--model", endpoint.url, "--model-name", "m", "-n", tasks, "-c", 2, "--run", folder, "--json")
    return ("rollout", endpoint.environment, *model, *more)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_budget_ends_the_run_with_code_3_and_a_higher_one_goes_on(
    run, endpoint: Endpoint, tmp_path: Path, workers: int
) -> None:
    folder, budget = tmp_path / "run", 6.5 * 4 * COST
    # Ahead of the run's process, a worker plays on until it is told: enough tasks that it cannot play them all.
    command = (endpoint, folder, 600, *PRICE, "--workers", workers)
    done = run(*rollout(*command, "--budget-cost", budget))
    assert done.code == 3, done.stderr
    found = json.loads(done.stdout)["overall"]
    played = found["rollouts"]
    assert 7 <= played < 600
    if not workers:
        assert played <= 7 + 2
    assert found["outcomes"]["scored"] == played
    assert found["cost"]["total"] == pytest.approx(played * 4 * COST)
    assert found["cost"]["per_rollout"]["p50"] == pytest.approx(4 * COST)
    assert found["tokens"] == {"input": played * 4000, "cached": played * 1600, "output": played * 400}
    assert f"The run's budget of ${budget:,g} is used up (${played * 4 * COST:,.6g} were spent): " in done.stderr
    assert f"{played} of 600 rollouts are in {folder}. Go on, with a higher --budget-cost:\n  gymrail " in done.stderr
    assert json.loads((folder / "metrics.json").read_bytes())["overall"]["rollouts"] == played
    again = run(*rollout(*command, "--budget-cost", budget, "--resume"))
    assert (again.code, json.loads(again.stdout)["overall"]["rollouts"]) == (3, played)
    on = run(*rollout(endpoint, folder, played + 3, *PRICE, "--budget-cost", 10, "--resume"))
    assert (on.code, json.loads(on.stdout)["overall"]["rollouts"]) == (0, played + 3)
    assert "is used up" not in on.stderr


def test_a_budget_that_the_last_rollout_uses_up_has_ended_nothing(run, endpoint: Endpoint, tmp_path: Path) -> None:
    done = run(*rollout(endpoint, tmp_path / "run", 3, "--budget-tokens", "13200"))
    assert (done.code, json.loads(done.stdout)["overall"]["rollouts"]) == (0, 3)
    assert "is used up" not in done.stderr


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (("--budget-tokens", "10k"), "budget of 10,000 tokens is used up (1"),
        (("--budget-tool-calls", 8), "budget of 8 tool calls is used up ("),
        (("--budget-time", "0.2s"), "budget of 0.2 seconds is used up: "),
    ],
)
def test_every_budget_ends_a_run(run, endpoint: Endpoint, tmp_path: Path, option: Any, text: str) -> None:
    done = run(*rollout(endpoint, tmp_path / "run", 20_000, *option))
    assert done.code == 3, done.stderr
    assert text in done.stderr
    assert 0 < json.loads(done.stdout)["overall"]["rollouts"] < 20_000


def test_what_failed_was_paid_for_all_the_same(run, endpoint: Endpoint, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    endpoint.breaks = True
    done = run(*rollout(endpoint, folder, 2, "--retries", 1))
    assert done.code == 1
    rows = [json.loads(line) for line in (folder / "failures.jsonl").read_text().splitlines()]
    spent = sum(
        usage["total_tokens"]
        for row in rows
        for usage in (row["response"]["usage"], row["gymrail"].get("earlier_usage", {"total_tokens": 0}))
    )
    assert spent == 1100 * sum(row["gymrail"]["attempt"] for row in rows) > 0
    endpoint.breaks = False
    refused = run(*rollout(endpoint, folder, 2, "--budget-tokens", spent, "--resume"))
    assert refused.code == 1  # no rollout has a reward: that comes before the budget
    assert f"budget of {spent:,} tokens is used up ({spent:,} were taken): 0 of 2 rollouts" in refused.stderr
    assert len((folder / "failures.jsonl").read_text().splitlines()) == 2
    done = run(*rollout(endpoint, folder, 2, "--budget-tokens", spent + 8800, "--resume"))
    assert (done.code, json.loads(done.stdout)["overall"]["outcomes"]["scored"]) == (0, 2)


@pytest.mark.parametrize(
    ("option", "reason", "steps"),
    [
        (("--token-limit", "2.2k"), "token_limit", 2),
        (("--output-token-limit", 300), "output_token_limit", 3),
        (("--tool-call-limit", 1), "tool_call_limit", 2),
        (("--time-limit", "0.000001s"), "time_limit", 1),
        (("--cost-limit", 1.5 * COST, *PRICE), "cost_limit", 2),
    ],
)
def test_a_limit_truncates_episodes_and_is_told_apart(
    run, endpoint: Endpoint, tmp_path: Path, option: tuple[str, ...], reason: str, steps: int
) -> None:
    folder = tmp_path / "run"
    done = run(*rollout(endpoint, folder, 4, *option))
    found = json.loads(done.stdout)["overall"]
    assert done.code == 0, done.stderr
    assert (found["truncations"], found["truncation_shares"], found["steps"]) == ({reason: 4}, {reason: 1.0}, steps)
    name = "time_limit_seconds" if reason == "time_limit" else reason
    assert f"{name}:" in (folder / "config.yaml").read_text()
    if reason == "output_token_limit":
        assert {body["max_tokens"] for body in endpoint.asked} == {300, 200, 100}
    assert run("replay", folder, "--rollout", "0:0").code == 0


def test_an_episode_past_its_deadline_has_failed_and_is_not_judged(run, endpoint: Endpoint, tmp_path: Path) -> None:
    folder, endpoint.hangs = tmp_path / "run", True
    done = run(*rollout(endpoint, folder, 2, "--deadline", "0.4s", "--retries", 0))
    assert done.code == 1  # nothing has a reward
    rows = [json.loads(line) for line in (folder / "failures.jsonl").read_text().splitlines()]
    assert [("reward" in row, row["gymrail"]["status"]) for row in rows] == [(False, "failed")] * 2
    assert {row["gymrail"]["failure"]["kind"] for row in rows} <= {"model", "timeout"}
    assert "episode_seconds: 0.4" in (folder / "config.yaml").read_text()


def test_metrics_show_what_a_run_cost(run, endpoint: Endpoint, tmp_path: Path) -> None:
    assert run(*rollout(endpoint, tmp_path / "run", 5, *PRICE)).code == 0
    shown = run("metrics", tmp_path / "run").stdout
    assert "20,000 in (8,000 cached), 2,000 out" in shown
    assert f"${20 * COST:.6g}, ${4 * COST:.3g} per rollout" in shown
    assert run(*rollout(endpoint, tmp_path / "free", 1)).code == 0
    assert "cost" not in run("metrics", tmp_path / "free").stdout


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--token-limit", "many"), "--token-limit is 'many'; it must be a whole number of at least 1"),
        (("--tool-call-limit", "0"), "--tool-call-limit is '0'"),
        (("--deadline", "soon"), "--deadline is 'soon'; it must be a time above 0, such as 90s"),
        (("--budget-time", "2 weeks"), "--budget-time is '2 weeks'; it must be a time above 0, such as 90s"),
        (("--budget-cost", "-1", *PRICE), "--budget-cost is '-1'; it must be an amount of US dollars above 0"),
        (("--budget-cost", "5"), "--budget-cost needs to know what tokens cost: --price IN,OUT"),
        (("--cost-limit", "5"), "--cost-limit needs to know what tokens cost"),
        (("--price", "1"), "--price is '1'; write US dollars per million input and output tokens"),
        (("--price", "1,x"), "--price is '1,x'"),
    ],
)
def test_words_that_are_no_quantity_are_refused_before_anything_is_played(
    run, tmp_path: Path, words: tuple[str, ...], text: str
) -> None:
    done = run("rollout", "word_math", "-m", "oracle", "--run", tmp_path / "run", *words)
    assert done.code == 2
    assert text in " ".join(done.stderr.split())
    assert not (tmp_path / "run").exists()


def test_quantities_are_read_as_people_write_them() -> None:
    assert [parse_count(text, "-") for text in ("5", "10k", "1.5M", "2B", "1_000", "12,000")] == [
        5, 10_000, 1_500_000, 2 * 10**9, 1000, 12_000,
    ]  # fmt: skip
    assert [parse_seconds(text, "-") for text in ("90", "90s", "1.5m", "2h", "1h30m", "2d", "0.5")] == [
        90, 90, 90, 7200, 5400, 172_800, 0.5,
    ]  # fmt: skip
    assert [parse_dollars(text, "-") for text in ("5", "$0.25")] == [5.0, 0.25]
    assert (parse_prices("1.25,10"), parse_prices("1, 2, 0")) == (Prices(1.25, 10.0), Prices(1.0, 2.0, 0.0))
    for text in ("1.5", "k", "1e3", "", "0.5k5"):
        with pytest.raises(InputError):
            parse_count(text, "-")
    for text in ("", "h", "1h30", "5x", "-3s", "1:30"):
        with pytest.raises(InputError):
            parse_seconds(text, "-")
    with pytest.raises(InputError, match="amount of US dollars"):
        parse_dollars("inf", "-")
    assert Limits(prices=Prices(1, 2)).end_between_steps is False
