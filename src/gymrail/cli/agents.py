"""Which agent plays: `--agent` and what belongs to it, for the commands that play episodes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from gymrail.agents.tool_loop import Agent
    from gymrail.models.model import EpisodePolicy, Model

TOOL_LOOP, COMMAND = "tool_loop", "command"
OWN_MODEL = "own"
DEFAULT_CONCURRENCY = 64
_CONCURRENCY_OF_PROGRAMS = 4

AgentName = Annotated[
    str,
    typer.Option(
        "--agent", metavar="AGENT",
        help="tool_loop, command, or a ready-made program: claude-code, codex, openai-agents, langgraph.",
    ),
]  # fmt: skip
CommandText = Annotated[
    str | None,
    typer.Option(
        "--command", metavar="COMMAND",
        help="With --agent command, the program that plays; "
        "its words may hold {prompt}, {mcp_url}, {mcp_config}, {model_url}, {folder}.",
    ),
]  # fmt: skip
ProgramPath = Annotated[
    str | None,
    typer.Option(
        "--program",
        metavar="PATH",
        help="A ready-made program's file, or the Python that has the SDK, where it is not on the PATH.",
    ),
]
PassedVariables = Annotated[
    list[str] | None,
    typer.Option("--pass-env", metavar="NAME", help="Environment variable that the program gets too; may be repeated."),
]


@dataclass(frozen=True, slots=True)
class AgentChoice:
    """What the command line says about the agent."""

    name: str = TOOL_LOOP
    command: str | None = None
    program: str | None = None
    pass_variables: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        from gymrail.agents.presets import PRESETS
        from gymrail.errors import InputError, did_you_mean

        known = (TOOL_LOOP, COMMAND, *PRESETS)
        if self.name not in known:
            raise InputError(f"There is no agent {self.name!r}. {did_you_mean(self.name, known)}")
        if (self.command is not None) != (self.name == COMMAND):
            raise InputError("--agent command and --command 'PROGRAM ARGUMENTS' go together; give both or none.")
        if self.program is not None and self.name not in PRESETS:
            raise InputError(
                f"--program says where a ready-made agent is ({', '.join(PRESETS)}); the agent here is {self.name!r}."
            )

    @property
    def is_program(self) -> bool:
        return self.name != TOOL_LOOP

    def config(self) -> dict[str, Any]:
        """What a run's configuration remembers of who plays, as JSON."""
        if not self.is_program:
            return {"agent": self.name}
        found = {"agent": self.command or self.name, "pass_env": list(self.pass_variables)}
        return {**found, "program": self.program} if self.program is not None else found

    def concurrency(self, asked: int) -> int:
        """Programs cost memory and CPU, so fewer of them run at once unless more are asked for."""
        return min(asked, _CONCURRENCY_OF_PROGRAMS) if self.is_program and asked == DEFAULT_CONCURRENCY else asked

    def model(self, text: str, **options: Any) -> Model | EpisodePolicy:
        """Build the model that `--model` names; a program may bring one of its own.

        Raises:
            InputError: as `build_model`.
        """
        from gymrail.models.build import build_model

        if self.is_program and text == OWN_MODEL:
            from gymrail.agents.command import OwnModel

            return OwnModel()
        return build_model(text, **options)

    def build(self, max_steps: int | None, parameters: tuple[tuple[str, Any], ...]) -> Agent:
        """Build the agent; one with a `close` method is the caller's to close.

        Raises:
            InputError: the program is not there, or the extra `serve` is not installed.
        """
        if not self.is_program:
            from gymrail.agents.tool_loop import ToolLoop

            return ToolLoop(max_steps, parameters)
        from gymrail.agents.command import CommandAgent, Program
        from gymrail.agents.presets import find_program

        host = _host()
        program = Program(_words(self.command or "")) if self.name == COMMAND else find_program(self.name, self.program)
        agent = CommandAgent(program, host, max_steps, parameters)
        return replace(agent, pass_variables=self.pass_variables)


def _words(command: str) -> tuple[str, ...]:
    import shlex
    import shutil
    from pathlib import Path

    from gymrail.errors import InputError

    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"--command {command!r} cannot be read: {error}.") from None
    if not words:
        raise InputError("The command is empty; name a program: --command 'PROGRAM ARGUMENTS'.")
    found = shutil.which(words[0])
    if found is None:
        raise InputError(
            f"There is no program {words[0]!r} here; the first word of --command is a program on the PATH or a file."
        )
    # The program is started in a folder of its own, so what was meant from here is made absolute.
    return (str(Path(found).absolute()), *words[1:])


def _host() -> Any:
    from gymrail.cli.serve import require_serve_extra

    require_serve_extra()
    from gymrail.serving.hosting import LoopbackHost

    return LoopbackHost()
