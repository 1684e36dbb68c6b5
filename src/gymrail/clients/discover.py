"""Finding out what stands behind a URL, once, when an environment is named: its protocol, its tools, its settings."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urldefrag, urlsplit

import orjson
from pydantic import SecretStr, ValidationError

from gymrail.clients.foreign_tool import ForeignTool, foreign_tool
from gymrail.clients.remote import Protocol, RemoteConfig, RemoteEnvironment, RemoteSpec
from gymrail.clients.stepped import SteppedEnvironment
from gymrail.errors import GymrailError, InputError
from gymrail.models.http import HttpClient, Reply, TryAgain, Unreachable
from gymrail.spec import AgentSettings, DatasetEntry, Manifest, Split
from gymrail.tools import ToolOptions

_SECONDS = 10.0
_ANY_REWARD = (float("-inf"), float("inf"))
_HINT = "Is it running? `gymrail serve ENVIRONMENT` starts one."


def find_remote(name: str, *, key: str | None = None) -> RemoteSpec:
    """Load a remote environment by what a command line can say: `URL[,URL ...][#TASKS]`, where TASKS is a JSONL file to
    train on, or a folder with one per split as `gymrail data prepare` writes it.

    Raises:
        InputError: nothing answers there, it is no environment's server, or the folder has no file of tasks.
    """
    addresses, tasks = urldefrag(name)
    files = _by_split(Path(tasks)) if tasks and Path(tasks).is_dir() else tasks or None
    return remote_spec(addresses.split(","), key=key, tasks=files)


def remote_spec(
    urls: str | Sequence[str],
    *,
    key: str | None = None,
    tasks: str | Path | Mapping[Split, str | Path] | None = None,
    name: str | None = None,
    reward_range: tuple[float, float] | None = None,
    max_steps: int | None = None,
    timeout_seconds: float = 300.0,
    retries: int = 3,
) -> RemoteSpec:
    """Return the environment behind `urls`, usable wherever a local one is; asks the servers what they are.

    It waits for their answers, so an event loop that serves one of them itself must call this in a thread.

    Args:
        urls: where the environment is, one or several servers of the same.
        key: the servers' key, where they have one.
        tasks: JSONL files of task rows: one for training, or one per split.
        name: what its rollouts are called; the last part of the URL by default.
        reward_range: where the server does not say it; any finite reward passes by default.
        max_steps: model calls per episode, where the server does not say it.

    Raises:
        InputError: nothing answers there, or it is no environment's server.
    """
    addresses = tuple([urls] if isinstance(urls, str) else urls)
    protocol, is_stepped, about = _run(_ask_all(addresses, key))
    config = RemoteConfig(
        urls=addresses,
        protocol=protocol,
        key=SecretStr(key) if key else None,
        timeout_seconds=timeout_seconds,
        retries=retries,
    )
    files: dict[Split, str | Path] = {}
    if tasks is not None:
        files = dict(tasks) if isinstance(tasks, Mapping) else {"train": tasks}
    steps = max_steps or about.get("max_steps")
    told_range = about.get("reward_range")
    if told_range is not None and None in told_range:  # JSON has no infinity
        told_range = None
    try:
        manifest = Manifest(
            description=str(about.get("description") or f"The environment at {addresses[0]}"),
            reward_range=reward_range or told_range or _ANY_REWARD,
            datasets=[
                DatasetEntry(name=split, split=split, path=str(Path(path).absolute())) for split, path in files.items()
            ],
            agent=AgentSettings(max_steps=steps) if steps else AgentSettings.model_validate({}),
            reproducible=about.get("reproducible", True),
        )
    except ValidationError as error:
        raise InputError(f"What {addresses[0]} says of itself is unusable: {error}") from None
    tools = _tools(about) if config.protocol == "gymrail" else None
    kind = SteppedEnvironment if is_stepped else RemoteEnvironment
    called = name or str(about.get("name") or _name_of(addresses[0]))
    return RemoteSpec(called, kind, manifest, config, remote_tools=tools)


def _by_split(folder: Path) -> dict[Split, str | Path]:
    files: dict[Split, str | Path] = {
        split: folder / f"{split}.jsonl" for split in get_args(Split) if (folder / f"{split}.jsonl").is_file()
    }
    if not files:
        raise InputError(
            f"The folder '{folder}' has no file of tasks: it needs train.jsonl, validation.jsonl or such; "
            f"`gymrail data prepare ENVIRONMENT --split train --split validation -o {folder}` writes them."
        )
    return files


async def _ask_all(urls: Sequence[str], key: str | None) -> tuple[Protocol, bool, dict[str, Any]]:
    """What the first server that answers is: its protocol, whether it is driven by steps, what it says of itself."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    problems: list[str] = []
    for url in urls:
        http = HttpClient(url, headers, _SECONDS)
        try:
            return await _ask(http)
        except TryAgain as error:
            problems.append(str(error))
        except Unreachable as error:
            raise InputError(str(error)) from None
        finally:
            await http.close()
    raise InputError(f"No environment answers: {'; '.join(problems)}. {_HINT}")


async def _ask(http: HttpClient) -> tuple[Protocol, bool, dict[str, Any]]:
    reply = await http.get("tools", _SECONDS)
    about = _json(reply)
    if reply.status == 200 and isinstance(about, dict):
        return "gymrail", await _is_stepped(http), about
    if reply.status in (404, 405):
        # A resources server of NeMo Gym has no such route, but it has this one.
        root = await http.get("", _SECONDS)
        if root.status == 200 and _json(root) == {"status": "ok"}:
            return "nemo_gym", await _is_stepped(http), {}
    raise InputError(
        f"{http.shown_url} is no environment's server: GET tools answered {reply.status}. "
        "Give the environment's own address, http://HOST:PORT/NAME, and the server's key in GYMRAIL_KEY."
    )


async def _is_stepped(http: HttpClient) -> bool:
    """Whether there is a `/step`: it refuses a body that is none, where it exists, and does nothing."""
    reply = await http.post_json("step", b'{"response": "none"}', _SECONDS)
    return reply.status == 422


def _tools(about: Mapping[str, Any]) -> dict[str, ForeignTool]:
    found: dict[str, ForeignTool] = {}
    for tool in about.get("tools") or ():
        hints = tool.get("annotations") or {}
        options = ToolOptions(
            read_only=bool(hints.get("readOnlyHint")),
            destructive=bool(hints.get("destructiveHint")),
            idempotent=bool(hints.get("idempotentHint")),
        )
        parameters = tool.get("parameters") or tool.get("inputSchema")
        found[tool["name"]] = foreign_tool(
            tool["name"], tool.get("description") or "", parameters, strict=bool(tool.get("strict")), options=options
        )
    return found


def _json(reply: Reply) -> Any:
    try:
        return orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return None


def _name_of(url: str) -> str:
    parts = urlsplit(url)
    last = parts.path.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", last or parts.netloc)


def _run(coroutine: Any) -> Any:
    """Run a coroutine whether or not the caller is inside an event loop."""
    results: list[Any] = []
    failures: list[GymrailError] = []

    def run() -> None:
        try:
            results.append(asyncio.run(coroutine))
        except GymrailError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
