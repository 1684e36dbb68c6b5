"""The policy behind an OpenAI-compatible endpoint, asked over loopback as any program would: chat completions with
tools, token ids and log-probs, a next turn that continues what was sampled, whole episodes over Responses."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from gymrail.agents.tool_loop import ToolLoop
from gymrail.collect.event_loop import run_async
from gymrail.collect.runner import Job, collect
from gymrail.messages import TOKEN_FIELDS, chat_tools, to_messages
from gymrail.models.model import Model
from gymrail.models.openai import EndpointSettings, OpenAIModel
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task
from gymrail.tokens import TokenError, first_difference, sequences_of, token_problem
from gymrail.validation.plan import Plan
from gymrail.validation.report import Line, Points

POINTS, TOKENS = Points("endpoint"), Points("tokens")
TASKS = 4
"""Tasks of each environment that are asked about, and played."""
REPEATS = 2
_SECONDS = 300.0
_OK = 200


def check_endpoint(plan: Plan, model: Model, played: list[Rollout] | None = None) -> Iterator[Line]:
    """Serve the policy, ask it over HTTP, and let our agent play episodes with it.

    Args:
        played: filled with those episodes.
    """
    try:
        from gymrail.serving.loopback import serve_on_loopback
        from gymrail.serving.model import ModelSettings, create_model_app
    except ImportError as error:
        for name in ("chat completions", "tool calls", "token ids", "next turn"):
            yield POINTS.skipped(name, f"serving needs a package: {error}", "pip install 'gymrail[serve]'")
        yield TOKENS.skipped("episodes", "no endpoint to play with", "pip install 'gymrail[serve]'")
        return

    async def ask() -> tuple[_Asked, list[Rollout]]:
        async with serve_on_loopback(create_model_app(model, ModelSettings(name="policy"))) as url:
            asked = await _ask(plan, f"{url}/v1/chat/completions")
            return asked, await _play(plan, f"{url}/v1")

    asked, rollouts = run_async(ask())
    if played is not None:
        played += rollouts
    yield from asked.lines()
    yield _episodes(rollouts)


@dataclass(slots=True)
class _Asked:
    """What came of two chat completions for each task: the first turn, and the one that follows it."""

    answers: int = 0
    tokens: int = 0
    with_tools: int = 0
    """Requests that offered tools."""
    calls: int = 0
    """Of those, answers that called one."""
    continued: int = 0
    refused: list[str] = field(default_factory=list)
    calls_wrong: list[str] = field(default_factory=list)
    tokens_wrong: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[Line]:
        log = "The server's log says why; `gymrail serve-model` serves a checkpoint by itself."
        detail = f"{self.answers} of {self.answers} requests answered on /v1/chat/completions"
        yield POINTS.judged("chat completions", self.refused, detail, log)
        yield self._calls()
        if not self.answers:
            for name in ("token ids", "next turn"):
                yield POINTS.skipped(name, "nothing was answered", "See chat completions.")
            return
        detail = f"{self.tokens} sampled ids in {self.answers} answers, each with its log-prob"
        fix = (
            "Serve the model with its token ids: vLLM with return_token_ids, NeMo Gym with return_token_id_information."
        )
        yield POINTS.judged("token ids", self.tokens_wrong, detail, fix)
        if self.tokens_wrong:
            yield POINTS.skipped("next turn", "answers carry no usable token ids", "See token ids.")
            return
        detail = f"{self.continued} of {self.continued} second prompts begin with what was sampled, id for id"
        fix = (
            "The server must continue the ids that it is sent (prompt_token_ids, generation_token_ids): docs/tokens.md."
        )
        yield POINTS.judged("next turn", self.broken, detail, fix)

    def _calls(self) -> Line:
        if not self.with_tools:
            return POINTS.skipped("tool calls", "no environment of the recipe has tools")
        if not self.calls and not self.calls_wrong:
            why = f"the policy called no tool in {self.with_tools} answers, so there was none to read"
            return POINTS.skipped("tool calls", why, "Give a policy that does: --model PATH.")
        detail = (
            f"{self.calls} of {self.with_tools} answers to requests with tools call one, as JSON of an offered tool"
        )
        return POINTS.judged(
            "tool calls", self.calls_wrong, detail, "See docs/tokens.md for the formats that are read."
        )


async def _ask(plan: Plan, url: str) -> _Asked:
    asked = _Asked()
    for spec, _, task in plan.tasks(TASKS):
        await _ask_about(spec, task, url, asked)
    return asked


async def _ask_about(spec: EnvironmentSpec, task: Task, url: str, asked: _Asked) -> None:
    tools = chat_tools(spec.tool_schemas(task))
    messages = to_messages(task.input_items, instructions=task.responses_create_params.get("instructions"))
    body: dict[str, Any] = {"model": "policy", "messages": messages, **({"tools": tools} if tools else {})}
    first = await _post(url, body, asked)
    if first is None:
        return
    names = {tool["function"]["name"] for tool in tools}
    asked.with_tools += bool(names)
    calls = first.get("tool_calls") or []
    asked.calls += bool(calls)
    asked.calls_wrong += [problem for call in calls if (problem := _call_problem(call, names)) is not None]
    if not _note_tokens(first, asked):
        return
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in calls]
    said = results or [{"role": "user", "content": "Go on."}]
    second = await _post(url, {**body, "messages": [*messages, first, *said]}, asked)
    if second is None or not _note_tokens(second, asked):
        return
    before = [*first["prompt_token_ids"], *first["generation_token_ids"]]
    prompt = second["prompt_token_ids"]
    if prompt[: len(before)] == before:
        asked.continued += 1
    else:
        at = first_difference(before, prompt)
        asked.broken.append(f"{spec.name}: the second prompt differs from what was sampled at token {at}")


async def _post(url: str, body: Mapping[str, Any], asked: _Asked) -> dict[str, Any] | None:
    """Ask, with a client that is not ours; return the answer's message."""
    status, text = await asyncio.to_thread(_request, url, orjson.dumps(body))
    if status != _OK:
        asked.refused.append(f"a request was answered with status {status}: {text[:200]}")
        return None
    asked.answers += 1
    return orjson.loads(text)["choices"][0]["message"]


def _request(url: str, body: bytes) -> tuple[int, str]:
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy does not know our loopback
    try:
        with direct.open(request, timeout=_SECONDS) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(errors="replace")
    except OSError as error:
        return 0, str(error)


def _note_tokens(message: Mapping[str, Any], asked: _Asked) -> bool:
    problem = token_problem(*(message.get(name) for name in TOKEN_FIELDS))
    if problem is not None:
        asked.tokens_wrong.append(f"an answer's {problem}")
        return False
    asked.tokens += len(message["generation_token_ids"])
    return True


def _call_problem(call: Mapping[str, Any], names: set[str]) -> str | None:
    """What of a call no client could run. That its arguments may not be what the tool wants is the policy's affair."""
    function = call.get("function") or {}
    if not call.get("id") or call.get("type") != "function":
        return f"a tool call has no id or no type: {call!r}"
    return None if isinstance(function.get("arguments"), str) and function.get("name") else f"no call: {call!r}"


async def _play(plan: Plan, url: str) -> list[Rollout]:
    rollouts: list[Rollout] = []
    recipe = plan.recipe
    jobs = [Job(spec, task, index, repeat) for spec, index, task in plan.tasks(TASKS) for repeat in range(REPEATS)]
    # As `trained_model`, which agents for trainers use, but a refusal is told at once instead of tried again.
    settings = EndpointSettings(token_ids="auto", carry_token_ids=True, max_retries=0)
    async with OpenAIModel("policy", url, api="responses", settings=settings) as model:
        await collect(
            jobs, model, agent=ToolLoop(recipe.agent.max_steps), concurrency=recipe.agent.concurrency, retries=0,
            on_rollout=rollouts.append,
        )  # fmt: skip
    return rollouts


def _episodes(rollouts: list[Rollout]) -> Line:
    """Every model call of an episode continues the one before, so that it is one training row."""
    problems: list[str] = []
    turns, whole, several = 0, 0, 0
    for rollout in rollouts:
        if rollout.failure is not None:
            problems.append(f"{rollout.environment}, task {rollout.task_index} failed: {rollout.failure.message}")
            continue
        try:
            chains = sequences_of(rollout)
        except TokenError as error:
            problems.append(str(error))
            continue
        turns += sum(1 for _ in rollout.model_calls())
        several += rollout.steps > 1
        whole += len(chains) == 1
        if len(chains) > 1:
            problems.append(
                f"{rollout.environment}, task {rollout.task_index}: a prompt does not continue what was sampled"
            )
    outcomes = Counter(rollout.environment for rollout in rollouts)
    detail = (
        f"{whole} of {len(rollouts)} episodes of {len(outcomes)} environments over /v1/responses are one unbroken "
        f"sequence: {turns} turns, {several} of several turns"
    )
    if not several and not problems:
        return TOKENS.skipped(
            "episodes",
            f"{detail}; with single turns there is nothing to break",
            "Give a policy that calls tools: --model PATH.",
        )
    return TOKENS.judged(
        "episodes", problems, detail, "`gymrail tokens check MODEL` says what of the template does it."
    )
