"""Support talks whose tools are described by the row and simulated: answered from the row's records, or by a model.

One row, shortened:

    {"responses_create_params": {"input": [{"role": "system", "content": "...policy..."}, {"role": "user", "content":
     "Hello! I would like to renew 'The Salt Road'."}]}, "policy": "...", "tools": [{"type": "function", "name":
     "find_member", "parameters": {...}}], "customer_scenario": {"customer_persona": "...", "reason_for_contact": "...",
     "customer_details": "...", "unknown_info": "...", "task_instructions": "..."}, "must_tell": ["4 May"],
     "expected_calls": [{"name": "renew_loan", "arguments": {"card": "L-2041", "book_id": "b31"}}]}
"""

from __future__ import annotations

from collections.abc import Generator
from random import Random
from typing import Any, NamedTuple

import orjson
from pydantic import Field

from gymrail import Environment, Rollout, Task, ToolError, Verdict, call
from gymrail.environment import Call, Turn
from gymrail.errors import InputError
from gymrail.models.model import Model
from gymrail.models.settings import ModelSettings
from gymrail.rollout import ToolCall
from gymrail.users.casting import CustomerScenario, UserConfig, cast_user, close_player, open_player
from gymrail.users.scripted import UserScript
from gymrail.users.simulated import SimulatedTools
from gymrail.verifiers.judge import Judge, JudgeSettings
from gymrail_environments.tool_simulation.library import Record, Step, make_scenario
from gymrail_environments.tool_simulation.scoring import POLICY_KEPT, check_arguments, faults_of, transcript


class SimulationConfig(UserConfig):
    tools: ModelSettings | None = None
    """The model that plays the tools; without one they answer from the row's `records`."""
    judge: JudgeSettings | None = None
    """The judge of rows without `expected_calls`: was the policy kept, and the customer helped?"""


class SimulationTask(Task):
    policy: str
    tools: list[dict[str, Any]]
    """Function tools, as Responses or Chat Completions have them."""
    customer_scenario: CustomerScenario
    user: UserScript = Field(default_factory=UserScript)
    records: list[Record] = Field(default_factory=list)
    expected_calls: list[dict[str, Any]] | None = None
    """The calls to make, in any order, of tools that are not `free_tools`. None leaves the verdict to the judge."""
    free_tools: list[str] = Field(default_factory=list)
    """Tools that only read."""
    end_tools: list[str] = Field(default_factory=list)
    """Tools that end the talk, such as a transfer."""
    must_tell: list[str] = Field(default_factory=list)
    must_not_tell: list[str] = Field(default_factory=list)
    hidden: list[str] = Field(default_factory=list)
    """Values that the customer cannot know; a player who says one is at fault."""
    steps: list[Step] = Field(default_factory=list)
    """How the oracle proceeds."""


class Shared(NamedTuple):
    user: Model | None
    tools: Model | None
    judge: Judge | None


class ToolSimulation(Environment[SimulationTask]):
    """The right calls were made and no others, what must be told was told, and the talk came to its end."""

    Config = SimulationConfig
    config: SimulationConfig
    shared: Shared

    @classmethod
    def setup(cls, config: SimulationConfig) -> Shared:
        judge = config.judge.judge(POLICY_KEPT) if config.judge else None
        return Shared(open_player(config), config.tools.build() if config.tools else None, judge)

    @classmethod
    async def teardown(cls, shared: Shared) -> None:
        for model in (shared.user, shared.tools, shared.judge.model if shared.judge else None):
            await close_player(model)

    @classmethod
    def generate(cls, rng: Random) -> SimulationTask:
        opening, system, fields = make_scenario(rng)
        return SimulationTask.ask(opening, system=system, **fields)

    def seed(self) -> None:
        task, config, shared = self.task, self.config, self.shared
        if task.expected_calls is None and shared.judge is None:
            raise InputError(f"Task {task.id} has no 'expected_calls'; name a judge in the settings: judge.")
        self.user = cast_user(config, shared.user, task.user, task.customer_scenario, task.id, tuple(task.hidden))
        self.simulated = None
        if shared.tools is not None:
            case = orjson.dumps(task.model_dump(include={"policy", "customer_scenario", "records"})).decode()
            seed = f"{config.user_seed}:{task.id}"
            self.simulated = SimulatedTools(shared.tools, task.tools, case, seed=seed)
        self.has_ended = False
        self.task = task.opened(tools=task.tools)

    async def call_tool(self, tool: str, arguments: dict[str, Any]) -> Any:
        """Play a tool of the row."""
        check_arguments(tool, arguments, self.task.offered_tools or ())
        if self.simulated is not None:
            return await self.simulated.call(tool, arguments)
        for record in self.task.records:
            if record.name == tool and record.arguments in (None, arguments):
                if record.error is not None:
                    raise ToolError(record.error)
                return record.output
        raise ToolError(f"{tool} found nothing for {orjson.dumps(arguments).decode()}.")

    def after_call(self, call: ToolCall) -> None:
        self.done = self.done or (call.name in self.task.end_tools and not call.is_error)

    async def reply(self, rollout: Rollout) -> str | None:
        turn = await self.user.respond(rollout.conversation)
        self.has_ended = turn.ends
        return None if turn.ends else turn.text

    async def verify(self, rollout: Rollout) -> Verdict:
        task, judge = self.task, self.shared.judge
        if task.expected_calls is None:
            assert judge is not None, "seed refuses a task without a way to judge it"
            if not (self.has_ended or self.done):
                return Verdict(0.0, reason="the talk has not come to its end")
            instructions = task.customer_scenario.task_instructions
            return await judge(transcript(rollout.items), policy=task.policy, task=instructions)
        faults = [*faults_of(rollout, task.expected_calls, task.free_tools, task.must_tell, task.must_not_tell)]
        if not (self.has_ended or self.done):
            faults.append("the talk has not come to its end")
        return Verdict(float(not faults), metrics={"turns": len(rollout.answers)}, reason="; ".join(faults) or None)

    def solve(self) -> Generator[Turn, Any, None]:
        for step in self.task.steps:
            yield step.says if step.name is None else call(step.name, **step.arguments)

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Forget a change, or leave out what must be told."""
        if isinstance(turn, Call):
            return turn if turn.name in self.task.free_tools else "I could not do that."
        return "I have noted it." if isinstance(turn, str) and not turn.endswith("?") else turn
