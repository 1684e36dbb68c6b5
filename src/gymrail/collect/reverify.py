"""Judge a run again with today's verifier.

    summary = await reverify(run.rollouts(), {"counter": spec}, into=new_run, on_change=print)

A stateless environment (no tools, no `seed`, `reply` or `after_call` of its own) is judged from the record. Any other
is played again from its journal on a fresh episode; a rollout that comes out otherwise cannot be judged: its reward
would belong to another conversation than the one recorded. What cannot be judged is `failed`, and has no reward.

Another program's tools may have said the same in other words (`{"count": 7}` for `7`): with `any_outputs` what the
tools answer is not compared, and the verdict is on the state that the same calls lead to.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from gymrail.collect.journal import key_of
from gymrail.collect.replay import replay
from gymrail.collect.run_directory import RunDirectory
from gymrail.environment import Environment
from gymrail.episode import Episode
from gymrail.errors import EpisodeFailed, Failure, InputError
from gymrail.rollout import Outcome, Rollout, Verdict
from gymrail.spec import EnvironmentSpec

_SAME = 1e-9
_AHEAD = 4
"""Rollouts that may be judged and wait for a slow one before them, per episode at once."""


@dataclass(frozen=True, slots=True)
class Change:
    """A rollout whose reward is not what it was."""

    environment: str
    task_index: int
    repeat: int
    task_id: str
    id: str
    before: float | None
    """None where it had failed."""
    after: float | None
    """None where it cannot be judged now."""
    reason_before: str
    """What the verifier said of it, or the failure."""
    reason_after: str

    def row(self) -> dict[str, Any]:
        """The change as JSON."""
        return asdict(self)


@dataclass(slots=True)
class Reverified:
    """What became of a run's rollouts: `rollouts` is the sum of the other counts."""

    rollouts: int = 0
    unchanged: int = 0
    """Judged again, with the same reward."""
    changed: int = 0
    """Judged again, with another reward; those that had none included."""
    unjudged: int = 0
    """Cannot be judged again: they differ from their record, or the verifier failed."""
    kept: int = 0
    """Not asked for: the episode itself had failed, another environment, or `failed_only`."""
    earlier: int = 0
    """In the new run already, which goes on."""


def is_stateless(spec: EnvironmentSpec) -> bool:
    """Whether a verdict depends on the record alone: nothing that happens in an episode can change the instance."""
    hooks = ("seed", "reply", "after_call", "__init__")
    has_tools = spec.tools or hasattr(spec.cls, "call_tool")
    return not has_tools and all(getattr(spec.cls, name) is getattr(Environment, name) for name in hooks)


async def reverify(
    rollouts: Iterable[Rollout],
    specs: Mapping[str, EnvironmentSpec],
    *,
    into: RunDirectory,
    failed_only: bool = False,
    any_outputs: bool = False,
    concurrency: int = 16,
    on_change: Callable[[Change], None] | None = None,
) -> Reverified:
    """Judge rollouts again and write every one of them into a new run, in their order.

    Rollouts that `into` has already, scored or truncated, are left alone: an interrupted call goes on where it was.

    Args:
        specs: by environment; rollouts of others are kept as they are.
        failed_only: only those whose verifier failed (a judge that was down).
        any_outputs: judge rollouts whose tools answered otherwise than they do now.
        concurrency: episodes at once.
        on_change: told of each change of a reward, and of each rollout that cannot be judged, before it is written.

    Raises:
        JournalError: the new run cannot be written.
    """
    summary, done = Reverified(), into.done
    free = asyncio.Semaphore(concurrency)
    waiting: deque[tuple[Rollout, asyncio.Task[Rollout | None]]] = deque()

    async def judge(rollout: Rollout) -> Rollout | None:
        async with free:
            return await _again(specs, rollout, failed_only, any_outputs)

    async def write_first() -> None:
        before, judging = waiting[0]
        after = await judging
        waiting.popleft()
        change = _count(summary, before, after)
        if change is not None and on_change is not None:
            on_change(change)
        into.record(after or before)

    try:
        for rollout in rollouts:
            if key_of(rollout) in done:
                summary.rollouts += 1
                summary.earlier += 1
                continue
            waiting.append((rollout, asyncio.ensure_future(judge(rollout))))
            if len(waiting) >= _AHEAD * concurrency:
                await write_first()
        while waiting:
            await write_first()
    finally:
        for _, judging in waiting:
            judging.cancel()
        await asyncio.gather(*(judging for _, judging in waiting), return_exceptions=True)
    return summary


async def rejudge(spec: EnvironmentSpec, rollout: Rollout, *, any_outputs: bool = False) -> Rollout:
    """Return a rollout with the verdict of today's verifier; failed, with the reason, where there is none."""
    try:
        known = replace(rollout, task=spec.cls.task_type.from_row(rollout.task.row, f"task of rollout {rollout.id}"))
        if is_stateless(spec):
            verdict = await _from_record(spec, known)
        else:
            verdict = await _from_replay(spec, known, any_outputs)
    except EpisodeFailed as error:
        return _unjudged(rollout, error.failure)
    except InputError as error:
        hint = "" if rollout.group is None else " --tasks FILE gives the fields that the rollouts leave out."
        return _unjudged(rollout, Failure("environment", "verify", f"{error}{hint}"))
    before = rollout.outcome
    reason = before.reason if before else None
    return replace(
        rollout,
        outcome=Outcome("truncated" if reason else "scored", reason=reason),
        reward=float(verdict.reward),
        reward_components={name: float(value) for name, value in verdict.reward_components.items()},
        metrics={**rollout.metrics, **verdict.metrics},
        verdict_reason=verdict.reason,
    )


async def _again(
    specs: Mapping[str, EnvironmentSpec], rollout: Rollout, failed_only: bool, any_outputs: bool
) -> Rollout | None:
    spec = specs.get(rollout.environment)
    failure = rollout.failure
    is_wanted = failure.stage == "verify" if failure is not None else not failed_only
    return await rejudge(spec, rollout, any_outputs=any_outputs) if spec is not None and is_wanted else None


async def _from_record(spec: EnvironmentSpec, rollout: Rollout) -> Verdict:
    episode = await Episode.open(spec, rollout.task, task_index=rollout.task_index, repeat=rollout.repeat)
    try:
        live = episode.rollout
        live.id, live.model, live.attempt = rollout.id, rollout.model, rollout.attempt
        live.conversation, live.prompt_length = list(rollout.conversation), rollout.prompt_length
        live.calls, live.step_rewards = list(rollout.calls), list(rollout.step_rewards)
        live.steps, live.usage = rollout.steps, rollout.usage
        return await episode.verify()
    finally:
        await episode.close()


async def _from_replay(spec: EnvironmentSpec, rollout: Rollout, any_outputs: bool) -> Verdict:
    if not spec.manifest.reproducible:
        message = "environment.yaml says `reproducible: false`, so its state cannot be had again"
        raise EpisodeFailed(Failure("environment", "verify", message))
    result = await replay(spec, replace(rollout, reward=None))
    if result.failure is not None:
        raise EpisodeFailed(replace(result.failure, stage="verify"))
    allowed = result.other_outputs if any_outputs else ()
    differences = [difference for difference in result.differences if difference not in allowed]
    if differences:
        first, *others = differences
        more = f" (and {len(others)} more)" if others else ""
        message = f"played again it differs from its record: {first}{more}"
        raise EpisodeFailed(Failure("environment", "verify", message))
    assert result.verdict is not None
    return result.verdict


def _unjudged(rollout: Rollout, failure: Failure) -> Rollout:
    # The stage is `verify` whatever broke, so that a later reverify takes it up again; the reason too, for that one.
    reason = rollout.outcome.reason if rollout.outcome else None
    outcome = Outcome("failed", replace(failure, stage="verify"), reason)
    return replace(rollout, outcome=outcome, reward=None, reward_components={}, verdict_reason=None)


def _count(summary: Reverified, before: Rollout, after: Rollout | None) -> Change | None:
    summary.rollouts += 1
    if after is None:
        summary.kept += 1
        return None
    if after.reward is None:
        summary.unjudged += 1
    elif before.reward is not None and abs(after.reward - before.reward) <= _SAME:
        summary.unchanged += 1
        return None
    else:
        summary.changed += 1
    return Change(
        before.environment, before.task_index, before.repeat, before.task.id, before.id,
        before.reward, after.reward, _why(before), _why(after),
    )  # fmt: skip


def _why(rollout: Rollout) -> str:
    if rollout.failure is not None:
        return f"{rollout.failure.kind}: {rollout.failure.message}"
    if rollout.verdict_reason:
        return rollout.verdict_reason
    parts = [f"{name} {value:g}" for name, value in rollout.reward_components.items()]
    return ", ".join(parts)
