"""Tidy a private directory: sort, delete, edit and list papers whose text alone says what they are.

One row:

    {"responses_create_params": {"input": "Delete the papers of the client elm from before 2023. ..."},
     "files": {"inbox/paper-104.txt": "Kind: letter\\nClient: elm\\nYear: 2021\\n..."},
     "steps": [["delete_file", "inbox/paper-104.txt"]]}
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from random import Random

from pydantic import Field, field_validator

from gymrail import Config, Environment, Rollout, Task, Verdict
from gymrail.environment import Call, Turn
from gymrail_environments.file_tasks.office import Files as Texts
from gymrail_environments.file_tasks.office import Steps, make_office, make_request
from gymrail_mcp_servers.files.server import Files

PARAMETERS = {
    "move_file": ("source", "destination"),
    "delete_file": ("path",),
    "write_file": ("path", "content"),
    "edit_file": ("path", "old_text", "new_text"),
}
HOW = "Every paper is a .txt file somewhere in the directory; its first lines say what it is. Change nothing else."


class FileTasksConfig(Config):
    papers: int = Field(10, ge=4, le=200)
    """Files in the directory."""


DEFAULTS = FileTasksConfig()  # pyright: ignore[reportCallIssue]


class FileTask(Task):
    files: Texts
    steps: Steps
    """What leads to the wanted state; any other way there is as good."""

    @field_validator("steps")
    @classmethod
    def _are_known(cls, steps: Steps) -> Steps:
        for tool, *arguments in steps:
            if tool not in PARAMETERS or len(arguments) != len(PARAMETERS[tool]):
                raise ValueError(f"{[tool, *arguments]!r} is no step; a step is a tool of {', '.join(PARAMETERS)}")
        return steps


class FileTasks(Environment[FileTask]):
    """Right when every file is where it should be, with the text that it should have, and no other file is there."""

    Config = FileTasksConfig
    directory: Files

    @classmethod
    def generate(cls, rng: Random, config: FileTasksConfig = DEFAULTS) -> FileTask:
        while True:
            papers = make_office(rng, config.papers)
            request, steps = make_request(rng, papers)
            if steps:
                break
        return FileTask.ask(f"{request} {HOW}", files={one.path: one.text for one in papers}, steps=steps)

    async def seed(self) -> None:
        await self.directory.seed(files=self.task.files)

    async def verify(self, rollout: Rollout) -> Verdict:
        wanted, found = wanted_files(self.task), await asyncio.to_thread(self.directory.texts)
        paths = sorted(wanted.keys() | found.keys() | self.task.files.keys())
        wrong = [path for path in paths if wanted.get(path) != found.get(path)]
        changed = [path for path in paths if wanted.get(path) != self.task.files.get(path)]
        right = sum(path not in wrong for path in changed)
        unasked = sum(path not in changed for path in wrong)
        partial = right / (len(changed) + unasked)
        reason = f"{wrong[0]} is not as it should be, {len(wrong)} files in all" if wrong else None
        return Verdict(float(not wrong), metrics={"partial": partial, "wrong_files": len(wrong)}, reason=reason)

    def solve(self) -> Generator[Turn, str, None]:
        yield Call("search_files", {"text": "Kind:"})
        for tool, *arguments in self.task.steps:
            yield Call(tool, dict(zip(PARAMETERS[tool], arguments, strict=True)))
        yield "Done."

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Stop too early, or take the wrong paper."""
        if not isinstance(turn, Call) or turn.name not in PARAMETERS or rng.random() < 0.3:
            return turn if isinstance(turn, Call) and turn.name == "search_files" else "Done."
        first = PARAMETERS[turn.name][0]
        return Call(turn.name, {**turn.arguments, first: rng.choice(sorted(self.task.files))})


def wanted_files(task: FileTask) -> Texts:
    """Return what the steps make of the task's files."""
    files = dict(task.files)
    for tool, path, *rest in task.steps:
        if tool == "move_file":
            files[rest[0]] = files.pop(path)
        elif tool == "delete_file":
            del files[path]
        elif tool == "write_file":
            files[path] = rest[0]
        else:
            files[path] = files[path].replace(rest[0], rest[1])
    return files
