import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import Field

from gymrail import Environment, Rollout, Task
from gymrail.clients.mcp_tools import MCPToolServer, mcp_tool_server
from gymrail.environment import call
from gymrail.episode import Episode
from gymrail.errors import EpisodeFailed, InputError
from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.spec import EnvironmentSpec

HERE = Path(__file__).parent
NOTES = (sys.executable, str(HERE / "notes_server.py"))
ASKING = (sys.executable, str(HERE / "asking_server.py"))


class Notes(MCPToolServer):
    command = NOTES
    allow = ("add_note", "read_notes", "variables", "picture", "talk", "die", "spawn", "wait")
    deny = ("picture",)
    rename: ClassVar = {"add_note": "write"}
    timeouts: ClassVar = {"wait": 1.0}
    variables: ClassVar = {"PLACE": "{episode_dir}"}
    max_output_characters = 100


class Pictures(MCPToolServer):
    command = NOTES
    allow = ("picture",)


class Asking(MCPToolServer):
    command = ASKING


class NoteTask(Task):
    wanted: str
    files: dict[str, str] = Field(default_factory=dict)


class Keep(Environment[NoteTask]):
    """Keep a note."""

    notes: Notes

    async def seed(self) -> None:
        await self.notes.seed(files=self.task.files)

    def verify(self, rollout: Rollout) -> float:
        path = self.notes.directory / "notes.txt"
        return float(path.exists() and path.read_text() == self.task.wanted)


class Ask(Environment[Task]):
    """Ask."""

    asking: Asking
    pictures: Pictures

    def verify(self, rollout: Rollout) -> float:
        return 1.0


def keep(wanted: str = "milk\n", **fields: Any) -> tuple[EnvironmentSpec, NoteTask]:
    return EnvironmentSpec("keep", Keep), NoteTask.ask("Note: milk", wanted=wanted, **fields)


def test_an_episode_is_played_with_the_tools_of_an_mcp_server_and_judged_by_its_files() -> None:
    spec, task = keep("bread\nmilk\n", files={"notes.txt": "bread\n"})
    model = ScriptedModel([call("write", text="milk"), call("read_notes"), "Done."])
    rollout = asyncio.run(play(spec, task, model))
    assert rollout.reward == 1.0
    assert [one.output for one in rollout.calls] == ["Noted.", "bread\nmilk\n"]


def test_tools_are_filtered_and_renamed_and_keep_their_schema_and_hints() -> None:
    spec, task = keep()
    assert list(spec.tools) == ["write", "read_notes", "variables", "talk", "wait", "die", "spawn"]
    write = spec.tools["write"]
    assert write.description == "Write a note."
    assert write.parameters["properties"]["text"]["type"] == "string"
    assert write.parameters["required"] == ["text"]
    assert spec.tools["read_notes"].options.read_only
    assert spec.tools["wait"].options.timeout_seconds == 1.0
    assert spec.tool_schemas(task)[0]["name"] == "write"


def test_episodes_at_once_have_processes_and_directories_of_their_own_and_leave_nothing() -> None:
    async def main() -> tuple[list[Episode], list[str], list[Path], list[int]]:
        spec, task = keep()
        episodes = [await Episode.open(spec, task) for _ in range(4)]
        servers = [episode.environment.notes for episode in episodes]
        await asyncio.gather(*(one.call("write", {"text": f"note {index}"}) for index, one in enumerate(episodes)))
        calls = await asyncio.gather(*(one.call("read_notes", {}) for one in episodes))
        directories = [server.directory for server in servers]
        processes = [server._connection.process.pid for server in servers]
        for episode in episodes:
            await episode.close()
        return episodes, [str(one.output) for one in calls], directories, processes

    _, outputs, directories, processes = asyncio.run(main())
    assert outputs == [f"note {index}\n" for index in range(4)]
    assert len(set(directories)) == 4
    assert not any(directory.exists() for directory in directories)
    assert not any(is_alive(process) for process in processes)


def test_closing_kills_the_children_of_the_server_too() -> None:
    async def main() -> int:
        episode = await Episode.open(*keep())
        child = int(str((await episode.call("spawn", {})).output))
        assert is_alive(child)
        await episode.close()
        return child

    child = asyncio.run(main())
    deadline = time.monotonic() + 120
    while is_alive(child) and time.monotonic() < deadline:
        os.sched_yield()
    assert not is_alive(child)


def test_the_server_sees_no_variable_that_it_was_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")

    async def main() -> str:
        episode = await Episode.open(*keep())
        try:
            return str((await episode.call("variables", {})).output)
        finally:
            await episode.close()

    seen = set(asyncio.run(main()).split())
    assert "PLACE" in seen
    assert seen <= {"HOME", "LANG", "LC_ALL", "LC_CTYPE", "PATH", "PLACE", "TMPDIR", "TZ"}


def test_what_the_server_refuses_goes_back_to_the_model_and_the_episode_goes_on() -> None:
    spec, task = keep()
    turns = [call("write", text=""), call("write", words=1), call("write", text="milk"), "Done."]
    rollout = asyncio.run(play(spec, task, ScriptedModel(turns)))
    assert [one.is_error for one in rollout.calls] == [True, True, False]
    assert "A note has words." in str(rollout.calls[0].output)
    assert "text" in str(rollout.calls[1].output)
    assert rollout.reward == 1.0


def test_a_long_output_is_cut_and_the_model_is_told() -> None:
    spec, task = keep()
    rollout = asyncio.run(play(spec, task, ScriptedModel([call("talk", length=150), "Done."])))
    assert rollout.calls[0].output == "x" * 100 + "\n[cut: 50 more characters]"


def test_a_server_that_dies_fails_the_rollout_as_infrastructure_with_its_last_words() -> None:
    spec, task = keep("")
    rollout = asyncio.run(play(spec, task, ScriptedModel([call("die"), "Done."])))
    assert rollout.reward is None
    assert rollout.failure is not None
    assert rollout.failure.kind == "infrastructure"
    assert "exit code 7" in rollout.failure.message
    assert "the disk is full" in rollout.failure.message


def test_a_tool_that_takes_longer_than_its_limit_fails_the_rollout_as_timeout() -> None:
    spec, task = keep("")
    rollout = asyncio.run(play(spec, task, ScriptedModel([call("wait"), "Done."])))
    assert rollout.failure is not None
    assert (rollout.failure.kind, rollout.reward) == ("timeout", None)


def test_pictures_reach_the_model_as_pictures() -> None:
    spec = EnvironmentSpec("ask", Ask)
    rollout = asyncio.run(play(spec, Task.ask("Draw"), ScriptedModel([call("picture", words="a cat"), "Done."])))
    output = rollout.calls[0].output
    assert isinstance(output, list)
    assert output[0] == {"type": "input_text", "text": "a cat"}
    assert output[1]["image_url"] == "data:image/png;base64,iVBORw0KGgo="


def test_requests_and_notifications_of_the_server_are_answered_in_the_middle_of_a_call() -> None:
    spec = EnvironmentSpec("ask", Ask)
    rollout = asyncio.run(play(spec, Task.ask("Ask"), ScriptedModel([call("ask"), "Done."])))
    assert rollout.calls[0].output == '{"refused":-32601,"pinged":{}}'


def test_a_protocol_error_is_a_failure_of_the_tool_and_bad_parameters_are_the_models_mistake() -> None:
    spec = EnvironmentSpec("ask", Ask)
    mistaken = asyncio.run(play(spec, Task.ask("Ask"), ScriptedModel([call("odd", code=-32602), "Done."])))
    assert (mistaken.calls[0].output, mistaken.calls[0].is_error, mistaken.reward) == ("the tool broke", True, 1.0)
    broken = asyncio.run(play(spec, Task.ask("Ask"), ScriptedModel([call("odd"), "Done."])))
    assert broken.failure is not None
    assert (broken.failure.kind, broken.reward) == ("tool", None)


def test_a_server_that_never_answers_is_given_up_and_killed(tmp_path: Path) -> None:
    place = tmp_path / "pid"
    script = f"echo $$ > {place}; exec sleep 3600"
    for seconds in (0.5, 5.5, 50.5):  # until the shell came so far
        slow = mcp_tool_server("Slow", command=["sh", "-c", script], start_seconds=seconds)
        with pytest.raises(InputError, match=rf"did not answer within {seconds} seconds"):
            slow.tools  # noqa: B018 - reads the server
        if place.exists() and place.read_text():
            break
    assert not is_alive(int(place.read_text()))


def test_a_server_that_was_never_called_was_never_started() -> None:
    async def main() -> Any:
        episode = await Episode.open(EnvironmentSpec("ask", Ask), Task.ask("Ask"))
        connection = episode.environment.asking._connection
        await episode.close()
        return connection

    assert asyncio.run(main()) is None


def test_a_file_outside_the_episodes_directory_is_refused() -> None:
    spec, task = keep(files={"../escape.txt": "x"})
    with pytest.raises(EpisodeFailed, match="outside the episode's directory"):
        asyncio.run(Episode.open(spec, task))


def test_mistakes_of_the_author_are_said_when_the_environment_is_loaded() -> None:
    with pytest.raises(InputError, match=re.escape("allow names 'read_note'") + ".*Did you mean 'read_notes'"):
        mcp_tool_server("Wrong", command=NOTES, allow=["read_note"]).tools  # noqa: B018 - reads the server
    with pytest.raises(InputError, match="cannot be started"):
        mcp_tool_server("Missing", command=["no-such-program"]).tools  # noqa: B018
    with pytest.raises(InputError, match="gone"):
        mcp_tool_server("Silent", command=["true"]).tools  # noqa: B018
    with pytest.raises(InputError, match="by `command` or by `url`"):
        mcp_tool_server("Both", command=NOTES, url="http://localhost/mcp")
    with pytest.raises(InputError, match="Did you mean 'command'"):
        mcp_tool_server("Typo", comand=NOTES)


@pytest.fixture(scope="module", params=["stream", "json"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:  # handed over, so that nobody else gets the port
        number, port = listening.fileno(), listening.getsockname()[1]
        command = [*NOTES, str(number), *(["json"] if request.param == "json" else [])]
        folder = request.getfixturevalue("tmp_path_factory").mktemp("notes")
        process = subprocess.Popen(command, cwd=folder, pass_fds=[number])
    try:
        with contextlib.suppress(urllib.error.HTTPError):  # an answer, whichever
            urllib.request.urlopen(f"http://127.0.0.1:{port}/nothing", timeout=300)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_a_server_behind_a_url_has_its_tools_called(address: str) -> None:
    remote = mcp_tool_server("Remote", url=address, allow=["add_note", "read_notes", "picture"])

    async def main() -> list[Any]:
        server = remote()
        await server.seed()
        try:
            written = await server.call_tool("add_note", {"text": "milk"})
            return [written, await server.call_tool("read_notes", {})]
        finally:
            await server.close()

    assert list(remote.tools) == ["add_note", "read_notes", "picture"]
    written, notes = asyncio.run(main())
    assert written == "Noted."
    assert notes.startswith("milk\n")


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
