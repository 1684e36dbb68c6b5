"""The least an agent can do: a hand-written loop over aiohttp, as the yardstick for Gymrail's rollouts per second.

It makes the same Chat Completions calls over HTTP, sends the whole conversation each time, runs the tools in process
as plain functions and verifies the result. It validates no argument, retries nothing and records nothing.

The event loop is the caller's choice: a comparison is fair only when both sides run on the same one. Keep this file as
fast as a person would write it: a slow yardstick flatters us.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import aiohttp
import orjson
from yarl import URL

Json = dict[str, Any]

SYSTEM_PROMPT = (
    "You are a careful assistant with access to tools. Read the user's request, decide which tool to call, call it "
    "with arguments that match its schema, and read its output before you decide what to do next. Never invent a tool, "
    "an argument or an output. When a tool reports an error, correct your arguments and try again. Once you have all "
    "that you need, answer the user in one short sentence, without any further tool call."
)


class Result(NamedTuple):
    """What one run of the loop reached."""

    rollouts_per_second: float
    cpu_ms_per_rollout: float
    """CPU time of this process, all threads; the endpoint's own process is not in it."""


async def run_bare(workload: str, url: str, rollouts: int, concurrency: int) -> Result:
    """Play `rollouts` rollouts against the endpoint at base `url`, `concurrency` at a time; opening connections counts.

    Raises a group of RuntimeError when a rollout's reward is not 1, because its time would then mean nothing.
    """
    new_episode = _EPISODES[workload]
    completions = URL(f"{url}/chat/completions")
    indices = iter(range(rollouts))
    # The cookie jar, automatic headers and a timeout object per request each cost CPU; trust_env costs twice the rest.
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Content-Type": "application/json", "Authorization": "Bearer none"},
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
        timeout=aiohttp.ClientTimeout(total=600),
    ) as session:
        started, cpu_started = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, rollouts)):
                group.create_task(_play_all(indices, new_episode, session, completions))
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    return Result(rollouts / seconds, 1000 * cpu_seconds / rollouts)


class Answering:
    """W1: a question without tools."""

    question = "What is six times seven? Answer in one sentence that ends with the number."
    tools: ClassVar[list[Json]] = []

    def __init__(self, index: int) -> None:
        self.functions: dict[str, Callable[..., str]] = {}

    def verify(self, answer: str) -> float:
        """1 when the answer names the product."""
        return float(answer.rstrip(".").endswith("42"))


class Weather:
    """W2 and W4: five look-ups without state."""

    question = "In how many of Amsterdam, Berlin, Cairo, Delhi and Edmonton is it cold today? Look each of them up."
    tools: ClassVar[list[Json]] = [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "Get today's weather in a city.",
                "parameters": {
                    "type": "object",
                    "properties": {"city": {"type": "string", "description": "The name of the city."}},
                    "required": ["city"],
                    "additionalProperties": False,
                },
                "strict": True,
            },
        }
    ]

    def __init__(self, index: int) -> None:
        self.asked: set[str] = set()
        self.functions: dict[str, Callable[..., str]] = {"get_weather": self.get_weather}

    def get_weather(self, city: str) -> str:
        """The tool: the weather, always cold."""
        self.asked.add(city)
        return f"The weather in {city} is cold."

    def verify(self, answer: str) -> float:
        """1 when all five cities were looked up and the answer counts them."""
        return float(len(self.asked) == 5 and "five" in answer)


class Counter:
    """W3: a counter seeded per task, which the model raises by 5 and reads."""

    question = "Add 2 to the counter, then 3, then tell me that it is set. Read it before you answer."
    tools: ClassVar[list[Json]] = [
        {
            "type": "function",
            "function": {
                "name": "increment_counter",
                "description": "Add to the counter.",
                "parameters": {
                    "type": "object",
                    "properties": {"count": {"type": "integer", "description": "How much to add."}},
                    "required": ["count"],
                    "additionalProperties": False,
                },
                "strict": True,
            },
        },
        {
            "type": "function",
            "function": {
                "name": "get_counter_value",
                "description": "Read the counter.",
                "parameters": {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
                "strict": True,
            },
        },
    ]

    def __init__(self, index: int) -> None:
        self.count = index % 100
        self.expected_count = self.count + 5
        self.functions: dict[str, Callable[..., str]] = {
            "increment_counter": self.increment_counter,
            "get_counter_value": self.get_counter_value,
        }

    def increment_counter(self, count: int) -> str:
        """The tool that writes."""
        self.count += count
        return f"The counter is now {self.count}."

    def get_counter_value(self) -> str:
        """The tool that reads."""
        return str(self.count)

    def verify(self, answer: str) -> float:
        """1 when the counter has the expected value, whatever the answer says."""
        return float(self.count == self.expected_count)


Episode = Answering | Weather | Counter
_EPISODES: dict[str, type[Answering] | type[Weather] | type[Counter]] = {
    "W1": Answering,
    "W2": Weather,
    "W3": Counter,
    "W4": Weather,
}


async def _play_all(
    indices: Iterator[int], new_episode: Callable[[int], Episode], session: aiohttp.ClientSession, completions: URL
) -> None:
    for index in indices:
        reward = await _play(new_episode(index), session, completions)
        if reward != 1:
            raise RuntimeError(f"The bare loop's rollout {index} got reward {reward!r} and not 1.")


async def _play(episode: Episode, session: aiohttp.ClientSession, completions: URL) -> float:
    messages: list[Json] = [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": episode.question},
    ]
    request: Json = {"model": "mock", "messages": messages}
    if episode.tools:
        request["tools"] = episode.tools
    while True:
        async with session.post(completions, data=orjson.dumps(request)) as response:
            body = await response.read()
            if response.status != 200:
                raise RuntimeError(f"The endpoint answered {response.status} with {body[:200]!r}.")
        message = orjson.loads(body)["choices"][0]["message"]
        tool_calls = message.get("tool_calls")
        if not tool_calls:
            return episode.verify(message["content"])
        messages.append(message)
        for call in tool_calls:
            function = call["function"]
            output = episode.functions[function["name"]](**orjson.loads(function["arguments"]))
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": output})
