"""Gymrail's side of the benchmark: the workloads of `mock_openai` as environments, tasks and scripts.

Prompts, tools and verification are those of `bare_loop`, so that both sides put the same work into a rollout.
"""

from __future__ import annotations

from collections.abc import Iterator

from bare_loop import SYSTEM_PROMPT, Answering, Counter, Weather
from mock_openai import WORKLOADS

from gymrail import Environment, Rollout, Task, tool
from gymrail.collect.runner import Job
from gymrail.environment import Call, Turn
from gymrail.models.scripted import ScriptedModel
from gymrail.registry import find
from gymrail.spec import EnvironmentSpec


class AnsweringEnvironment(Environment[Task]):
    """W1: one model call, verified."""

    def verify(self, rollout: Rollout) -> float:
        return float(rollout.final_text.rstrip(".").endswith("42"))


class WeatherEnvironment(Environment[Task]):
    """W2 and W4: five tool calls, verified."""

    def seed(self) -> None:
        self.asked: set[str] = set()

    @tool
    def get_weather(self, city: str) -> str:
        """Get today's weather in a city.

        Args:
            city: The name of the city.
        """
        self.asked.add(city)
        return f"The weather in {city} is cold."

    def verify(self, rollout: Rollout) -> float:
        return float(len(self.asked) == 5 and "five" in rollout.final_text)


def spec_of(workload: str) -> EnvironmentSpec:
    """The workload's environment; W3 is the reference environment `session_counter`."""
    if workload == "W3":
        return find("session_counter")
    return EnvironmentSpec(workload, AnsweringEnvironment if workload == "W1" else WeatherEnvironment)


def jobs_of(spec: EnvironmentSpec, workload: str, rollouts: int) -> Iterator[Job]:
    """One task after another; only the first rollout may pay for loading anything."""
    for index in range(rollouts):
        yield Job(spec, _task(spec, workload, index), index)


def script_of(workload: str) -> ScriptedModel:
    """What the mocked endpoint answers, in process."""
    turns: list[Turn] = [Call(call.name, call.arguments) for call in WORKLOADS[workload].tool_calls]
    return ScriptedModel([*turns, WORKLOADS[workload].answer])


def _task(spec: EnvironmentSpec, workload: str, index: int) -> Task:
    if workload == "W3":
        start = index % 100
        fields = {"initial_count": start, "expected_count": start + 5}
        return spec.cls.task_type.ask(Counter.question, system=SYSTEM_PROMPT, **fields)
    question = Answering.question if workload == "W1" else Weather.question
    return Task.ask(question, system=SYSTEM_PROMPT)
