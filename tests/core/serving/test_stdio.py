"""stdio: one episode in a process of its own, and the bridge that holds only a URL."""

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from gymrail.errors import InputError
from gymrail.serving.bridge import bridge
from tests.core.serving.office import KEY, Served, run, said
from tests.core.serving.test_mcp import BOTH, text


def command(*arguments: str) -> StdioServerParameters:
    return StdioServerParameters(command=sys.executable, args=["-m", "gymrail", "mcp", *arguments])


def play(parameters: StdioServerParameters, era: Any, question: Any) -> Any:
    async def inside() -> Any:
        async with asyncio.timeout(300), Client(parameters, mode=era) as agent:
            return await question(agent)

    return asyncio.run(inside())


@pytest.mark.parametrize("era", ["auto", "legacy"])
def test_an_environments_task_is_one_episode_with_its_prompt_as_instructions(era: str) -> None:
    async def question(agent: Client) -> tuple[str, str, str | None]:
        before = text(await agent.call_tool("get_counter_value", {}))
        await agent.call_tool("increment_counter", {"count": 5})
        return before, text(await agent.call_tool("get_counter_value", {})), agent.instructions

    before, after, instructions = play(command("session_counter", "--task", "1"), era, question)
    assert int(after) == int(before) + 5
    assert "counter" in (instructions or "")


def test_a_tool_server_alone_needs_no_task() -> None:
    async def question(agent: Client) -> str:
        return text(await agent.call_tool("add", {"a": 20, "b": 22}))

    assert play(command("calculator"), "auto", question) == "42"


@BOTH
def test_the_bridge_passes_calls_errors_and_progress_on(era: str) -> None:
    async def test(server: Served) -> None:
        seeded = await server.seed()
        heard: list[float] = []

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            heard.append(progress)

        async with Client(command("--url", seeded["mcp"]["url"]), mode=era) as agent:
            assert text(await agent.call_tool("send", {"to": "Ana"})) == "sent to Ana"
            assert (await agent.call_tool("sned", {})).is_error
            assert text(await agent.call_tool("count", {"to": 3}, progress_callback=hear)) == "3"
        assert heard == [1.0, 2.0, 3.0]
        assert (await server.verify(seeded, response=said("x"))).json()["reward"] == 1.0

    run(test)


def test_the_bridge_answers_every_request_when_the_episode_is_gone_or_the_server_is_not_there() -> None:
    request = b'{"jsonrpc":"2.0","id":7,"method":"tools/list"}\n{"jsonrpc":"2.0","method":"notifications/x"}\nno json\n'

    async def test(server: Served) -> None:
        for url, part in ((f"{server.url}/e/gone/mcp", "gone"), ("http://127.0.0.1:9/e/x/mcp", "cannot be reached")):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gymrail", "mcp", "--url", url,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
            output, _ = await asyncio.wait_for(process.communicate(request), 120)
            (line,) = output.decode().splitlines()
            assert '"id":7' in line
            assert part in line

    run(test)


def test_the_bridge_refuses_what_is_no_url() -> None:
    with pytest.raises(InputError, match="no URL of an episode"):
        bridge("localhost/e/x", [], sys.stdout)


def test_a_served_process_prints_its_key_once_answers_and_ends_on_a_signal() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "GYMRAIL_KEY"}
    arguments = [sys.executable, "-m", "gymrail", "serve", "session_counter", "calculator", "--port", "0"]
    for given in (None, KEY):
        env = environment if given is None else {**environment, "GYMRAIL_KEY": given}
        with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=env) as process:
            assert process.stderr is not None
            try:
                address = process.stderr.readline().split()[-1]
                key = process.stderr.readline().split()[-1] if given is None else given
                found = asyncio.run(_episodes(address, key))
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(120)
            assert found == (200, 401)
            assert process.stderr.read() == ""


async def _episodes(url: str, key: str) -> tuple[int, int]:
    import httpx2 as httpx

    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=120, verify=False) as client:
        for _ in range(1000):
            try:
                await client.get("/health")
                break
            except httpx.TransportError:
                await asyncio.sleep(0.1)
        with_key = await client.get("/episodes", headers={"authorization": f"Bearer {key}"})
        return with_key.status_code, (await client.get("/episodes")).status_code
