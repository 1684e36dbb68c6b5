"""One attempt at one task: a live environment instance, its journal, its deadlines. Every transport goes through here.

    episode = await Episode.open(spec, task)
    call = await episode.call("increment", '{"by": 3}', "call_1")
    await episode.verify()
    await episode.close()

What breaks marks the episode as failed for good: no later call and no verifier can turn it into a reward.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections.abc import Callable, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

from gymrail.environment import Environment, Reply, ToolServer, servers_of, user_message
from gymrail.errors import (
    EpisodeClosed,
    EpisodeFailed,
    Failure,
    InputError,
    Stage,
    ToolError,
    attempt,
    did_you_mean,
    guard,
)
from gymrail.limits import DEFAULT_LIMITS, Limits
from gymrail.rollout import Outcome, Reason, Rollout, ToolCall, Verdict, check_reward, new_id
from gymrail.task import Item, Task
from gymrail.tools import ToolSpec, dump_json, invoke, printable, render

if TYPE_CHECKING:
    from gymrail.spec import EnvironmentSpec


class Episode:
    """A live environment instance with its journal. Make one with `Episode.open`."""

    __slots__ = (
        "_calls_by_id", "_closed", "_failure", "_lock", "_opened", "_running", "_touched", "_verifying",
        "environment", "limits", "refused_by", "rollout", "spec", "table",
    )  # fmt: skip

    def __init__(
        self,
        spec: EnvironmentSpec,
        task: Task,
        rollout: Rollout,
        limits: Limits,
        environment: Environment[Any] | None = None,
    ) -> None:
        self.spec = spec
        self.rollout = rollout
        self.limits = limits
        self.table = spec.offered(task)
        """The tools that this task offers, by name."""
        self.environment: Environment[Any] = spec.cls() if environment is None else environment
        self.environment.task = task
        self._calls_by_id: dict[str, ToolCall] = {}
        self._running: dict[str, asyncio.Future[None] | None] = {}
        """The calls that are under way, each with the future that somebody waits on."""
        self._opened = self._touched = time.monotonic()
        self._failure: Failure | None = None
        self._closed = False
        self.refused_by: Reason | None = None
        """The limit by which a tool call was not run; the rollout ends there."""
        self._verifying: asyncio.Future[Verdict] | None = None
        self._lock = None if task.allows_parallel_calls else asyncio.Lock()

    @classmethod
    async def open(
        cls,
        spec: EnvironmentSpec,
        task: Task,
        *,
        limits: Limits = DEFAULT_LIMITS,
        task_index: int = 0,
        repeat: int = 0,
        attempt: int = 1,
        id: str | None = None,
    ) -> Episode:
        """Make the instance and seed it.

        Raises:
            EpisodeFailed: `setup` or `seed` broke or took too long.
            InputError: the task offers a tool that the environment does not have.
        """
        prompt = task.input_items
        rollout = Rollout(spec.name, task, id or new_id(), task_index, repeat, attempt, prompt, len(prompt))
        spec.offered(task)
        shared = await spec.setup()
        episode = cls(spec, task, rollout, limits, await guard("seed", spec.cls))
        environment = episode.environment
        environment.config = spec.config
        environment.shared = shared
        try:
            for attribute, server in servers_of(spec.cls).items():
                setattr(environment, attribute, await guard("seed", server))
            await guard("seed", environment.seed, timeout_seconds=limits.seed_seconds)
            if environment.task is not task:
                await guard("seed", episode._open_with, environment.task)
        except EpisodeFailed as error:
            episode._failure = error.failure
            await episode.close()
            raise
        except asyncio.CancelledError:
            await episode.close()
            raise
        return episode

    def _open_with(self, task: Task) -> None:
        """Go on with the task that `seed` set: its prompt and its tools were not known before."""
        prompt = task.input_items
        self.table = self.spec.offered(task)
        self._lock = None if task.allows_parallel_calls else asyncio.Lock()
        self.rollout.task, self.rollout.conversation, self.rollout.prompt_length = task, prompt, len(prompt)

    @property
    def task(self) -> Task:
        return self.environment.task

    @property
    def tool_schemas(self) -> list[dict[str, Any]]:
        """The offered tools as Responses function tools: the row's own wording where the row brings it."""
        return self.spec.tool_schemas(self.task)

    @property
    def is_done(self) -> bool:
        return self.environment.done

    @property
    def is_closed(self) -> bool:
        return self._closed

    @property
    def failure(self) -> Failure | None:
        return self._failure

    @property
    def is_expired(self) -> bool:
        """Whether the time to live or the episode's own limit ran out; an episode with a call under way is not idle."""
        now = time.monotonic()
        return now - self._opened > self.limits.episode_seconds or (
            not self._running and now - self._touched > self.limits.idle_seconds
        )

    @property
    def remaining_seconds(self) -> float:
        return max(0.0, self._opened + self.limits.episode_seconds - time.monotonic())

    @property
    def seconds(self) -> float:
        """Since the opening."""
        return time.monotonic() - self._opened

    def touch(self) -> None:
        """Start the time to live anew: its agent is at work, though it calls nothing."""
        self._touched = time.monotonic()

    def fresh_call_id(self, call_id: str) -> str:
        """Return `call_id`, or one made from it where this episode has a call of that id already."""
        while call_id in self._calls_by_id:
            call_id = f"{call_id}#{len(self._calls_by_id)}"
        return call_id

    async def call(self, name: str, arguments: str | bytes | dict[str, Any], call_id: str | None = None) -> ToolCall:
        """Run one tool call and journal it. A repeated `call_id` returns the recorded call instead of doing the deed
        twice.

        An unknown tool, arguments that do not validate and `ToolError` give a call with `is_error` and a text for the
        model.

        Raises:
            EpisodeFailed: the tool broke, or a deadline passed; the episode is failed from now on.
            EpisodeClosed: closed, judged, expired, or out of tool calls.
            InputError: `call_id` was used before for another call, or `arguments` is no JSON.
        """
        arguments = _as_text(arguments)
        key = call_id or f"call_{len(self.rollout.calls)}_{new_id()[:8]}"
        known = self._calls_by_id.get(key)
        if known is not None:
            return await self._recorded(known, name, arguments)
        await self._check_usable("tool")
        limit = self.limits.tool_call_limit
        if limit is not None and len(self.rollout.calls) >= limit:
            self.refused_by = "tool_call_limit"
            raise EpisodeClosed(f"This episode has had its {limit} tool calls and takes no more.")
        call = ToolCall(key, name, arguments)
        self._calls_by_id[key] = call
        self._running[key] = None
        self.rollout.calls.append(call)
        started = time.perf_counter()
        try:
            if self._lock is None:
                await self._run(call)
            else:
                async with self._lock:
                    if self._failure is not None:  # the call before it failed
                        raise EpisodeFailed(self._failure)
                    await self._run(call)
        except EpisodeFailed as error:
            self._failure = self._failure or error.failure
            raise
        except asyncio.CancelledError:
            # Half a deed may be done: nothing that is judged after this could be trusted.
            self._failure = self._failure or Failure("infrastructure", "tool", f"the call of {name!r} was cancelled")
            raise
        finally:
            call.seconds = time.perf_counter() - started
            self.rollout.timing.tools += call.seconds
            waiter = self._running.pop(key)
            if waiter is not None:
                waiter.set_result(None)
            self._touched = time.monotonic()
        return call

    async def _recorded(self, call: ToolCall, name: str, arguments: str) -> ToolCall:
        if (call.name, call.arguments) != (name, arguments):
            raise InputError(
                f"call_id {call.call_id!r} belongs to another call of this episode ({call.name}); use a new id."
            )
        await self._finished(call.call_id)
        if self._failure is not None:
            raise EpisodeFailed(self._failure)
        return call

    async def _finished(self, key: str) -> None:
        """Wait until a call is over, whatever became of it; its own limit bounds the wait."""
        if key in self._running:
            waiter = self._running[key]
            if waiter is None:
                waiter = self._running[key] = asyncio.get_running_loop().create_future()
            await asyncio.shield(waiter)

    async def _run(self, call: ToolCall) -> None:
        spec = self.table.get(call.name)
        try:
            if spec is None:
                raise ToolError(f"Unknown tool {call.name!r}. {_available(call.name, self.table)}")
            call.output = await self._invoke(spec, call.arguments)
        except ToolError as error:
            call.is_error = True
            call.output = str(error)
        if type(self.environment).after_call is not Environment.after_call:
            await self._tell(call)

    async def _tell(self, call: ToolCall) -> None:
        try:
            await guard("tool", self.environment.after_call, call, timeout_seconds=self.limits.call_seconds)
        except ToolError as error:
            failure = Failure("environment", "tool", f"after_call raised ToolError: {error}")
            raise EpisodeFailed(failure) from error

    async def _invoke(self, spec: ToolSpec, arguments: str) -> Any:
        values = spec.parse(arguments)
        owner: ToolServer = self.environment if spec.server is None else getattr(self.environment, spec.server)
        function = getattr(owner, spec.method)
        limit = min(spec.options.timeout_seconds or self.limits.call_seconds, self.remaining_seconds)
        if spec.options.blocking:
            result = await guard("tool", invoke, function, values, timeout_seconds=limit)
        else:
            result = await guard("tool", lambda: function(**values), timeout_seconds=limit)
        return result if isinstance(result, str) and result.isascii() else await guard("tool", render, result)

    async def reply(self) -> Item | None:
        """Ask the environment for the next user turn; None when the talk is over."""
        await self._check_usable("reply")
        limit = min(self.limits.call_seconds, self.remaining_seconds)
        try:
            answer = await guard("reply", self.environment.reply, self.rollout, timeout_seconds=limit)
            turn = await guard("reply", _as_reply, answer)
        except EpisodeFailed as error:
            self._failure = self._failure or error.failure
            raise
        self._touched = time.monotonic()
        if turn is None:
            return None
        if turn.reward is not None:
            self.rollout.step_rewards.append(float(turn.reward))
        return user_message(turn.content)

    async def verify(self) -> Verdict:
        """Judge the episode once; asked again, the same verdict. The reward is finite and inside the declared range.

        Raises:
            EpisodeFailed: the episode had failed, the verifier broke, or the reward is not valid.
        """
        if self._verifying is None:
            await self._check_usable("verify")
            self._verifying = self._begin_verifying()
        try:
            return await asyncio.shield(self._verifying)
        except asyncio.CancelledError:
            if self._closed and self._verifying.cancelled():
                raise EpisodeClosed("This episode was closed before it was judged; seed a new one.") from None
            raise

    def _begin_verifying(self) -> asyncio.Future[Verdict]:
        """Judge in a task of its own, which outlives a caller that is cancelled; a plain `verify` at once."""
        verify = self.environment.verify
        if self._running or inspect.iscoroutinefunction(verify):
            return asyncio.ensure_future(self._verify(verify))
        started = time.perf_counter()
        answer, error = attempt(verify, self.rollout)
        judging = self._verify(lambda _: _answered(answer, error), started)
        if inspect.isawaitable(answer):
            return asyncio.ensure_future(judging)
        # With the answer at hand nothing in it waits, and a task would cost more than many a verifier.
        judged: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        _, stopped = attempt(judging.send, None)
        if isinstance(stopped, StopIteration):
            judged.set_result(stopped.value)
        elif isinstance(stopped, Exception):
            judged.set_exception(stopped)
        else:
            assert stopped is not None, "judging did not wait"
            raise stopped
        # Its traceback leads back to this frame, so the record would stay in memory until Python looks for cycles.
        del stopped
        return judged

    async def _verify(self, verify: Callable[[Rollout], Any], started: float | None = None) -> Verdict:
        while self._running:
            await self._finished(next(iter(self._running)))
        started = time.perf_counter() if started is None else started
        limit = min(self.limits.verify_seconds, self.remaining_seconds)
        rollout = self.rollout
        try:
            if self._failure is not None:
                raise EpisodeFailed(self._failure)
            answer = await guard("verify", verify, rollout, timeout_seconds=limit)
            verdict = await guard("verify", _as_verdict, answer)
            check_reward(verdict, self.spec.reward_range)
        except EpisodeFailed as error:
            self._failure = error.failure
            raise
        finally:
            rollout.timing.verify = time.perf_counter() - started
        rollout.reward = float(verdict.reward)
        rollout.reward_components = {name: float(value) for name, value in verdict.reward_components.items()}
        rollout.metrics.update(verdict.metrics)
        rollout.verdict_reason = verdict.reason
        return verdict

    async def close(self) -> None:
        """Give everything back; safe to call again. A verifier that still runs is stopped. A hook that breaks here
        changes no outcome: it is recorded as `metrics["close_error"]`."""
        if self._closed:
            return
        self._closed = True
        if self._verifying is not None and not self._verifying.done():
            self._verifying.cancel()
            await asyncio.wait([self._verifying], timeout=self.limits.call_seconds)
        servers: Sequence[ToolServer] = [
            getattr(self.environment, name) for name in servers_of(self.spec.cls) if name in vars(self.environment)
        ]
        for server in (self.environment, *servers):
            try:
                await guard("close", server.close, timeout_seconds=self.limits.call_seconds)
            except EpisodeFailed as error:
                self.rollout.metrics["close_error"] = str(error)

    async def _check_usable(self, stage: Stage) -> None:
        if self._failure is not None:
            raise EpisodeFailed(self._failure)
        if self._closed:
            raise EpisodeClosed("This episode is closed; seed a new one.")
        if self._verifying is not None:
            raise EpisodeClosed("This episode has been judged and takes no more calls; seed a new one.")
        if not self.is_expired:
            self._touched = time.monotonic()
            return
        if self.remaining_seconds <= 0:
            message = f"the episode took longer than {self.limits.episode_seconds:g} seconds"
            self._failure = Failure("timeout", stage, message)
            raise EpisodeFailed(self._failure)
        await self.close()
        raise EpisodeClosed(
            f"This episode was idle for more than {self.limits.idle_seconds:g} seconds and was closed; seed a new one."
        )

    def finish(self, outcome: Outcome) -> Rollout:
        """Stamp the outcome and the time on the record and return it."""
        rollout = self.rollout
        rollout.outcome = outcome
        rollout.timing.total = time.monotonic() - self._opened
        if self.limits.prices is not None:
            rollout.cost = self.limits.prices.cost(rollout.usage)
        if outcome.status in ("failed", "cancelled"):
            rollout.reward, rollout.reward_components = None, {}
        assert outcome.status != "scored" or rollout.reward is not None, "a scored rollout has been verified"
        return rollout


def _as_text(arguments: str | bytes | dict[str, Any]) -> str:
    """A call's arguments as the journal has them: JSON text that UTF-8 can carry."""
    if isinstance(arguments, bytes):
        return arguments.decode("utf-8", "replace")
    if isinstance(arguments, str):
        return printable(arguments)
    try:
        return dump_json(arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"Arguments {arguments!r} are no JSON: {error}.") from None


def _answered(answer: Any, error: BaseException | None) -> Any:
    if error is not None:
        raise error
    return answer


def _as_verdict(value: Any) -> Verdict:
    if isinstance(value, Verdict):
        for name, metric in value.metrics.items():
            if not isinstance(metric, Real | str | None):
                raise TypeError(f"metric {name!r} is {metric!r}; a metric is a number, a text or None")
        return value
    if isinstance(value, Real):  # numpy's numbers are too
        return Verdict(float(value))
    raise TypeError(f"verify returned {value!r}; return a Verdict or a number")


def _as_reply(value: Any) -> Reply | None:
    if value is None:
        return None
    reply = value if isinstance(value, Reply) else Reply(value)
    content = reply.content
    if not isinstance(content, str) and not (
        isinstance(content, list) and all(isinstance(part, dict) for part in content)
    ):
        raise TypeError(f"reply returned {value!r}; return text, content parts, a Reply or None")
    if reply.reward is not None and not (isinstance(reply.reward, Real) and math.isfinite(reply.reward)):
        raise EpisodeFailed(
            Failure("reward", "reply", f"the step reward is {reply.reward!r}; it must be a finite number")
        )
    return reply


def _available(name: str, table: dict[str, ToolSpec]) -> str:
    return did_you_mean(name, table).replace("Allowed:", "Available tools:")
