"""Setup and seeding: what is loaded once per process, and what their failures are."""

import asyncio
from typing import Any

import pytest

from gymrail import Environment, Task, ToolError
from gymrail.episode import Episode
from gymrail.errors import EpisodeFailed
from gymrail.spec import EnvironmentSpec

TASK = Task.ask("Go")


def test_a_seed_or_a_constructor_that_breaks_is_a_failure_at_seed() -> None:
    class Seed(Environment[Task]):
        def seed(self) -> None:
            raise ToolError("no state")

    class Make(Environment[Task]):
        def __init__(self) -> None:
            raise OSError("no disk")

    for cls, message in ((Seed, "seed raised ToolError: no state"), (Make, "OSError: no disk")):
        with pytest.raises(EpisodeFailed) as error:
            asyncio.run(Episode.open(EnvironmentSpec("x", cls), TASK))
        failure = error.value.failure
        assert (failure.kind, failure.stage, failure.message) == ("environment", "seed", message)


def test_setup_runs_once_is_tried_again_after_a_failure_and_survives_other_event_loops() -> None:
    loads: list[str] = []

    class Heavy(Environment[Task]):
        @classmethod
        async def setup(cls, config: Any) -> dict[str, int]:
            loads.append("load")
            await asyncio.sleep(0)
            if len(loads) == 1:
                raise OSError("no corpus")
            return {"corpus": 1}

    spec = EnvironmentSpec("heavy", Heavy)

    async def run() -> list[Any]:
        return await asyncio.gather(*(Episode.open(spec, TASK) for _ in range(5)), return_exceptions=True)

    failures = asyncio.run(run())
    assert all(isinstance(error, EpisodeFailed) for error in failures)
    assert {(error.failure.kind, error.failure.stage, error.failure.message) for error in failures} == {
        ("environment", "setup", "OSError: no corpus")
    }
    opened = asyncio.run(run()) + asyncio.run(run())
    assert loads == ["load", "load"]
    assert len({id(episode.environment.shared) for episode in opened}) == 1


def test_a_setup_whose_event_loop_died_is_started_anew() -> None:
    class Heavy(Environment[Task]):
        @classmethod
        async def setup(cls, config: Any) -> int:
            entered.append(1)
            if len(entered) == 1:
                await asyncio.Event().wait()
            return 7

    entered: list[int] = []
    spec = EnvironmentSpec("heavy", Heavy)

    async def abandoned() -> None:
        opening = asyncio.ensure_future(Episode.open(spec, TASK))
        await asyncio.sleep(0)  # setup begins
        await asyncio.sleep(0)
        assert entered == [1]
        opening.cancel()

    asyncio.run(abandoned())
    assert asyncio.run(spec.setup()) == 7
