"""`Environment.after_call` hears of each finished call; what breaks in it fails the episode."""

import asyncio

import pytest

from gymrail import Environment, Rollout, Task, ToolError, ToolServer, Verdict, call, tool
from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.rollout import ToolCall
from gymrail.spec import EnvironmentSpec


class Bell(ToolServer):
    @tool
    def ring(self) -> str:
        """Ring."""
        return "ding"


class Listens(Environment[Task]):
    """Ends after the third call."""

    bell: Bell

    def seed(self) -> None:
        self.heard: list[tuple[str, object, bool]] = []

    async def after_call(self, call: ToolCall) -> None:
        self.heard.append((call.name, call.output, call.is_error))
        self.done = len(self.heard) == 3

    def verify(self, rollout: Rollout) -> Verdict:
        return Verdict(1.0, metrics={"heard": repr(self.heard)})


def test_calls_of_composed_servers_and_refused_calls_are_heard_and_may_end_the_episode() -> None:
    turns = [call("ring"), call("ring", loudly=True), call("sing"), "never said"]
    rollout = asyncio.run(play(EnvironmentSpec("listens", Listens), Task.ask("x"), ScriptedModel(turns)))
    assert rollout.steps == 3
    heard = [(made.name, made.output, made.is_error) for made in rollout.calls]
    assert rollout.metrics["heard"] == repr(heard)
    assert [is_error for _, _, is_error in heard] == [False, True, True]


@pytest.mark.parametrize(
    ("error", "kind"), [(RuntimeError("broken"), "tool"), (ToolError("not an answer"), "environment")]
)
def test_what_breaks_in_the_hook_fails_the_episode_and_never_scores(error: Exception, kind: str) -> None:
    class Breaks(Listens):
        def after_call(self, call: ToolCall) -> None:
            raise error

    rollout = asyncio.run(
        play(EnvironmentSpec("breaks", Breaks), Task.ask("x"), ScriptedModel([call("ring"), "Done."]))
    )
    assert rollout.reward is None
    assert rollout.failure is not None
    assert (rollout.failure.kind, rollout.failure.stage) == (kind, "tool")
