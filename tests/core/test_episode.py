"""Episodes: the journal, the deadlines, and that what breaks never becomes a reward."""

import asyncio
import contextlib
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gymrail import Environment, Rollout, Task, ToolError, ToolServer, tool
from gymrail.episode import Episode, Limits
from gymrail.errors import ContextOverflow, EpisodeClosed, EpisodeFailed, InfrastructureError, InputError
from gymrail.rollout import Outcome
from gymrail.spec import EnvironmentSpec

TASK = Task.ask("Go")
SERIAL = Task.ask("Go", parameters={"parallel_tool_calls": False})


class Shelf(ToolServer):
    """A composed server that counts how often it is closed."""

    def __init__(self) -> None:
        self.closed = 0

    @tool
    def put(self, what: str) -> str:
        self.what = what
        return f"put {what}"

    def close(self) -> None:
        self.closed += 1


class Bench(Environment[Task]):
    """Tools that break in every way."""

    shelf: Shelf

    def seed(self) -> None:
        self.count = 0
        self.closed = 0
        self.gate = asyncio.Event()
        self.entered = asyncio.Event()
        self.freed = threading.Event()
        self.running = 0
        self.most = 0

    @tool
    def add(self, by: int) -> int:
        self.count += by
        return self.count

    @tool
    async def wait(self, n: int = 0) -> str:
        self.count += 1
        self.running += 1
        self.most = max(self.most, self.running)
        self.entered.set()
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
        return f"waited {n}"

    @tool
    async def briefly(self) -> str:
        self.running += 1
        self.most = max(self.most, self.running)
        for _ in range(3):
            await asyncio.sleep(0)
        self.running -= 1
        return "ok"

    @tool(timeout_seconds=0.02)
    async def slow(self) -> str:
        await asyncio.Event().wait()
        return "never"

    @tool(timeout_seconds=0.02)
    async def stubborn(self) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "too late"

    @tool
    def refuse(self) -> str:
        raise ToolError("the door is locked")

    @tool
    def crash(self) -> str:
        raise ValueError("boom")

    @tool
    def leave(self) -> str:
        sys.exit(3)

    @tool
    async def timeout(self) -> str:
        raise TimeoutError("their server")

    @tool
    async def cancelled_inside(self) -> str:
        inner = asyncio.ensure_future(asyncio.Event().wait())
        inner.cancel()
        await inner
        return "never"

    @tool
    def overflow(self) -> str:
        raise ContextOverflow("a judge's context")

    @tool
    def lost(self) -> str:
        raise InfrastructureError("the sandbox is gone")

    @tool(blocking=True)
    def stop_iteration(self) -> str:
        return next(iter([]))

    @tool(blocking=True)
    def block(self) -> str:
        assert self.freed.wait(120)  # in a thread, which is the point
        return "done"

    @tool
    def unprintable(self) -> object:
        return object()

    def close(self) -> None:
        self.closed += 1

    def verify(self, rollout: Rollout) -> Any:
        return 1.0


SPEC = EnvironmentSpec("bench", Bench)


def with_episode(
    play: Callable[[Episode], Awaitable[Any]], task: Task = TASK, cls: type[Bench] = Bench, **limits: float
) -> Any:
    async def run() -> Any:
        spec = SPEC if cls is Bench else EnvironmentSpec("bench", cls)
        episode = await Episode.open(spec, task, limits=Limits(**limits))
        try:
            async with asyncio.timeout(120):
                return await play(episode)
        finally:
            await episode.close()

    return asyncio.run(run())


def failure_of(name: str, cls: type[Bench] = Bench, **limits: float) -> tuple[str, str, str]:
    """Run one call that breaks; return kind, stage and message, once it is shown that no reward can follow."""

    async def play(episode: Episode) -> tuple[str, str, str]:
        with pytest.raises(EpisodeFailed) as error:
            await episode.call(name, "{}", "a")
        for again in (
            episode.verify(),
            episode.call("add", '{"by": 1}', "b"),
            episode.call(name, "{}", "a"),
            episode.reply(),
        ):
            with pytest.raises(EpisodeFailed) as later:
                await again
            assert later.value.failure == error.value.failure
        assert episode.rollout.reward is None
        assert episode.environment.count == 0
        failure = error.value.failure
        return failure.kind, failure.stage, failure.message

    return with_episode(play, cls=cls, **limits)


def test_the_journal_has_every_call_in_order_with_its_outcome() -> None:
    async def play(episode: Episode) -> None:
        await episode.call("add", {"by": 2}, "a")
        await episode.call("add", b'{"by": 3}', "b")
        await episode.call("add", '{"by": "x"}', "c")
        await episode.call("ad", "{}", "d")
        await episode.call("refuse", "{}", "e")
        await episode.call("put", '{"what": "a book"}', "f")
        calls = [(call.call_id, call.name, call.arguments, call.is_error) for call in episode.rollout.calls]
        assert calls == [
            ("a", "add", '{"by":2}', False),
            ("b", "add", '{"by": 3}', False),
            ("c", "add", '{"by": "x"}', True),
            ("d", "ad", "{}", True),
            ("e", "refuse", "{}", True),
            ("f", "put", '{"what": "a book"}', False),
        ]
        outputs = [call.output for call in episode.rollout.calls]
        assert outputs[:2] == ["2", "5"]
        assert "Expected: by (integer)" in outputs[2]
        assert outputs[3:] == ["Unknown tool 'ad'. Did you mean 'add'?", "the door is locked", "put a book"]
        assert all(call.seconds >= 0 for call in episode.rollout.calls)
        assert (await episode.verify()).reward == 1.0

    with_episode(play)


def test_a_repeated_call_id_returns_the_record_and_another_call_may_not_use_it() -> None:
    async def play(episode: Episode) -> None:
        first = await episode.call("add", '{"by": 2}', "a")
        assert await episode.call("add", '{"by": 2}', "a") is first
        with pytest.raises(InputError, match="call_id 'a' belongs to another call"):
            await episode.call("add", '{"by": 3}', "a")
        assert episode.environment.count == 2
        assert len(episode.rollout.calls) == 1

    with_episode(play)


def test_a_repeated_call_id_waits_for_the_first_call_while_it_runs() -> None:
    async def play(episode: Episode) -> None:
        environment = episode.environment
        first = asyncio.ensure_future(episode.call("wait", "{}", "a"))
        await environment.entered.wait()
        second = asyncio.ensure_future(episode.call("wait", "{}", "a"))
        third = asyncio.ensure_future(episode.call("wait", "{}", "a"))
        await asyncio.sleep(0)
        third.cancel()
        with pytest.raises(InputError, match="belongs to another call"):  # at once, though the first still runs
            await episode.call("wait", '{"n": 1}', "a")
        environment.gate.set()
        assert await first is await second
        assert environment.count == 1
        assert (await episode.verify()).reward == 1.0

    with_episode(play)


def test_arguments_that_no_json_can_carry_are_the_callers_mistake() -> None:
    async def play(episode: Episode) -> None:
        with pytest.raises(InputError, match="are no JSON"):
            await episode.call("add", {"by": object()}, "a")
        huge = await episode.call("add", {"by": 2**70}, "b")
        assert huge.output == str(2**70)

    with_episode(play)


@pytest.mark.parametrize(("task", "most"), [(TASK, 3), (SERIAL, 1)])
def test_calls_run_together_unless_the_task_forbids_it(task: Task, most: int) -> None:
    async def play(episode: Episode) -> None:
        await asyncio.gather(*(episode.call("briefly", "{}", f"c{i}") for i in range(3)))
        assert episode.environment.most == most

    with_episode(play, task)


def test_a_call_that_waits_behind_a_failed_one_is_not_run() -> None:
    async def play(episode: Episode) -> None:
        calls = (
            episode.call("wait", "{}", "w"),
            episode.call("crash", "{}", "x"),
            episode.call("add", '{"by": 1}', "y"),
        )
        running = [asyncio.ensure_future(call) for call in calls]
        await episode.environment.entered.wait()
        episode.environment.gate.set()
        results = await asyncio.gather(*running, return_exceptions=True)
        assert [type(result).__name__ for result in results] == ["ToolCall", "EpisodeFailed", "EpisodeFailed"]
        assert episode.environment.count == 1

    with_episode(play, SERIAL)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("crash", "tool", "ValueError: boom"),
        ("leave", "tool", "SystemExit: 3"),
        ("timeout", "tool", "TimeoutError: their server"),
        ("cancelled_inside", "tool", "CancelledError: "),
        ("overflow", "tool", "tool raised ContextOverflow: a judge's context"),
        ("lost", "infrastructure", "the sandbox is gone"),
        ("stop_iteration", "tool", "RuntimeError: the tool raised StopIteration: "),
        ("slow", "timeout", "no result within 0.02 seconds"),
        ("stubborn", "timeout", "no result within 0.02 seconds"),
        ("unprintable", "tool", "TypeError: a tool returned object, which JSON cannot carry"),
    ],
)
def test_a_tool_that_breaks_fails_the_episode_for_good(name: str, kind: str, message: str) -> None:
    assert failure_of(name) == (kind, "tool", message)


class Patient(Bench):
    @tool
    async def slow(self) -> str:
        await asyncio.Event().wait()
        return "never"


def test_the_limit_per_call_and_the_limit_of_the_episode_are_timeouts() -> None:
    assert failure_of("slow", Patient, call_seconds=0.02)[:2] == ("timeout", "tool")
    assert failure_of("slow", Patient, episode_seconds=0.05)[:2] == ("timeout", "tool")


@pytest.mark.parametrize("stage", ["tool", "reply", "verify"])
def test_an_episode_past_its_deadline_fails_at_the_stage_that_met_it(stage: str) -> None:
    async def play(episode: Episode) -> None:
        if stage == "tool":
            coroutine: Any = episode.call("add", '{"by": 1}', "a")
        else:
            coroutine = episode.reply() if stage == "reply" else episode.verify()
        with pytest.raises(EpisodeFailed) as error:
            await coroutine
        assert (error.value.failure.kind, error.value.failure.stage) == ("timeout", stage)
        assert episode.remaining_seconds == 0

    with_episode(play, episode_seconds=0.0)


def test_a_cancelled_call_leaves_nothing_that_could_be_judged() -> None:
    async def play(episode: Episode) -> None:
        call = asyncio.ensure_future(episode.call("wait", "{}", "a"))
        await episode.environment.entered.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        with pytest.raises(EpisodeFailed, match="the call of 'wait' was cancelled"):
            await episode.verify()
        assert episode.failure is not None
        assert episode.failure.kind == "infrastructure"

    with_episode(play)


def test_close_runs_every_hook_once_and_closed_episodes_take_no_calls() -> None:
    async def play(episode: Episode) -> None:
        await asyncio.gather(episode.close(), episode.close())
        await episode.close()
        assert (episode.environment.closed, episode.environment.shelf.closed) == (1, 1)
        for used in (episode.call("add", '{"by": 1}'), episode.reply(), episode.verify()):
            with pytest.raises(EpisodeClosed):
                await used

    with_episode(play)


class BadClose(Bench):
    def close(self) -> None:
        raise OSError("disk")


def test_a_close_hook_that_breaks_is_noted_and_the_others_still_run() -> None:
    async def play(episode: Episode) -> None:
        await episode.verify()
        await episode.close()
        rollout = episode.finish(Outcome("scored"))
        assert rollout.reward == 1.0
        assert rollout.metrics == {"close_error": "environment failure at stage close: OSError: disk"}
        assert episode.environment.shelf.closed == 1

    with_episode(play, cls=BadClose)


def test_an_idle_episode_expires_but_not_while_a_call_runs() -> None:
    async def run() -> None:
        episode = await Episode.open(SPEC, TASK)
        call = asyncio.ensure_future(episode.call("wait", "{}", "a"))
        await episode.environment.entered.wait()
        episode.limits = Limits(idle_seconds=0)
        assert not episode.is_expired
        episode.environment.gate.set()
        await call
        assert episode.is_expired
        with pytest.raises(EpisodeClosed, match="idle for more than"):
            await episode.call("add", '{"by": 1}', "b")
        assert episode.is_closed
        assert episode.environment.closed == 1

    asyncio.run(run())


def test_a_row_offers_its_own_tools_and_no_others() -> None:
    task = Task.ask(
        "Go", parameters={"tools": [{"type": "function", "name": "add", "description": "Mine", "parameters": {}}]}
    )

    async def play(episode: Episode) -> None:
        assert [row["description"] for row in episode.tool_schemas] == ["Mine"]
        call = await episode.call("refuse", "{}", "a")
        assert (call.is_error, call.output) == (True, "Unknown tool 'refuse'. Available tools: add.")

    with_episode(play, task)
    chat = Task.ask("Go", parameters={"tools": [{"type": "function", "function": {"name": "add", "parameters": {}}}]})
    assert SPEC.tool_schemas(chat) == [{"type": "function", "name": "add", "parameters": {}}]
    with pytest.raises(InputError, match=r"offers the tool 'ad', which bench does not have. Did you mean 'add'"):
        asyncio.run(Episode.open(SPEC, Task.ask("Go", parameters={"tools": [{"name": "ad"}]})))


def test_blocking_tools_leave_the_event_loop_free() -> None:
    async def play(episode: Episode) -> int:
        call = asyncio.ensure_future(episode.call("block", "{}", "a"))
        ticks = 0
        while not call.done():
            await asyncio.sleep(0.005)
            ticks += 1
            if ticks == 5:
                episode.environment.freed.set()
        assert (await call).output == "done"
        return ticks

    assert with_episode(play) >= 5


def test_concurrent_episodes_do_not_mix() -> None:
    async def one(number: int) -> tuple[int, Any]:
        episode = await Episode.open(SPEC, TASK)
        for _ in range(3):
            await episode.call("add", {"by": number})
            await asyncio.sleep(0)
        await episode.call("put", {"what": str(number)})
        state = (episode.environment.count, episode.environment.shelf.what)
        await episode.close()
        return state

    async def run() -> list[tuple[int, Any]]:
        return await asyncio.gather(*(one(number) for number in range(20)))

    assert asyncio.run(run()) == [(3 * number, str(number)) for number in range(20)]
