"""The tool loop and `play`: how an episode ends, and what becomes of everything that can break."""

import asyncio
import time
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest

from gymrail import Environment, Reply, Rollout, Task, Verdict, call, tool
from gymrail.agents.tool_loop import ToolLoop
from gymrail.episode import Episode, Limits
from gymrail.errors import ContextOverflow, Failure, InputError, ModelError, ToolError
from gymrail.messages import reasoning_item
from gymrail.models.model import ModelRequest, ModelResponse, function_call, message
from gymrail.models.scripted import Oracle, ScriptedModel
from gymrail.play import play
from gymrail.rollout import Outcome, Usage
from gymrail.spec import EnvironmentSpec


class Adder(Environment[Task]):
    """Adds; breaks where its task says so."""

    closed = 0

    def seed(self) -> None:
        self.count = 0
        self.replies = list((self.task.model_extra or {}).get("replies", ()))
        if self.breaks == "seed":
            raise OSError("no disk")

    @property
    def breaks(self) -> str:
        return (self.task.model_extra or {}).get("breaks", "")

    @tool
    async def add(self, by: int) -> int:
        if self.breaks == "tool":
            raise OSError("tool server is gone")
        await asyncio.sleep(0)
        self.count += by
        return self.count

    @tool
    def finish(self) -> str:
        self.done = True
        return "finished"

    def reply(self, rollout: Rollout) -> Any:
        if self.breaks == "reply":
            raise OSError("no user")
        return self.replies.pop(0) if self.replies else None

    def verify(self, rollout: Rollout) -> Verdict:
        if self.breaks == "verify":
            raise OSError("judge is down")
        return Verdict(min(1.0, self.count / 10), metrics={"count": self.count})

    def close(self) -> None:
        type(self).closed += 1

    def solve(self) -> Generator[Any, Any, None]:
        if self.breaks == "solve":
            raise ValueError("no gold")
        yield call("add", by=10)
        yield "Done."


SPEC = EnvironmentSpec("adder", Adder)


class Says:
    """A model that gives prepared responses, or raises them."""

    def __init__(self, *responses: Any) -> None:
        self.responses = list(responses)
        self.requests: list[tuple[int, ModelRequest]] = []

    async def respond(self, request: ModelRequest) -> ModelResponse:
        self.requests.append((len(request.input), request))
        response = self.responses.pop(0)
        if isinstance(response, BaseException):
            raise response
        return ModelResponse(response) if isinstance(response, list) else response


def run(model: Any, task: Task | None = None, **options: Any) -> Rollout:
    return asyncio.run(asyncio.wait_for(play(SPEC, task or Task.ask("Go"), model, **options), 120))


def test_the_loop_runs_calls_and_ends_with_the_answer() -> None:
    rollout = run(ScriptedModel([[call("add", by=1), call("add", by=2)], call("add", by=3), "Six."]))
    assert (rollout.outcome, rollout.reward, rollout.metrics) == (Outcome("scored"), 0.6, {"count": 6})
    assert [item.get("type") for item in rollout.conversation] == [
        None, "function_call", "function_call", "function_call_output", "function_call_output", "function_call",
        "function_call_output", "message",
    ]  # fmt: skip
    assert [item["output"] for item in rollout.items if "output" in item] == ["1", "3", "6"]
    assert (rollout.steps, rollout.final_text, rollout.prompt_length) == (3, "Six.", 1)


def test_max_steps_truncates_and_the_state_is_judged_all_the_same() -> None:
    rollout = run(ScriptedModel(lambda request: call("add", by=1)), agent=ToolLoop(max_steps=3))
    assert (rollout.outcome, rollout.reward, rollout.steps) == (Outcome("truncated", reason="max_steps"), 0.3, 3)
    assert rollout.is_trainable
    with pytest.raises(InputError, match="max_steps is 0"):
        ToolLoop(max_steps=0)


def test_the_manifest_sets_the_steps_where_the_agent_does_not() -> None:
    rollout = run(ScriptedModel(lambda request: call("add", by=0)))
    assert rollout.steps == SPEC.manifest.agent.max_steps == 32


def test_replies_are_user_turns_and_their_rewards_are_recorded() -> None:
    task = Task.ask("Hi", replies=["And then?"])
    model = Says([message("one")], [message("two")], [message("three")])

    class Games(Adder):
        def seed(self) -> None:
            super().seed()
            self.replies = ["And then?", Reply([{"type": "input_text", "text": "And?"}], reward=0.5)]

    rollout = asyncio.run(play(EnvironmentSpec("games", Games), task, model))
    assert rollout.outcome == Outcome("scored")
    assert rollout.answers == ["one", "two", "three"]
    assert rollout.step_rewards == [0.5]
    users = [item["content"] for item in rollout.items if item.get("role") == "user"]
    assert users == ["And then?", [{"type": "input_text", "text": "And?"}]]


def test_a_tool_that_sets_done_ends_the_talk() -> None:
    rollout = run(Says([function_call("finish", "{}", "a")]))
    assert (rollout.outcome, rollout.steps) == (Outcome("scored"), 1)


@pytest.mark.parametrize("reason", ["max_output_tokens", "content_filter"])
@pytest.mark.parametrize("items", [[], [message("half an ans")]])
def test_a_budget_that_ends_the_models_turn_truncates_and_is_verified(reason: Any, items: list[Any]) -> None:
    rollout = run(Says([function_call("add", '{"by": 5}', "a")], ModelResponse(items, reason, Usage(3, 4))))
    assert (rollout.outcome, rollout.reward, rollout.usage) == (Outcome("truncated", reason=reason), 0.5, Usage(3, 4))


def test_context_overflow_truncates_and_is_verified() -> None:
    rollout = run(Says([function_call("add", '{"by": 5}', "a")], ContextOverflow("too long")))
    assert (rollout.outcome, rollout.reward) == (Outcome("truncated", reason="context"), 0.5)


def test_an_answer_of_reasoning_alone_is_scored_as_an_empty_answer() -> None:
    rollout = run(Says([reasoning_item("hmm")]), Task.ask("Go", replies=["unheard"]))
    assert (rollout.outcome, rollout.reward, rollout.final_text) == (Outcome("scored"), 0.0, "")
    assert rollout.metrics == {"reasoning_only": True, "count": 0}


def test_an_endpoint_that_numbers_its_calls_from_zero_every_turn_gets_no_stale_result() -> None:
    turn = [function_call("add", '{"by": 1}', "call_0"), function_call("add", '{"by": 1}', "call_0")]
    rollout = run(Says(list(turn), list(turn), [message("ok")]))
    outputs = [(item["call_id"], item["output"]) for item in rollout.items if "output" in item]
    assert outputs == [("call_0", "1"), ("call_0", "2"), ("call_0", "3"), ("call_0", "4")]
    assert len({entry.call_id for entry in rollout.calls}) == 4


def test_the_request_has_no_word_of_the_verifiers_side() -> None:
    task = Task.ask("Go", parameters={"temperature": 0.1, "top_p": 0.5}, secret="hidden-gold")
    model = Says([function_call("add", '{"by": 1}', "a")], [message("ok")])
    run(model, task, agent=ToolLoop(parameters=(("temperature", 0.7),)))
    assert [length for length, _ in model.requests] == [1, 3]
    request = model.requests[0][1]
    assert request.parameters == {"temperature": 0.7, "top_p": 0.5}
    assert [row["name"] for row in request.tools] == ["add", "finish"]
    assert "hidden-gold" not in repr(request)


def test_a_script_begins_after_the_turns_that_the_prompt_has() -> None:
    prompt = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert run(ScriptedModel(["d"]), Task.ask(prompt)).final_text == "d"


FAILURES: list[tuple[str, Any, Failure]] = [
    ("seed", Says(), Failure("environment", "seed", "OSError: no disk")),
    ("tool", ScriptedModel([call("add", by=1), "ok"]), Failure("tool", "tool", "OSError: tool server is gone")),
    ("tool", ScriptedModel([[call("add", by=1), call("add", by=2)], "ok"]),
     Failure("tool", "tool", "OSError: tool server is gone")),
    ("reply", ScriptedModel(["ok"]), Failure("environment", "reply", "OSError: no user")),
    ("verify", ScriptedModel(["ok"]), Failure("verifier", "verify", "OSError: judge is down")),
    ("solve", Oracle(), Failure("environment", "model", "ValueError: no gold")),
    ("", Says(ModelError("500 after 5 tries")), Failure("model", "model", "500 after 5 tries")),
    ("", Says(ValueError("garbage")), Failure("model", "model", "ValueError: garbage")),
    ("", Says(TimeoutError("read")), Failure("model", "model", "TimeoutError: read")),
    ("", Says(ToolError("no tool of ours")), Failure("model", "model", "model raised ToolError: no tool of ours")),
    ("", Says([]), Failure("model", "model", "the model answered with no items")),
    ("", Says([{"type": "function_call", "name": "add"}]), Failure("model", "model", "the model's function_call {'type': 'function_call', 'name': 'add'} has no 'call_id' or no 'name'")),  # noqa: E501
    ("", Says(ModelResponse(None)), Failure("model", "model", "the model answered with no items")),  # type: ignore[arg-type]
    ("", Says("text"), Failure("model", "model", "AttributeError: 'str' object has no attribute 'items'")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("breaks", "model", "failure"),
    FAILURES,
    ids=[f"{breaks}-{failure.message[:24]}" for breaks, _, failure in FAILURES],
)
def test_whatever_breaks_gives_a_failed_rollout_of_the_right_kind_and_no_reward(
    breaks: str, model: Any, failure: Failure
) -> None:
    before = Adder.closed
    rollout = run(model, Task.ask("Go", breaks=breaks))
    assert rollout.failure is not None
    assert (rollout.failure.kind, rollout.failure.stage, rollout.failure.message) == (
        failure.kind,
        failure.stage,
        failure.message,
    )
    assert rollout.outcome == Outcome("failed", rollout.failure)
    assert rollout.reward is None
    assert "reward" not in rollout.to_row()
    assert not rollout.is_trainable
    assert Adder.closed == before + 1


class Hanging:
    """A model that answers when it is let."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def respond(self, request: ModelRequest) -> ModelResponse:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError


def test_a_model_that_never_answers_is_a_timeout_at_the_model() -> None:
    rollout = run(Hanging(), limits=Limits(episode_seconds=0.05))
    assert rollout.failure is not None
    assert (rollout.failure.kind, rollout.failure.stage) == ("timeout", "model")
    assert rollout.reward is None
    assert rollout.failure.is_retryable


def test_a_model_slower_than_the_time_to_live_is_no_idle_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        """Moves with the model alone."""

        now = 0.0
        perf_counter = staticmethod(time.perf_counter)

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr("gymrail.episode.time", clock)

    class Slow(Says):
        async def respond(self, request: ModelRequest) -> ModelResponse:
            clock.now += 50.0
            return await super().respond(request)

    rollout = run(Slow([function_call("add", '{"by": 1}', "a")], [message("ok")]), limits=Limits(idle_seconds=20.0))
    assert rollout.outcome == Outcome("scored")


def test_an_agent_of_ones_own_that_breaks_fails_the_rollout() -> None:
    class Broken:
        async def run(self, episode: Episode, model: Any) -> Outcome:
            raise KeyError("x")

    class Overflowing:
        async def run(self, episode: Episode, model: Any) -> Outcome:
            raise ContextOverflow("x")

    class Closing:
        async def run(self, episode: Episode, model: Any) -> Outcome:
            await episode.close()
            await episode.call("add", {"by": 1})
            raise AssertionError

    failed = run(Says(), agent=Broken())
    assert failed.failure is not None
    assert (failed.failure.kind, failed.failure.stage, failed.failure.message) == ("agent", "model", "KeyError: 'x'")
    assert not failed.failure.is_retryable
    assert run(Says(), agent=Overflowing()).outcome == Outcome("truncated", reason="context")
    closed = run(Says(), agent=Closing())
    assert closed.failure is not None
    assert (closed.failure.kind, closed.reward) == ("infrastructure", None)


def test_cancellation_closes_the_episode_and_reaches_the_caller() -> None:
    before = Adder.closed

    async def cancel() -> None:
        model = Hanging()
        playing = asyncio.ensure_future(play(SPEC, Task.ask("Go"), model))
        await model.asked.wait()
        playing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await playing

    asyncio.run(cancel())
    assert Adder.closed == before + 1


def test_cancellation_while_the_verifier_runs_stops_it_and_leaves_no_reward() -> None:
    seen: list[Rollout] = []

    class Judging(Adder):
        async def verify(self, rollout: Rollout) -> Any:
            seen.append(rollout)
            entered.set()
            await release.wait()
            return 1.0

    async def cancel() -> None:
        playing = asyncio.ensure_future(
            play(EnvironmentSpec("judging", Judging), Task.ask("Go"), ScriptedModel(["ok"]))
        )
        await entered.wait()
        playing.cancel()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await playing
        assert len(asyncio.all_tasks()) == 1

    entered, release = asyncio.Event(), asyncio.Event()
    asyncio.run(cancel())
    assert seen[0].reward is None
    assert seen[0].outcome == Outcome("cancelled")


def test_every_rollout_asked_for_has_exactly_one_outcome() -> None:
    asked = 60
    breaks = ("", "tool", "verify", "seed", "reply", "")

    async def one(index: int) -> str:
        script = (
            ScriptedModel(lambda request: call("add", by=1))
            if index % 6 == 5
            else ScriptedModel([call("add", by=1), "ok"])
        )
        playing = asyncio.ensure_future(
            play(SPEC, Task.ask("Go", breaks=breaks[index % 6]), script if index % 10 else Hanging())
        )
        if index % 10 == 0:
            await asyncio.sleep(0.05)
            playing.cancel()
        try:
            outcome = (await playing).outcome
        except asyncio.CancelledError:
            return "cancelled"
        assert outcome is not None
        return outcome.status

    async def everything() -> list[str]:
        return await asyncio.gather(*(one(index) for index in range(asked)))

    counts = Counter(asyncio.run(asyncio.wait_for(everything(), 120)))
    assert counts.total() == asked
    assert set(counts) == {"scored", "truncated", "failed", "cancelled"}


def test_the_oracle_earns_the_highest_reward_and_its_noise_is_reproducible() -> None:
    assert run(Oracle()).reward == 1.0
    models = [run(Oracle(noise=0.5, seed=1), repeat=3).calls for _ in range(2)]
    first, second = ([(entry.name, entry.arguments) for entry in calls] for calls in models)
    assert first == second
