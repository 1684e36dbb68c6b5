"""Verdicts and user turns: what is no valid reward is a failure, and never a score."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gymrail import Environment, Outcome, Reply, Rollout, Task, ToolError, Verdict, tool
from gymrail.episode import Episode
from gymrail.errors import ContextOverflow, EpisodeClosed, EpisodeFailed, InputError
from gymrail.spec import EnvironmentSpec


class Bench(Environment[Task]):
    """Has one call that can be held."""

    def seed(self) -> None:
        self.gate = asyncio.Event()
        self.entered = asyncio.Event()
        self.running = 0

    @tool
    async def wait(self) -> str:
        self.running += 1
        self.entered.set()
        await self.gate.wait()
        self.running -= 1
        return "waited"

    def verify(self, rollout: Rollout) -> Any:
        return 1.0


def with_episode(play: Callable[[Episode], Awaitable[Any]], cls: type[Bench] = Bench) -> Any:
    async def run() -> Any:
        episode = await Episode.open(EnvironmentSpec("bench", cls), Task.ask("Go"))
        try:
            async with asyncio.timeout(120):
                return await play(episode)
        finally:
            await episode.close()

    return asyncio.run(run())


BAD_VERDICTS = [
    math.nan, math.inf, -0.1, 1.1, None, "1.0", object(), [1.0], Verdict(), Verdict(math.inf), Verdict(None),
    Verdict("1"), Verdict(10**400), Verdict(1j), Verdict(0.5, {"a": math.nan}), Verdict(0.5, {"a": None}),
    Verdict(0.5, {"a": "1"}),  # type: ignore[arg-type, dict-item]
    Verdict(reward_components={"a": 0.9, "b": 0.9}), Verdict(1.0, metrics={"m": {1, 2}}),  # type: ignore[dict-item]
]  # fmt: skip


@pytest.mark.parametrize("verdict", BAD_VERDICTS, ids=[str(index) for index in range(len(BAD_VERDICTS))])
def test_a_reward_that_is_no_number_in_range_is_a_failure_and_never_a_score(verdict: Any) -> None:
    class Judge(Bench):
        def verify(self, rollout: Rollout) -> Any:
            return verdict

    async def play(episode: Episode) -> None:
        for _ in range(2):
            with pytest.raises(EpisodeFailed) as error:
                await episode.verify()
            assert error.value.failure.kind in ("reward", "verifier")
            assert error.value.failure.stage == "verify"
        assert episode.rollout.reward is None

    with_episode(play, cls=Judge)


@pytest.mark.parametrize("verdict", [1, True, 0.5, Verdict(1), Verdict(reward_components={"a": 0.25, "b": 0.5})])
def test_numbers_and_verdicts_are_rewards(verdict: Any) -> None:
    class Judge(Bench):
        def verify(self, rollout: Rollout) -> Any:
            return verdict

    async def play(episode: Episode) -> float:
        first = await episode.verify()
        assert await episode.verify() is first
        with pytest.raises(EpisodeClosed, match="has been judged"):
            await episode.call("wait", "{}", "late")
        rollout = episode.finish(Outcome("scored"))
        assert type(rollout.reward) is float
        return rollout.reward

    assert with_episode(play, cls=Judge) == (
        0.75
        if isinstance(verdict, Verdict) and verdict.reward_components
        else float(getattr(verdict, "reward", verdict))
    )


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), ToolError("x"), ContextOverflow("x"), SystemExit(1), InputError("x"), asyncio.CancelledError()],
)
def test_a_verifier_that_raises_fails_the_rollout(error: BaseException) -> None:
    class Judge(Bench):
        def verify(self, rollout: Rollout) -> Any:
            rollout.reward = 1.0
            raise error

    async def play(episode: Episode) -> None:
        with pytest.raises(EpisodeFailed) as failed:
            await episode.verify()
        assert (failed.value.failure.kind, failed.value.failure.stage) == ("verifier", "verify")
        assert episode.finish(Outcome("failed", failed.value.failure)).reward is None

    with_episode(play, cls=Judge)


def test_a_verifier_waits_for_calls_under_way_and_is_stopped_by_close() -> None:
    class Judge(Bench):
        async def verify(self, rollout: Rollout) -> float:
            assert self.running == 0
            self.judging.set()
            await asyncio.Event().wait()
            return 1.0

    async def play(episode: Episode) -> None:
        environment = episode.environment
        environment.judging = asyncio.Event()
        call = asyncio.ensure_future(episode.call("wait", "{}", "a"))
        await environment.entered.wait()
        verdict = asyncio.ensure_future(episode.verify())
        await asyncio.sleep(0)
        environment.gate.set()
        await call
        await environment.judging.wait()
        await episode.close()
        with pytest.raises(EpisodeClosed, match="closed before it was judged"):
            await verdict
        assert episode.rollout.reward is None

    with_episode(play, cls=Judge)


def test_a_plain_verifier_may_return_what_is_awaited_and_a_cancelled_caller_does_not_stop_it() -> None:
    class Judge(Bench):
        def verify(self, rollout: Rollout) -> Any:
            self.running += 1
            return self.judge()

        async def judge(self) -> float:
            self.entered.set()
            await self.gate.wait()
            return 0.5

    async def play(episode: Episode) -> None:
        first = asyncio.ensure_future(episode.verify())
        await episode.environment.entered.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        second = asyncio.ensure_future(episode.verify())
        await asyncio.sleep(0)
        episode.environment.gate.set()
        assert (await second).reward == 0.5
        assert episode.environment.running == 1
        assert 0 < episode.rollout.timing.verify < 5

    with_episode(play, cls=Judge)


def test_a_scored_rollout_without_a_verdict_cannot_be_made() -> None:
    async def play(episode: Episode) -> None:
        with pytest.raises(AssertionError, match="verified"):
            episode.finish(Outcome("scored"))

    with_episode(play)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [(7, "environment"), ({"a": 1}, "environment"), (Reply("x", math.nan), "reward"), (Reply("x", "1"), "reward")],  # type: ignore[arg-type]
)
def test_a_reply_that_is_no_turn_fails_the_episode(answer: Any, kind: str) -> None:
    class Talk(Bench):
        def reply(self, rollout: Rollout) -> Any:
            return answer

    async def play(episode: Episode) -> None:
        with pytest.raises(EpisodeFailed) as error:
            await episode.reply()
        assert (error.value.failure.kind, error.value.failure.stage) == (kind, "reply")
        assert episode.rollout.step_rewards == []

    with_episode(play, cls=Talk)
