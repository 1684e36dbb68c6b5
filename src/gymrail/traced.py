"""An episode as OpenTelemetry spans, by the conventions for generative AI; `tracing.start_tracing` turns it on.

    invoke_agent word_math            the episode: task, repeat, attempt, outcome, reward, tokens
      seed word_math
      chat Qwen/Qwen3-0.6B            one model call: tokens, finish reason
      execute_tool add                one tool call
      verify word_math

Never in a span: the verifier's data, its reason, a failure's message (it may quote both). Texts of prompts, answers and
tool calls are there only where they are asked for.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, ClassVar, Self

import orjson
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from gymrail.agents.command import OwnModel
from gymrail.episode import Episode
from gymrail.errors import EpisodeFailed, Failure, ModelError
from gymrail.models.model import EpisodePolicy, Model, ModelRequest, ModelResponse
from gymrail.play import play
from gymrail.rollout import Rollout, ToolCall, Verdict, text_of
from gymrail.spec import EnvironmentSpec
from gymrail.task import Item, Task
from gymrail.tools import printable

_NUMBERS = {"temperature": "temperature", "top_p": "top_p", "max_output_tokens": "max_tokens"}
"""Request parameters by their name in the conventions."""
_NAME_CHARACTERS = 128
"""Of a tool that a model may have made up."""
_FINISH_REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}


class Watch:
    """Plays episodes and writes down what they do."""

    def __init__(self, tracer: Tracer, run: str | None = None, *, captures_content: bool = False) -> None:
        self.tracer = tracer
        self.captures_content = captures_content
        self._run = {} if run is None else {"gymrail.run": run}
        self._episode_class: type[Episode] = type("TracedEpisode", (_TracedEpisode,), {"watch": self, "__slots__": ()})

    async def play(self, spec: EnvironmentSpec, task: Task, model: Model | EpisodePolicy, **options: Any) -> Rollout:
        """Play an episode as `gymrail.play.play` does, in a trace of its own unless a span is open already."""
        about = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": spec.name,
            **_about_model(model),
            **self._run,
            "gymrail.environment": spec.name,
            "gymrail.task.id": task.id,
            "gymrail.task.index": options["task_index"],
            "gymrail.repeat": options["repeat"],
            "gymrail.attempt": options["attempt"],
        }
        with self.span(f"invoke_agent {spec.name}", about) as span:
            if not span.is_recording():  # the sampler left it out, and with it all that would stand below
                return await play(spec, task, model, **options, episode_class=_UntracedEpisode)
            asked: Any = _TracedPolicy(self, model)
            try:
                rollout = await play(spec, task, asked, **options, episode_class=self._episode_class)
            except asyncio.CancelledError:
                span.set_attribute("gymrail.outcome", "cancelled")
                raise
            _tell_outcome(span, rollout)
        return rollout

    def span(
        self,
        name: str,
        attributes: Mapping[str, Any],
        kind: SpanKind = SpanKind.INTERNAL,
        context: Context | None = None,
    ) -> _Opened:
        """Open a span below the current one, or below the one of `context`."""
        return _Opened(self.tracer.start_span(name, context, kind, attributes), context)


class _Opened:
    """A span that is current inside its `with` block, ends with it, and says what kind of exception left it."""

    __slots__ = ("_context", "_span", "_token")

    def __init__(self, span: Span, context: Context | None) -> None:
        self._span = span
        self._context = context

    def __enter__(self) -> Span:
        self._token = otel_context.attach(trace.set_span_in_context(self._span, self._context))
        return self._span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        otel_context.detach(self._token)
        if error is not None:
            _tell_error(self._span, error)
        self._span.end()


class _UntracedEpisode(Episode):
    """An episode that `play` does not hand back to the watch."""

    __slots__ = ()


class _TracedEpisode(Episode):
    """Writes its stages down. What comes from another task than the one that plays it (a program's tool calls) is put
    below its span too."""

    __slots__ = ("_context", "_trace_id")

    watch: ClassVar[Watch]

    @classmethod
    async def open(cls, spec: EnvironmentSpec, task: Task, **options: Any) -> Self:
        invoking = trace.get_current_span()
        with cls.watch.span(f"seed {spec.name}", {"gymrail.environment": spec.name}):
            episode = await super().open(spec, task, **options)
        assert isinstance(episode, cls)
        invoking.set_attribute("gen_ai.conversation.id", episode.rollout.id)
        episode._context = trace.set_span_in_context(invoking, Context())
        episode._trace_id = invoking.get_span_context().trace_id
        return episode

    @property
    def parent(self) -> Context | None:
        """Where the next span belongs; None is below the current one."""
        is_ours = trace.get_current_span().get_span_context().trace_id == self._trace_id
        return None if is_ours else self._context

    async def _run(self, call: ToolCall) -> None:
        name = printable(call.name)[:_NAME_CHARACTERS]
        about = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.id": printable(call.call_id),
        }
        with self.watch.span(f"execute_tool {name}", about, context=self.parent) as span:
            await super()._run(call)
            if call.is_error:
                span.set_attribute("gymrail.tool.is_error", True)
            if self.watch.captures_content:
                span.set_attribute("gen_ai.tool.call.arguments", call.arguments)
                span.set_attribute("gen_ai.tool.call.result", _as_text(call.output))

    async def reply(self) -> Item | None:
        with self.watch.span(f"reply {self.spec.name}", {"gymrail.environment": self.spec.name}, context=self.parent):
            return await super().reply()

    def _begin_verifying(self) -> asyncio.Future[Verdict]:
        # In a task even where the verifier is plain, so that its span is as long as it ran.
        return asyncio.ensure_future(self._verify(self.environment.verify))

    async def _verify(self, verify: Callable[[Rollout], Any], started: float | None = None) -> Verdict:
        about = {"gymrail.environment": self.spec.name, "gen_ai.evaluation.name": "reward"}
        with self.watch.span(f"verify {self.spec.name}", about, context=self.parent) as span:
            verdict = await super()._verify(verify, started)
            span.set_attribute("gen_ai.evaluation.score.value", float(verdict.reward))
        return verdict


class _TracedPolicy:
    """Gives every episode a model that writes its calls down."""

    def __init__(self, watch: Watch, model: Model | EpisodePolicy) -> None:
        self._watch = watch
        self._model = model

    async def bind(self, episode: _TracedEpisode) -> Model:
        bind = getattr(self._model, "bind", None)
        bound: Any = self._model if bind is None else bind(episode)
        if inspect.isawaitable(bound):
            bound = await bound
        # It stands for the model of a program, which is not ours to see; agents tell it by its class.
        return bound if isinstance(bound, OwnModel) else _TracedModel(self._watch, bound, episode, self._model)


class _TracedModel:
    """A model as one episode asks it."""

    def __init__(self, watch: Watch, model: Model, episode: _TracedEpisode, named: Any) -> None:
        self._watch = watch
        self._model = model
        self._episode = episode
        self._about = {"gen_ai.operation.name": "chat", **_about_model(named)}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    async def respond(self, request: ModelRequest) -> ModelResponse:
        about: dict[str, Any] = {**self._about, "gen_ai.conversation.id": request.episode_id}
        for name, said in _NUMBERS.items():
            value = request.parameters.get(name)
            if isinstance(value, int | float):
                about[f"gen_ai.request.{said}"] = value
        name = f"chat {about['gen_ai.request.model']}"
        with self._watch.span(name, about, SpanKind.CLIENT, self._episode.parent) as span:
            if self._watch.captures_content and span.is_recording():
                _tell_prompt(span, request)
            response = await self._model.respond(request)
            if span.is_recording():
                _tell_answer(span, response, captures_content=self._watch.captures_content)
        return response


def _about_model(model: Any) -> dict[str, str]:
    name = getattr(model, "model", None)
    provider = getattr(model, "provider", None)
    return {
        "gen_ai.provider.name": provider if isinstance(provider, str) else "gymrail",
        "gen_ai.request.model": name if isinstance(name, str) else type(model).__name__,
    }


def _tell_outcome(span: Span, rollout: Rollout) -> None:
    outcome = rollout.outcome
    assert outcome is not None, "a rollout that was played has its outcome"
    span.set_attribute("gymrail.outcome", outcome.status)
    span.set_attribute("gymrail.steps", rollout.steps)
    span.set_attribute("gen_ai.usage.input_tokens", rollout.usage.input_tokens)
    span.set_attribute("gen_ai.usage.output_tokens", rollout.usage.output_tokens)
    if rollout.reward is not None:
        span.set_attribute("gymrail.reward", rollout.reward)
    if outcome.reason is not None:
        span.set_attribute("gymrail.outcome.reason", outcome.reason)
    if outcome.failure is not None:
        _tell_failure(span, outcome.failure)


def _tell_error(span: Span, error: BaseException) -> None:
    """Say what kind of exception it was, never its text."""
    if isinstance(error, EpisodeFailed):
        _tell_failure(span, error.failure)
        return
    span.set_attribute("error.type", type(error).__qualname__)
    if isinstance(error, ModelError) and error.status is not None:
        span.set_attribute("http.response.status_code", error.status)
    if not isinstance(error, asyncio.CancelledError):
        span.set_status(Status(StatusCode.ERROR, type(error).__qualname__))


def _tell_failure(span: Span, failure: Failure) -> None:
    span.set_attribute("error.type", failure.kind)
    span.set_attribute("gymrail.failure.kind", failure.kind)
    span.set_attribute("gymrail.failure.stage", failure.stage)
    span.set_status(Status(StatusCode.ERROR, f"{failure.kind} failure at stage {failure.stage}"))


def _tell_prompt(span: Span, request: ModelRequest) -> None:
    messages = [{"role": role, "parts": [part]} for role, part in _parts(request.input)]
    span.set_attribute("gen_ai.input.messages", orjson.dumps(messages).decode())
    instructions = request.parameters.get("instructions")
    if isinstance(instructions, str):
        said = [{"type": "text", "content": instructions}]
        span.set_attribute("gen_ai.system_instructions", orjson.dumps(said).decode())


def _tell_answer(span: Span, response: ModelResponse, *, captures_content: bool) -> None:
    calls = any(item.get("type") == "function_call" for item in response.items)
    reason = _FINISH_REASONS.get(response.finish_reason, "tool_calls" if calls else "stop")
    span.set_attribute("gen_ai.response.finish_reasons", (reason,))
    span.set_attribute("gen_ai.usage.input_tokens", response.usage.input_tokens)
    span.set_attribute("gen_ai.usage.output_tokens", response.usage.output_tokens)
    if response.model:
        span.set_attribute("gen_ai.response.model", response.model)
    if captures_content:
        parts = [part for _, part in _parts(response.items)]
        answer = [{"role": "assistant", "parts": parts, "finish_reason": reason}]
        span.set_attribute("gen_ai.output.messages", orjson.dumps(answer).decode())


def _parts(items: Iterable[Item]) -> Iterable[tuple[str, dict[str, Any]]]:
    """Each item's role and content in the conventions' form; token ids stay out."""
    for item in items:
        kind = item.get("type", "message")
        if kind == "function_call":
            call = {"id": item.get("call_id"), "name": item.get("name"), "arguments": item.get("arguments")}
            yield "assistant", {"type": "tool_call", **call}
        elif kind == "function_call_output":
            answer = {"id": item.get("call_id"), "response": _as_text(item.get("output"))}
            yield "tool", {"type": "tool_call_response", **answer}
        elif kind == "reasoning":
            said = [part.get("text", "") for part in (*(item.get("summary") or ()), *(item.get("content") or ()))]
            yield "assistant", {"type": "reasoning", "content": "".join(said)}
        elif kind == "message":
            yield str(item.get("role", "user")), {"type": "text", "content": text_of(item)}


def _as_text(output: Any) -> str:
    return output if isinstance(output, str) else orjson.dumps(output).decode()
