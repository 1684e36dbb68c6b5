"""Agents nobody here wrote play whole episodes, offline, with the oracle behind the model server. Run by `make
interop`.

Installed once under .interop: Claude Code and Codex by npm (tests/interop/package.json), the two SDKs each into an
environment of its own, because LangChain's adapters want another major version of `mcp` than Gymrail.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from gymrail.agents.command import CommandAgent
from gymrail.agents.presets import PRESETS, find_program
from gymrail.models.scripted import Oracle
from gymrail.play import play
from gymrail.registry import find
from gymrail.rollout import Rollout
from gymrail.serving.hosting import LoopbackHost
from tests.interop.python import PACKAGES, virtual_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HERE = Path(__file__).parent
HOME = HERE.parents[1] / ".interop"
NPM = {"claude-code": "claude", "codex": "codex"}
EPISODES = 3
MAX_SECONDS_PER_EPISODE = 30.0


@pytest.fixture(scope="session")
def programs() -> dict[str, str]:
    """Install what is missing; return each agent's program."""
    node = HOME / "node"
    wanted = (HERE / "package.json").read_bytes()
    if not (node / "installed.json").is_file() or (node / "installed.json").read_bytes() != wanted:
        node.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "package.json", node)
        _run("npm", "install", "--no-package-lock", "--no-audit", "--no-fund", cwd=node)
        shutil.copy(HERE / "package.json", node / "installed.json")
    found = {name: str(node / "node_modules" / ".bin" / program) for name, program in NPM.items()}
    return found | {name: str(virtual_environment(name)) for name in PACKAGES}


@pytest.mark.parametrize("environment", ["session_counter", "treasure_hunt", "multi_step"])
@pytest.mark.parametrize("name", sorted(PRESETS))
def test_an_agent_plays_episodes_of_a_stateful_environment_for_the_full_reward(
    name: str, environment: str, programs: dict[str, str], record_property: pytest.RecordProperty
) -> None:
    spec = find(environment)

    async def run() -> list[Rollout]:
        agent = CommandAgent(find_program(name, programs[name]), LoopbackHost())
        try:
            return [await play(spec, task, Oracle(), agent=agent) for task in spec.tasks("train", limit=EPISODES)]
        finally:
            await agent.close()

    started = time.monotonic()
    rollouts = asyncio.run(run())
    seconds = (time.monotonic() - started) / EPISODES
    record_property("seconds_per_episode", round(seconds, 2))
    print(f"{name} on {environment}: {seconds:.2f} seconds per episode")
    assert [(rollout.failure, rollout.reward) for rollout in rollouts] == [(None, 1.0)] * EPISODES
    assert seconds < MAX_SECONDS_PER_EPISODE
    for rollout in rollouts:
        # The trajectory, read from what the agent asked the model, has every call of the journal under the
        # environment's names.
        said = [item["name"] for item in rollout.items if item["type"] == "function_call"]
        assert said == [call.name for call in rollout.calls]
        assert len([item for item in rollout.items if item["type"] == "function_call_output"]) == len(said)
        assert rollout.steps >= 2


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_an_agent_is_offered_the_episodes_tools_and_no_way_to_this_machine(name: str, programs: dict[str, str]) -> None:
    spec = find("session_counter")
    offered: set[str] = set()

    class Listing(Oracle):
        def bind(self, episode):  # type: ignore[no-untyped-def]
            inner = super().bind(episode)

            class Model:
                async def respond(self, request):  # type: ignore[no-untyped-def]
                    offered.update(tool["name"] for tool in request.tools)
                    from gymrail.serving.scripted import EpisodeScript

                    return await EpisodeScript(inner, episode).respond(request)

            return Model()

    async def run() -> None:
        agent = CommandAgent(find_program(name, programs[name]), LoopbackHost(), max_steps=1)
        try:
            await play(spec, next(spec.tasks("train", limit=1)), Listing(), agent=agent)
        finally:
            await agent.close()

    asyncio.run(run())
    assert {tool for tool in offered if tool.endswith(tuple(spec.tools))}
    assert not {
        tool
        for tool in offered
        if any(word in tool.lower() for word in ("shell", "exec", "bash", "write", "edit", "fetch", "agent"))
    }


def _run(*command: str, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
