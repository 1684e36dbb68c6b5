"""A program as the agent: anything that can talk to an MCP server plays the episode.

    agent = CommandAgent(Program(("my-agent", "--mcp", "{mcp_url}")), LoopbackHost())
    rollout = await play(spec, task, model, agent=agent)

The program gets the episode's tools at an MCP address of its own, the task's text, and the address of a model server
that speaks Responses, Chat Completions and Anthropic's Messages and records what it is asked, so that the trajectory
has the model's own items and token ids.

Covers: a private folder as home, an environment without our variables, its own process group, limits of time and model
calls, the end of everything that it started in that group.
Does not cover: a sandbox. The program runs as this user: where it can read files, it can read the environment's. Give
it no such tools, or run it in a container.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import orjson

from gymrail.environment import Environment
from gymrail.episode import Episode
from gymrail.errors import EpisodeFailed, Failure, InputError, ModelError
from gymrail.models.model import FinishReason, Model, ModelRequest, ModelResponse, function_call, message
from gymrail.rollout import Outcome, Reason, Usage, text_of

SERVER_NAME = "env"
MODEL_NAME = "gymrail"
_KEPT_VARIABLES = ("LANG", "LC_ALL", "LC_CTYPE", "PATH", "SSL_CERT_DIR", "SSL_CERT_FILE", "TZ")
_LOOK_SECONDS = 0.1
"""How often a running program's episode is looked at: whether it is done or out of steps."""
_GRACE_SECONDS = 5.0
"""Between SIGTERM and SIGKILL."""
_TAIL_BYTES = 64 * 1024
_SHOWN_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Program:
    """How a program is started. Its words, files and variables may hold {prompt}, {mcp_url}, {mcp_config} (a file in
    the form that Claude and Cursor read), {model_url} (without /v1), {model} and {folder}; the prompt comes on stdin
    where no word holds it."""

    command: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """By their path in the program's folder."""

    def __post_init__(self) -> None:
        if not self.command:
            raise InputError("The command is empty; name a program: --command 'PROGRAM ARGUMENTS'.")


class OwnModel:
    """Stands for a model that the program brings itself; nothing is served to it, and nothing recorded but its tool
    calls."""

    async def respond(self, request: ModelRequest) -> ModelResponse:
        raise ModelError("The program brings its own model; this agent has none to ask.")


class StageReport(NamedTuple):
    """What became of the model calls."""

    calls: int
    failure: Failure | None = None
    overflowed: bool = False
    exhausted_by: Reason | None = None
    """The limit for which a model call was refused."""
    finish_reason: FinishReason = "stop"
    """Of the last."""


class Stage(Protocol):
    """An episode that a program can reach."""

    mcp_url: str
    model_url: str | None

    @property
    def exhausted_by(self) -> Reason | None:
        """The limit for which the program was refused another model call."""
        ...

    def finish(self) -> StageReport:
        """Write what was recorded into the rollout."""
        ...


class Host(Protocol):
    """Makes an episode reachable; `gymrail.serving.hosting.LoopbackHost` is one."""

    def stage(
        self, episode: Episode, model: Model | None, parameters: dict[str, Any], max_steps: int | None
    ) -> contextlib.AbstractAsyncContextManager[Stage]: ...

    async def close(self) -> None: ...


class _Ended(NamedTuple):
    code: int | None
    """None where we stopped it."""
    output: str
    errors: str
    limit: Reason | None = None
    """Why we stopped it."""


@dataclass(frozen=True, slots=True)
class CommandAgent:
    """Plays an episode by running a program once. For environments without user turns of their own."""

    program: Program
    host: Host
    max_steps: int | None = None
    """Model calls that offer tools; the environment's own setting by default."""
    parameters: tuple[tuple[str, Any], ...] = ()
    """Responses parameters that replace the task's; what the program asks for does not count."""
    pass_variables: tuple[str, ...] = ()
    """Names of our environment variables that the program gets too."""

    async def run(self, episode: Episode, model: Model) -> Outcome:
        spec, task = episode.spec, episode.task
        if spec.cls.reply is not Environment.reply:
            raise InputError(
                f"{spec.name} answers with user turns, and a program is asked once; play it with --agent tool_loop."
            )
        sampling = {
            name: task.responses_create_params.get(name) for name in ("temperature", "top_p", "max_output_tokens")
        }
        parameters = {name: value for name, value in sampling.items() if value is not None} | dict(self.parameters)
        answering = None if isinstance(model, OwnModel) else model
        max_steps = self.max_steps or spec.manifest.agent.max_steps
        async with self.host.stage(episode, answering, parameters, max_steps) as stage:
            ended = await self._run(episode, stage)
            report = stage.finish()
        if answering is None:
            _take_journal(episode, ended.output)
        return _outcome(episode, ended, report, has_model=answering is not None)

    async def close(self) -> None:
        """Stop what the host runs."""
        await self.host.close()

    async def _run(self, episode: Episode, stage: Stage) -> _Ended:
        prompt = prompt_text(episode)
        with tempfile.TemporaryDirectory(prefix="gymrail-agent-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            filled = _Filled(prompt, stage, folder)
            _write(folder, filled.config_file, _mcp_config(stage))
            for path, text in self.program.files.items():
                _write(folder, folder / path, filled(text))
            words = [filled(word) for word in self.program.command]
            stdin = b"" if any("{prompt}" in word for word in self.program.command) else prompt.encode()
            variables = {name: filled(value) for name, value in self.program.variables.items()}
            async with _process(words, folder, {**self._environment(folder, stage), **variables}) as process:
                return await _watch(process, stdin, episode, stage)

    def _environment(self, folder: Path, stage: Stage) -> dict[str, str]:
        kept = {name: os.environ[name] for name in (*_KEPT_VARIABLES, *self.pass_variables) if name in os.environ}
        own = {"HOME": str(folder), "TMPDIR": str(folder), "GYMRAIL_MCP_URL": stage.mcp_url}
        if stage.model_url is not None:
            key = {"OPENAI_API_KEY": "unused", "ANTHROPIC_API_KEY": "unused"}
            own |= {
                "OPENAI_BASE_URL": f"{stage.model_url}/v1",
                "ANTHROPIC_BASE_URL": stage.model_url,
                "GYMRAIL_MODEL": MODEL_NAME,
                **key,
            }
        return kept | own


def prompt_text(episode: Episode) -> str:
    """The task as one text: instructions, system message, the user's words.

    Raises:
        InputError: the prompt has pictures, or turns of an assistant.
    """
    rollout = episode.rollout
    texts = [episode.task.responses_create_params.get("instructions") or ""]
    for item in rollout.conversation[: rollout.prompt_length]:
        content = item.get("content")
        parts = [] if isinstance(content, str) else content or []
        if item.get("role") not in ("user", "system", "developer") or any("text" not in part for part in parts):
            raise InputError(f"A prompt for a program is text alone, and task {episode.task.id} has {item!r:.200}.")
        texts.append(text_of(item))
    return "\n\n".join(text for text in texts if text)


class _Filled:
    """Fills the placeholders of a program's words."""

    def __init__(self, prompt: str, stage: Stage, folder: Path) -> None:
        self.config_file = folder / "mcp.json"
        self.values = {
            "mcp_url": stage.mcp_url, "mcp_config": str(self.config_file), "model_url": stage.model_url or "",
            "model": MODEL_NAME, "folder": str(folder), "prompt": prompt,
        }  # fmt: skip

    def __call__(self, text: str) -> str:
        # The prompt comes last: its own braces are the task's.
        for name, value in self.values.items():
            text = text.replace(f"{{{name}}}", value)
        return text


def _mcp_config(stage: Stage) -> str:
    return orjson.dumps({"mcpServers": {SERVER_NAME: {"type": "http", "url": stage.mcp_url}}}).decode()


def _write(folder: Path, path: Path, text: str) -> None:
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"The program's file '{path}' lies outside its folder; give a path inside it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@contextlib.asynccontextmanager
async def _process(
    words: list[str], folder: Path, environment: dict[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program as the leader of a process group, and end the whole group with the block."""
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *words, cwd=folder, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )
    except OSError as error:
        raise InputError(f"The program {words[0]!r} cannot be started: {error.strerror or error}.") from None
    try:
        try:
            yield process
        finally:
            if process.returncode is None:
                _signal(process.pid, signal.SIGTERM)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_GRACE_SECONDS):
                        await process.wait()
    finally:  # also where the wait itself is cancelled
        _signal(process.pid, signal.SIGKILL)  # and whatever it left behind
        await process.wait()


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


async def _watch(process: asyncio.subprocess.Process, stdin: bytes, episode: Episode, stage: Stage) -> _Ended:
    """Wait for the program's end, or for ours to its running.

    Raises:
        EpisodeFailed: it ran past the episode's limit.
    """
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    readers = [asyncio.create_task(_tail(stream)) for stream in (process.stdout, process.stderr)]
    feeding = asyncio.create_task(_feed(process.stdin, stdin))
    waiting = asyncio.create_task(process.wait())
    deadline = time.monotonic() + episode.remaining_seconds
    try:
        while not waiting.done() and not episode.is_done and not _limit_of(episode, stage) and episode.failure is None:
            episode.touch()
            if time.monotonic() >= deadline:
                message = f"the program ran longer than the episode's {episode.limits.episode_seconds:g} seconds"
                raise EpisodeFailed(Failure("timeout", "model", message))
            await asyncio.wait([waiting], timeout=_LOOK_SECONDS)
        if not waiting.done():
            return _Ended(None, "", "", _limit_of(episode, stage))
        # What it started may hold its pipes open; nobody waits for that.
        await asyncio.wait(readers, timeout=_LOOK_SECONDS)
        _signal(process.pid, signal.SIGKILL)
        await asyncio.wait(readers, timeout=_GRACE_SECONDS)
        output, errors = [
            reader.result().decode("utf-8", "replace").strip() if reader.done() else "" for reader in readers
        ]
        return _Ended(waiting.result(), output, errors)
    finally:
        for task in (*readers, feeding, waiting):
            task.cancel()


def _limit_of(episode: Episode, stage: Stage) -> Reason | None:
    is_late = episode.limits.reached(Usage(), episode.seconds)  # what its model calls cost is told by the stage
    return stage.exhausted_by or episode.refused_by or is_late


async def _feed(stream: asyncio.StreamWriter, text: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        stream.write(text)
        await stream.drain()
        stream.close()


async def _tail(stream: asyncio.StreamReader) -> bytes:
    """Read to the end and keep the last of it."""
    kept = b""
    while chunk := await stream.read(_TAIL_BYTES):
        kept = (kept + chunk)[-_TAIL_BYTES:]
    return kept


def _take_journal(episode: Episode, output: str) -> None:
    """Without a model of ours the journal is all there is, and what the program printed is its answer."""
    rollout = episode.rollout
    for call in rollout.calls:
        rollout.conversation.append(function_call(call.name, call.arguments, call.call_id))
        rollout.conversation.append({"type": "function_call_output", "call_id": call.call_id, "output": call.output})
    rollout.conversation.append(message(output))


def _outcome(episode: Episode, ended: _Ended, report: StageReport, *, has_model: bool) -> Outcome:
    if episode.failure is not None:
        raise EpisodeFailed(episode.failure)
    limit = report.exhausted_by or episode.refused_by or ended.limit
    if limit is not None and not episode.is_done:
        return Outcome("truncated", reason=limit)
    if ended.code is None or episode.is_done:
        return Outcome("scored")  # the environment ended the episode, whatever the program made of that
    if report.overflowed:
        return Outcome("truncated", reason="context")
    if report.failure is not None:
        raise EpisodeFailed(report.failure)
    said = (ended.errors or ended.output)[-_SHOWN_CHARACTERS:]
    if ended.code != 0:
        raise EpisodeFailed(
            Failure("infrastructure", "model", f"the program ended with code {ended.code}: {said or 'it said nothing'}")
        )
    if has_model and report.calls == 0:
        message = f"the program ended without a model call: {said or 'it said nothing'}"
        raise EpisodeFailed(Failure("infrastructure", "model", message))
    if report.finish_reason != "stop":
        return Outcome("truncated", reason=report.finish_reason)
    return Outcome("scored")
