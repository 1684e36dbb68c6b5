"""MCP servers nobody here wrote, as tool servers of an environment. Run by `make interop`; npm installs them once."""

from __future__ import annotations

import asyncio
import subprocess
import time
from pathlib import Path

import orjson
import pytest

from gymrail import Environment, Rollout, Task
from gymrail.clients.mcp_tools import MCPToolServer
from gymrail.environment import call
from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.spec import EnvironmentSpec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

VERSION = "2026.8.31"
HOME = Path(__file__).parents[2] / ".interop" / "mcp_servers"
PACKAGES = [f"@modelcontextprotocol/server-{name}@{VERSION}" for name in ("filesystem", "memory")]


def program(name: str) -> tuple[str, str]:
    return ("node", str(HOME / "node_modules" / "@modelcontextprotocol" / f"server-{name}" / "dist" / "index.js"))


class Files(MCPToolServer):
    command = (*program("filesystem"), "{episode_dir}")
    allow = ("read_text_file", "write_file", "move_file", "list_directory")
    rename = {"read_text_file": "read_file"}  # noqa: RUF012 - as an author writes it


class Memory(MCPToolServer):
    command = program("memory")
    variables = {"MEMORY_FILE_PATH": "{episode_dir}/memory.jsonl"}  # noqa: RUF012
    deny = ("delete_entities", "delete_observations", "delete_relations")


class FilesTask(Task):
    wanted: dict[str, str]


class Tidy(Environment[FilesTask]):
    """Put a file in order, and remember whose it is."""

    files: Files
    memory: Memory

    async def seed(self) -> None:
        await self.files.seed(files={"draft.txt": "hello"})

    def verify(self, rollout: Rollout) -> float:
        """The files are the truth, not what the servers said."""
        files = {path.name: path.read_text() for path in self.files.directory.iterdir() if path.is_file()}
        stored = self.memory.directory / "memory.jsonl"
        entities = [orjson.loads(line) for line in stored.read_bytes().splitlines()] if stored.exists() else []
        remembered = any(entity.get("name") == "Ada" for entity in entities)
        return float(files == self.task.wanted) * (1.0 if remembered else 0.5)


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    HOME.mkdir(parents=True, exist_ok=True)
    marker = HOME / f"installed-{VERSION}"
    if not marker.exists():
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", *PACKAGES], cwd=HOME, check=True)
        marker.touch()


def script(place: str) -> ScriptedModel:
    ada = {"name": "Ada", "entityType": "person", "observations": ["owns done.txt"]}
    return ScriptedModel(
        [
            call("read_file", path="draft.txt"),
            call("write_file", path=f"{place}/done.txt", content="hello world"),
            call("create_entities", entities=[ada]),
            call("read_file", path="/etc/passwd"),
            call("search_nodes", query="Ada"),
            "Done.",
        ]
    )


def test_episodes_of_the_filesystem_and_the_memory_server_are_played_at_once_and_judged_by_their_files() -> None:
    spec = EnvironmentSpec("tidy", Tidy)
    task = FilesTask.ask("Tidy up.", wanted={"draft.txt": "hello", "done.txt": "hello world"})
    lazy = ScriptedModel(["Nothing to do."])

    async def main() -> list[Rollout]:
        return list(
            await asyncio.gather(*(play(spec, task, lazy if index % 4 == 3 else script(".")) for index in range(8)))
        )

    assert {"read_file", "write_file", "create_entities"} <= set(spec.tools)
    assert not {"read_text_file", "edit_file", "delete_entities"} & set(spec.tools)
    started = time.monotonic()
    rollouts = asyncio.run(main())
    assert time.monotonic() - started < 60
    for index, rollout in enumerate(rollouts):
        assert rollout.failure is None, rollout.failure
        assert rollout.reward == (0.0 if index % 4 == 3 else 1.0)
    outputs = rollouts[0].calls
    assert outputs[0].output == "hello"
    assert [one.is_error for one in outputs] == [False, False, False, True, False]
    assert "access denied" in str(outputs[3].output).lower()
    assert "owns done.txt" in str(outputs[4].output)
