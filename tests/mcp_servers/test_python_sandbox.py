"""The Python tool server: state per episode, the model's faults as results, and nothing started before it is needed."""

import asyncio

import pytest

from gymrail.errors import InputError
from gymrail.sandbox import Limits, Sandbox, choose
from gymrail_mcp_servers.python_sandbox.server import PythonSandbox


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return choose("bubblewrap", limits=Limits(wall_seconds=60))


def seeded(sandbox: Sandbox) -> PythonSandbox:
    server = PythonSandbox()
    server.seed(sandbox)
    return server


def test_state_stays_within_an_episode_and_never_crosses_to_another(sandbox: Sandbox) -> None:
    async def play() -> None:
        one, two = seeded(sandbox), seeded(sandbox)
        await one.execute_python("x = 6\nprint('set')")
        assert await one.execute_python("x * 7") == {"stdout": "", "stderr": "", "error": None, "result": "42"}
        assert "NameError" in str((await two.execute_python("x"))["error"])
        await one.close()
        await two.close()

    asyncio.run(play())


def test_a_slow_call_is_interrupted_and_variables_stay() -> None:
    async def play() -> None:
        server = seeded(choose("bubblewrap", limits=Limits(wall_seconds=8)))  # enough for the other calls
        for _ in range(5):
            await server.execute_python("x = 6")
            slow = await server.execute_python("print('on my way', flush=True)\nwhile True: pass")
            if not str(slow["error"]).startswith("killed"):  # as where the machine stalls while it is interrupted
                break
        assert slow["error"] == "stopped: the code ran longer than 8 seconds"
        assert slow["stdout"] == "on my way\n"
        assert (await server.execute_python("x"))["result"] == "6"
        await server.close()

    asyncio.run(play())


def test_an_episode_that_runs_no_code_starts_nothing(sandbox: Sandbox) -> None:
    server = seeded(sandbox)
    assert server._interpreter is None
    asyncio.run(server.close())


def test_a_provider_that_does_not_exist_is_refused_when_seeded() -> None:
    with pytest.raises(InputError, match="Did you mean 'docker'"):
        PythonSandbox().seed(provider="docer")


def test_the_schema_has_one_argument_and_a_description() -> None:
    spec = PythonSandbox.tools["execute_python"]
    assert list(spec.parameters["properties"]) == ["code"]
    assert "There is no network" in spec.description
