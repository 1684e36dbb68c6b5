"""Any MCP server as an environment: its tools, tasks from JSONL, and a verifier that a YAML file chooses.

    gymrail rollout mcp:shop/env.yaml --model ...

    # shop/env.yaml
    description: Keep the shop's books.
    server: {command: [uvx, mcp-server-sqlite, --db-path, "{episode_dir}/shop.db"]}     # or url: http://...
    tasks: tasks.jsonl
    verify:
      answer: {kind: exact}              # or math, or judge: against the row's `expected_answer`
      files: {nothing_else: true}        # the episode's folder against `expected_files`
      sqlite: {database: shop.db}        # against `expected_rows`

One row: {"responses_create_params": {"input": "Ship order 7."}, "setup_sql": "CREATE TABLE ...",
"expected_rows": [{"query": "SELECT state FROM orders", "rows": [["shipped"]]}]}. The reward is 1 when everything that
`verify` names is as expected; with `combine: mean` it is the share. The server is `MCPToolServer`'s: a fresh process in
a folder of its own, or a fresh session, per episode.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gymrail import environment as authoring
from gymrail.bridges.left_behind import file_problems, row_problems, run_script
from gymrail.bridges.naming import file_name
from gymrail.clients.mcp_tools import MCPToolServer, mcp_tool_server
from gymrail.data.jsonl import read_tasks
from gymrail.environment import Call, Environment, Turn
from gymrail.errors import InputError
from gymrail.rollout import Rollout, Verdict
from gymrail.spec import AgentSettings, DatasetEntry, EnvironmentSpec, Manifest, Properties, Split, explain
from gymrail.task import Task
from gymrail.verifiers.exact import ExactAnswer, Extract
from gymrail.verifiers.judge import JudgeSettings


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AnswerSettings(_Strict):
    """How the final answer is compared with the row's `expected_answer`."""

    kind: Literal["exact", "math", "judge"] = "exact"
    """`math` needs the extra `math`; `judge` a model."""
    extract: Extract = "auto"
    """Where `exact` looks: `boxed`, `tag`, `label`, `text`, `regex` with a `pattern`, or `auto`: the first of them."""
    pattern: str | None = None
    judge: JudgeSettings | None = None
    """The model that judges, for `judge`; the row's `question`, or its prompt, is shown to it."""


class FileSettings(_Strict):
    """The episode's folder against the row's `expected_files`."""

    nothing_else: bool = False
    """No other file may have been made, changed or deleted; the database of `sqlite` is none."""
    ignored: tuple[str, ...] = ()
    """Patterns of what the server itself may leave there: `*.log`, `.cache/*`."""


class SqliteSettings(_Strict):
    """A database in the episode's folder against the row's `expected_rows`."""

    database: str
    """Its path in the folder; the row's `setup_sql` makes it before the server starts."""


class MCPConfig(authoring.Config):
    """What is verified."""

    answer: AnswerSettings | None = None
    files: FileSettings | None = None
    sqlite: SqliteSettings | None = None
    combine: Literal["all", "mean"] = "all"
    """The reward of several: 1 if all are as expected, or their mean."""


class MCPFile(_Strict):
    """The YAML file."""

    description: str = ""
    server: dict[str, Any]
    """`MCPToolServer`'s settings: `command` or `url`, `variables`, `inherit`, `headers`, `allow`, `deny`, ..."""
    tasks: str | dict[Split, str]
    """JSONL files, relative to this one: one for training, or one per split."""
    verify: MCPConfig
    properties: Properties = Properties(rollout_structure="multi-step", capabilities=["tool use"])
    agent: AgentSettings = AgentSettings()  # pyright: ignore[reportCallIssue]
    license: str | None = None
    reproducible: bool = True


class MCPTask(Task):
    """What the server starts with, and what should be there in the end."""

    files: dict[str, str] = Field(default_factory=dict)
    setup_sql: str | None = None
    expected_answer: str | int | float | None = None
    expected_files: dict[str, Any] | None = None
    expected_rows: list[dict[str, Any]] | None = None
    question: str | None = None
    solution: list[Any] | None = None
    """The turns of a perfect agent: texts, and calls as {"name", "arguments"}."""


class MCPEnvironment(Environment[MCPTask]):
    """An episode with a server of its own."""

    Config = MCPConfig
    config: MCPConfig

    @classmethod
    def setup(cls, config: MCPConfig) -> Any:
        return None if config.answer is None else _answer_verifier(config.answer)

    @classmethod
    async def teardown(cls, shared: Any) -> None:
        if (closing := getattr(shared, "aclose", None)) is not None:
            await closing()

    @property
    def mcp(self) -> MCPToolServer:
        return vars(self)["server"]

    async def seed(self) -> None:
        for part, field in (("answer", "expected_answer"), ("files", "expected_files"), ("sqlite", "expected_rows")):
            if getattr(self.config, part) is not None and getattr(self.task, field) is None:
                raise InputError(f"Task {self.task.id} has no '{field}', which verify.{part} compares with.")
        if self.task.setup_sql is not None:
            if self.config.sqlite is None:
                raise InputError(f"Task {self.task.id} has 'setup_sql', and there is no verify.sqlite with a database.")
            await asyncio.to_thread(run_script, self.mcp.directory / self.config.sqlite.database, self.task.setup_sql)
        await self.mcp.seed(files=self.task.files)

    async def verify(self, rollout: Rollout) -> Verdict:
        task, config = self.task, self.config
        scores: dict[str, float] = {}
        reasons: list[str] = []
        if config.answer is not None:
            fields = {"question": task.question or _prompt_of(task)} if config.answer.kind == "judge" else {}
            verdict = await self.shared(rollout.final_text, expected_answer=str(task.expected_answer), **fields)
            scores["answer"] = verdict.reward
            reasons += [verdict.reason] if verdict.reason and verdict.reward < 1 else []
        for name, problems in (("files", await self._file_problems()), ("sqlite", await self._row_problems())):
            if problems is not None:
                scores[name] = float(not problems)
                reasons += problems
        reward = min(scores.values()) if config.combine == "all" else sum(scores.values()) / len(scores)
        return Verdict(reward, metrics=scores, reason="; ".join(reasons)[:1000] or None)

    async def _file_problems(self) -> list[str] | None:
        settings, task = self.config.files, self.task
        if settings is None:
            return None
        database = self.config.sqlite.database if self.config.sqlite else None
        ignored = (*settings.ignored, *([database, f"{database}-*"] if database else ()))
        seeded = task.files if settings.nothing_else else None
        expected = task.expected_files or {}
        return await asyncio.to_thread(file_problems, self.mcp.directory, expected, seeded=seeded, ignored=ignored)

    async def _row_problems(self) -> list[str] | None:
        if self.config.sqlite is None:
            return None
        database = self.mcp.directory / self.config.sqlite.database
        return await asyncio.to_thread(row_problems, database, self.task.expected_rows or [])


class SolvedMCPEnvironment(MCPEnvironment):
    """The same, where rows bring their solutions."""

    def solve(self) -> Generator[Turn, Any, None]:
        if self.task.solution is None:
            raise InputError(f"Task {self.task.id} has no 'solution'.")
        for turn in self.task.solution:
            yield turn if isinstance(turn, str) else Call(turn["name"], turn.get("arguments") or {})


def find(name: str) -> EnvironmentSpec:
    """Load the environment of a YAML file, or of the `env.yaml` in a folder.

    Raises:
        InputError: there is no such file, or what it says is wrong.
    """
    path = Path(name)
    path = (path / "env.yaml" if path.is_dir() else path).absolute()
    file = _read(path)
    config = file.verify
    if not (config.answer or config.files or config.sqlite):
        raise InputError(f"{path}: 'verify' names nothing; give it one or more of answer, files and sqlite.")
    if file.server.get("url") and (config.files or config.sqlite):
        raise InputError(
            f"{path}: a server behind a URL has no folder here, so verify.files and verify.sqlite cannot be."
        )
    tasks: Mapping[Split, str] = {"train": file.tasks} if isinstance(file.tasks, str) else file.tasks
    datasets = [
        DatasetEntry(name=split, split=split, path=str(path.parent / place), license=file.license)
        for split, place in tasks.items()
    ]
    manifest = Manifest(
        description=file.description or f"The MCP server of {path.name}",
        properties=file.properties,
        datasets=datasets,
        agent=file.agent,
        license=file.license,
        reproducible=file.reproducible,
    )
    server = mcp_tool_server("server", **{**file.server, **_in_folder(file.server, path.parent)})
    first = next(iter(read_tasks(Path(datasets[0].path or ""), MCPTask)), None)
    kind = SolvedMCPEnvironment if first is not None and first.solution is not None else MCPEnvironment
    called = file_name(path.parent.name if path.name == "env.yaml" else path.stem)
    cls: Any = type(called, (kind,), {"__annotations__": {"server": server}, "__module__": __name__})
    return EnvironmentSpec(called, cls, manifest, config, path, f"mcp:{path}")


def _read(path: Path) -> MCPFile:
    if not path.is_file():
        raise InputError(f"There is no file '{path}'; mcp: is followed by a YAML file, as in docs/bridges.md.")
    try:
        return MCPFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {error}") from None
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error, MCPFile)}") from None


def _in_folder(server: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Words of the command that begin with `./` are files beside the YAML file, for the server runs somewhere else; the
    program `python` is the one that runs this."""
    command = server.get("command")
    if not isinstance(command, list):
        return {}
    words = [str(folder / str(word)) if str(word).startswith("./") else str(word) for word in command]
    return {"command": [sys.executable if words[:1] == ["python"] else words[0], *words[1:]] if words else []}


def _answer_verifier(settings: AnswerSettings) -> Any:
    if settings.kind == "math":
        from gymrail.verifiers.math import MathVerify

        return MathVerify()
    if settings.kind == "judge":
        if settings.judge is None:
            raise InputError("verify.answer is of kind 'judge' and names no judge; give it judge: {model: ...}.")
        return settings.judge.judge()
    return ExactAnswer(settings.extract, pattern=settings.pattern)


def _prompt_of(task: Task) -> str:
    contents = [item.get("content") for item in task.input_items if item.get("role") == "user"]
    return "\n\n".join(content for content in contents if isinstance(content, str))
