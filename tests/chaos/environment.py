"""The environment of the chaos test: a mixer whose reward depends on every word of the conversation.

    {"responses_create_params": {"input": "Start at 417 and mix 3 times."}, "start": 417, "steps": 3, "fate": "sound"}

A call that is lost, made twice, or made in another episode changes the mixer's state, what its tools answer from then
on, and with it the reward. `next_turn` is the model: what it says follows from the conversation alone.

Some tasks always break (`fate`). Where the variable GYMRAIL_CHAOS is "SEED:RATE:DEADLY", sound tasks' tools break too,
at that rate: they hang past their limit, lose what they run on, or raise; and at the deadly rate they take their whole
process with them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from hashlib import blake2b
from random import Random
from typing import Any, ClassVar, Literal, Self

from gymrail import Environment, Rollout, Task, tool
from gymrail.environment import Call
from gymrail.errors import InfrastructureError, VerifierError
from gymrail.rollout import Verdict, text_of

VARIABLE = "GYMRAIL_CHAOS"
FATES = {"crashes": 0.02, "hangs": 0.004, "unjudged": 0.006}
"""How many of the tasks always break, and how: in a tool, in a tool that never ends, in the verifier."""
_CALL_SECONDS = 1.0
_GRAINS = 1000
"""A reward is a multiple of 1/1000, as good as different for every conversation."""


class MixerTask(Task):
    """Mix so many times; the other fields are not told to the model."""

    start: int
    steps: int
    fate: Literal["sound", "crashes", "hangs", "unjudged"] = "sound"


class Mixer(Environment[MixerTask]):
    """Mix amounts into a state and answer with what came out."""

    task_type: ClassVar[type[Task]] = MixerTask

    @classmethod
    def generate(cls, rng: Random) -> MixerTask:
        start, steps = rng.randrange(10**9), rng.randint(1, 3)
        fate = rng.choices(["sound", *FATES], [1 - sum(FATES.values()), *FATES.values()])[0]
        return MixerTask.ask(f"Start at {start} and mix {steps} times.", start=start, steps=steps, fate=fate)

    @classmethod
    def setup(cls, config: Any) -> Faults:
        return Faults.from_variable()

    def seed(self) -> None:
        self.state = self.task.start
        self.mixed = 0

    @tool(timeout_seconds=_CALL_SECONDS)
    async def mix(self, amount: int) -> str:
        """Mix an amount in and return the new state.

        Args:
            amount: How much to mix in.
        """
        if self.mixed + 1 == self.task.steps:
            await self._meet_fate()
        fault = self.shared.draw()
        if fault == "hang":
            await asyncio.Event().wait()
        _raise(fault)
        self.state = number_of(self.state, amount)
        self.mixed += 1
        return f"The state is {self.state}."

    @tool(blocking=True, timeout_seconds=2 * _CALL_SECONDS)
    def weigh(self, amount: int) -> str:
        """Weigh an amount on the mixer's own scales.

        Args:
            amount: What to weigh.
        """
        fault = self.shared.draw()
        if fault == "hang":
            time.sleep(4 * _CALL_SECONDS)  # a thread cannot be interrupted: it goes on behind its episode's back
        _raise(fault)
        return f"It weighs {number_of(self.task.start, amount) % 100}."

    def verify(self, rollout: Rollout) -> Verdict:
        if self.task.fate == "unjudged":
            raise VerifierError("the judge of this task is never there")
        grain = number_of(self.task.start, self.task.steps, self.state, self.mixed, *story_of(rollout)) % _GRAINS
        return Verdict(reward=grain / _GRAINS, metrics={"mixed": self.mixed})

    async def _meet_fate(self) -> None:
        if self.task.fate == "crashes":
            raise RuntimeError("this mixer always breaks")
        if self.task.fate == "hangs":
            await asyncio.Event().wait()


class Faults:
    """What breaks next in the tools of this process."""

    def __init__(self, seed: str, rate: float, deadly: float) -> None:
        self._rng = Random(seed)
        self._rate = rate
        self._deadly = deadly

    @classmethod
    def from_variable(cls) -> Self:
        """Read the variable; without it nothing breaks. Each process has its own order of faults."""
        seed, rate, deadly = os.environ.get(VARIABLE, "0:0:0").split(":")
        return cls(f"{seed}:{os.getpid()}", float(rate), float(deadly))

    def draw(self) -> str | None:
        if self._rng.random() < self._deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._rng.random() >= self._rate:
            return None
        return self._rng.choice(("hang", "lost", "crash"))


def next_turn(said: Sequence[object], outputs: int, steps: int) -> list[Call] | str:
    """What the model says next.

    Args:
        said: the conversation, as texts and numbers.
        outputs: how often `mix` has answered.
        steps: how often the prompt asks for it.
    """
    number = number_of(*said)
    if outputs >= steps:
        return f"Done: {number}."
    calls = [Call("mix", {"amount": number % 10**6})]
    return calls if number % 2 else [*calls, Call("weigh", {"amount": number % 10**6})]


def story_of(rollout: Rollout) -> list[str]:
    """The conversation as texts, without the ids that differ from run to run."""
    story: list[str] = []
    for item in rollout.conversation:
        if item.get("type") == "function_call":
            story += ["call", item["name"], item["arguments"]]
        elif item.get("type") == "function_call_output":
            story += ["output", item["output"]]
        else:
            story += [item["role"], text_of(item)]
    return story


def number_of(*parts: object) -> int:
    """A number that changes with every part, equal on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=6).digest())


def _raise(fault: str | None) -> None:
    if fault == "lost":
        raise InfrastructureError("the mixer's sandbox was lost")
    if fault == "crash":
        raise OSError("the mixer is out of order")
