import asyncio
import contextvars
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler

from gymrail import Environment, Rollout, Task, ToolError, Verdict, call, tool
from gymrail.agents.command import OwnModel
from gymrail.agents.tool_loop import ToolLoop
from gymrail.episode import Episode
from gymrail.errors import ModelError
from gymrail.models.model import Model, ModelRequest, ModelResponse, message
from gymrail.models.scripted import ScriptedModel
from gymrail.play import is_watched, play, watch
from gymrail.rollout import Outcome, Usage
from gymrail.spec import EnvironmentSpec
from gymrail.traced import Watch

SECRET = "the-answer-is-4711"
SCRIPT = [[call("add", a=1, b=2), call("add", a=3, b=4)], call("refuse"), "It is done."]


class SecretTask(Task):
    answer: str = SECRET


class Adder(Environment[SecretTask]):
    """Add."""

    @tool
    async def add(self, a: int, b: int) -> int:
        """Add."""
        with trace.get_tracer("an author's").start_as_current_span("lookup"):
            await asyncio.sleep(0)
        return a + b

    @tool
    def refuse(self) -> str:
        """Refuse."""
        raise ToolError("not today")

    @tool
    def crash(self) -> str:
        """Crash."""
        raise ValueError(SECRET)

    def verify(self, rollout: Rollout) -> Verdict:
        return Verdict(0.5, metrics={"expected": self.task.answer}, reason=f"expected {self.task.answer}")


class BrokenVerifier(Adder):
    """Its verifier breaks and quotes the answer."""

    def verify(self, rollout: Rollout) -> Verdict:
        raise ValueError(f"expected {self.task.answer}")


class BrokenSeed(Adder):
    """It cannot be seeded."""

    async def seed(self) -> None:
        raise OSError(SECRET)


class Traces:
    """Plays episodes with tracing on, and keeps their spans."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()

    def play(
        self, cls: type = Adder, model=None, *, sampler: Sampler | None = None, captures=False, **options
    ) -> Rollout:
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        watch(Watch(provider.get_tracer("test"), "runs/mine", captures_content=captures).play)
        task = SecretTask.ask("What is asked")
        try:
            return asyncio.run(play(EnvironmentSpec("adder", cls), task, model or ScriptedModel(SCRIPT), **options))
        finally:
            watch(None)

    @property
    def spans(self) -> list[ReadableSpan]:
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.spans]

    def named(self, name: str) -> ReadableSpan:
        return next(span for span in self.spans if span.name == name)

    @property
    def text(self) -> str:
        return "".join(span.to_json() for span in self.spans)


@pytest.fixture
def traces() -> Iterator[Traces]:
    assert not is_watched()
    made = Traces()
    yield made
    made.exporter.clear()


def test_an_episode_is_one_trace_with_a_span_for_every_stage(traces: Traces) -> None:
    rollout = traces.play(task_index=3, repeat=1, attempt=2)
    assert rollout.reward == 0.5
    assert traces.names == [
        "invoke_agent adder", "seed adder", "chat ScriptedModel", "execute_tool add", "execute_tool add",
        "chat ScriptedModel", "execute_tool refuse", "chat ScriptedModel", "reply adder", "verify adder",
    ]  # fmt: skip
    root, *others = traces.spans
    assert root.context is not None
    assert root.parent is None
    assert {span.parent.span_id for span in others if span.parent} == {root.context.span_id}
    assert {span.context.trace_id for span in others if span.context} == {root.context.trace_id}
    assert dict(root.attributes or {}) == {
        "gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "adder", "gen_ai.provider.name": "gymrail",
        "gen_ai.request.model": "ScriptedModel", "gen_ai.conversation.id": rollout.id,
        "gen_ai.usage.input_tokens": 0, "gen_ai.usage.output_tokens": 0,
        "gymrail.run": "runs/mine", "gymrail.environment": "adder", "gymrail.task.id": rollout.task.id,
        "gymrail.task.index": 3, "gymrail.repeat": 1, "gymrail.attempt": 2,
        "gymrail.outcome": "scored", "gymrail.reward": 0.5, "gymrail.steps": 3,
    }  # fmt: skip


def test_a_tool_span_has_the_conventions_names_and_says_what_was_refused(traces: Traces) -> None:
    rollout = traces.play()
    tool_span = traces.named("execute_tool refuse")
    assert dict(tool_span.attributes or {}) == {
        "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "refuse", "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": rollout.calls[2].call_id, "gymrail.tool.is_error": True,
    }  # fmt: skip
    assert tool_span.status.status_code.name == "UNSET"


class Counting:
    """A model that counts its tokens."""

    model = "counting-1"
    provider = "openai"
    is_scripted = True

    async def respond(self, request: ModelRequest) -> ModelResponse:
        return ModelResponse([message("Done.")], "max_output_tokens", Usage(120, 7), "counting-1-0125")


def test_a_model_span_has_request_tokens_and_finish_reason(traces: Traces) -> None:
    rollout = traces.play(model=Counting(), agent=ToolLoop(parameters=(("temperature", 0.5),)))
    assert dict(traces.named("chat counting-1").attributes or {}) == {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "counting-1",
        "gen_ai.request.temperature": 0.5, "gen_ai.response.model": "counting-1-0125",
        "gen_ai.conversation.id": rollout.id, "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.usage.input_tokens": 120, "gen_ai.usage.output_tokens": 7,
    }  # fmt: skip
    root = dict(traces.spans[0].attributes or {})
    assert (root["gymrail.outcome"], root["gymrail.outcome.reason"]) == ("truncated", "max_output_tokens")
    assert (root["gen_ai.usage.input_tokens"], root["gen_ai.usage.output_tokens"]) == (120, 7)


@pytest.mark.parametrize(
    ("cls", "script", "span", "kind", "stage"),
    [
        (BrokenVerifier, ["Done."], "verify adder", "verifier", "verify"),
        (BrokenSeed, ["Done."], "seed adder", "environment", "seed"),
        (Adder, [call("crash")], "execute_tool crash", "tool", "tool"),
    ],
)
def test_a_failure_is_an_error_with_kind_and_stage_and_without_its_message(
    traces: Traces, cls: type, script: list, span: str, kind: str, stage: str
) -> None:
    rollout = traces.play(cls, ScriptedModel(script), captures=True)
    assert rollout.failure is not None
    assert SECRET in rollout.failure.message
    for failed in (traces.named(span), traces.spans[0]):
        attributes = dict(failed.attributes or {})
        assert attributes["error.type"] == attributes["gymrail.failure.kind"] == kind
        assert attributes["gymrail.failure.stage"] == stage
        assert failed.status.status_code.name == "ERROR"
        assert failed.status.description == f"{kind} failure at stage {stage}"
        assert failed.events == ()
    assert SECRET not in traces.text
    assert "gymrail.reward" not in (traces.spans[0].attributes or {})


class Refusing:
    async def respond(self, request: ModelRequest) -> ModelResponse:
        raise ModelError("it quotes the prompt", 503)


def test_a_failed_model_call_has_the_endpoints_status(traces: Traces) -> None:
    traces.play(model=Refusing())
    chat = traces.named("chat Refusing")
    attributes = dict(chat.attributes or {})
    assert (attributes["error.type"], attributes["http.response.status_code"]) == ("ModelError", 503)
    assert chat.status.status_code.name == "ERROR"
    assert "quotes" not in traces.text


def test_no_text_of_prompt_answer_or_tool_is_in_a_span_unless_asked_for(traces: Traces) -> None:
    traces.play()
    assert all(text not in traces.text for text in ("What is asked", "It is done.", "not today", SECRET))


def test_captured_texts_are_those_that_the_model_saw_and_never_the_verifiers(traces: Traces) -> None:
    traces.play(captures=True, agent=ToolLoop(parameters=(("instructions", "Be brief"),)))
    chats = [dict(span.attributes or {}) for span in traces.spans if span.name.startswith("chat ")]
    assert chats[0]["gen_ai.input.messages"] == '[{"role":"user","parts":[{"type":"text","content":"What is asked"}]}]'
    assert chats[0]["gen_ai.system_instructions"] == '[{"type":"text","content":"Be brief"}]'
    assert '"type":"tool_call_response"' in str(chats[1]["gen_ai.input.messages"])
    assert chats[2]["gen_ai.output.messages"] == (
        '[{"role":"assistant","parts":[{"type":"text","content":"It is done."}],"finish_reason":"stop"}]'
    )
    refused = dict(traces.named("execute_tool refuse").attributes or {})
    assert (refused["gen_ai.tool.call.arguments"], refused["gen_ai.tool.call.result"]) == ("{}", "not today")
    assert SECRET not in traces.text


class Elsewhere:
    """An agent whose calls come from other tasks, as a program's do over HTTP."""

    async def run(self, episode: Episode, model: Model) -> Outcome:
        empty = contextvars.Context()
        await asyncio.create_task(episode.call("add", {"a": 1, "b": 2}), context=empty)
        request = ModelRequest(episode.rollout.conversation)
        response = await asyncio.create_task(model.respond(request), context=contextvars.Context())
        episode.rollout.conversation.extend(response.items)
        return Outcome("scored")


def test_calls_that_come_from_another_task_belong_to_their_episode(traces: Traces) -> None:
    traces.play(model=ScriptedModel(["Done."]), agent=Elsewhere())
    root = traces.spans[0].context
    assert root is not None
    for name in ("execute_tool add", "chat ScriptedModel", "verify adder"):
        assert traces.named(name).parent == root


class AsksForItsClass:
    async def run(self, episode: Episode, model: Model) -> Outcome:
        return Outcome("scored" if isinstance(model, OwnModel) else "truncated", reason=None)


def test_an_agent_still_sees_that_a_program_brings_its_own_model(traces: Traces) -> None:
    rollout = traces.play(model=OwnModel(), agent=AsksForItsClass())
    assert rollout.outcome == Outcome("scored")


def test_an_agent_sees_the_attributes_of_the_model_behind_the_span(traces: Traces) -> None:
    seen = []

    class Looks:
        async def run(self, episode: Episode, model: Model) -> Outcome:
            seen.append((getattr(model, "is_scripted", False), getattr(model, "absent", None)))
            return Outcome("scored")

    traces.play(model=Counting(), agent=Looks())
    assert seen == [(True, None)]


def test_an_episode_that_is_not_sampled_is_played_the_same_without_spans(traces: Traces) -> None:
    rollout = traces.play(sampler=ALWAYS_OFF)
    assert (rollout.reward, len(rollout.calls)) == (0.5, 3)
    assert traces.spans == []


def test_a_cancelled_episode_says_so(traces: Traces) -> None:
    class Cancelling:
        async def respond(self, request: ModelRequest) -> ModelResponse:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(60)
            raise AssertionError("it was cancelled")

    with pytest.raises(asyncio.CancelledError):
        traces.play(model=Cancelling())
    root = traces.spans[0]
    assert (root.attributes or {})["gymrail.outcome"] == "cancelled"
    assert root.status.status_code.name == "UNSET"


def test_a_tool_name_that_a_model_made_up_cannot_spoil_a_batch(traces: Traces) -> None:
    traces.play(model=ScriptedModel([call("\ud800" + "x" * 500), "Done."]))
    (span,) = [span for span in traces.spans if span.name.startswith("execute_tool ?x")]
    span.name.encode()
    assert len(span.name) < 150


def in_a_new_process(code: str, **variables: str) -> str:
    script = """
        import asyncio, sys
        from gymrail import Environment, Rollout, Task
        from gymrail.models.scripted import ScriptedModel
        from gymrail.play import play
        from gymrail.spec import EnvironmentSpec

        class Easy(Environment[Task]):
            def verify(self, rollout: Rollout) -> float:
                return 1.0

        def episode() -> None:
            asyncio.run(play(EnvironmentSpec("easy", Easy), Task.ask("Hi"), ScriptedModel(["Hello"])))
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script) + textwrap.dedent(code)],
        capture_output=True, text=True, timeout=300, env={"PATH": "", **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_of_opentelemetry_is_loaded_unless_asked_for() -> None:
    assert in_a_new_process("episode()\nprint([name for name in sys.modules if 'opentelemetry' in name])") == "[]\n"


def test_a_missing_extra_is_one_sentence_with_the_command_that_installs_it() -> None:
    code = """
        sys.modules["opentelemetry"] = None
        from gymrail.errors import InputError
        from gymrail.tracing import start_tracing
        try:
            start_tracing()
        except InputError as error:
            print(error)
    """
    assert "pip install 'gymrail[otel]'" in in_a_new_process(code)


def test_starting_twice_is_starting_once_and_a_stopped_tracing_can_be_started_again() -> None:
    code = """
        from opentelemetry import trace
        from gymrail.tracing import start_tracing, stop_tracing
        sys.stderr = sys.stdout
        start_tracing()
        provider = trace.get_tracer_provider()
        start_tracing()
        assert trace.get_tracer_provider() is provider
        episode()
        stop_tracing()
        episode()
        start_tracing()
        episode()
        stop_tracing()
    """
    assert in_a_new_process(code, OTEL_TRACES_EXPORTER="console").count('"name": "invoke_agent easy"') == 2


def test_a_programs_own_tracer_provider_is_used_and_not_shut_down() -> None:
    code = """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from gymrail.tracing import start_tracing, stop_tracing
        exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        start_tracing()
        with trace.get_tracer("mine").start_as_current_span("training step"):
            episode()
        stop_tracing()
        with trace.get_tracer("mine").start_as_current_span("after"):
            pass
        spans = {span.name: span for span in exporter.get_finished_spans()}
        assert spans["invoke_agent easy"].parent.span_id == spans["training step"].context.span_id
        print(sorted(spans))
    """
    names = ["after", "chat ScriptedModel", "invoke_agent easy", "reply easy", "seed easy", "training step"]
    assert in_a_new_process(code) == f"{[*names, 'verify easy']}\n"


def test_the_standard_switch_turns_it_off() -> None:
    code = (
        "from gymrail.tracing import start_tracing\nstart_tracing()\nepisode()\nprint('opentelemetry' in sys.modules)"
    )
    assert in_a_new_process(code, OTEL_SDK_DISABLED="true") == "False\n"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER=zipkin: no exporter 'zipkin' is installed."),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "carrier/pigeon"}, "OTEL_EXPORTER_OTLP_PROTOCOL=carrier/pigeon: no exporter"),
    ],
)
def test_an_exporter_that_is_not_installed_is_named(variables: dict[str, str], said: str) -> None:
    code = """
        from gymrail.errors import InputError
        from gymrail.tracing import start_tracing
        try:
            start_tracing()
        except InputError as error:
            print(error)
    """
    assert in_a_new_process(code, **variables).startswith(said)
