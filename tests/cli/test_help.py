import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from gymrail.cli import app
from tests.yardstick import seconds_of_command, seconds_of_imports

DOCUMENT = Path(__file__).parents[2] / "docs/cli.md"


def commands(command: Any = None, path: str = "gymrail") -> Iterator[tuple[str, Any]]:
    command = command or typer.main.get_command(app)
    if hasattr(command, "commands"):
        for name in command.list_commands(typer.Context(command)):
            yield from commands(command.commands[name], f"{path} {name}")
    else:
        yield path, command


def test_every_command_is_listed_once_in_the_order_of_the_help(run) -> None:
    registered = {path.split()[1] for path, _ in commands()}
    shown = re.findall(r"^  ([a-z-]+)  ", run("--help").stdout.partition("Commands:")[2], re.MULTILINE)
    assert set(shown) == registered == {*typer.main.get_command(app).commands}
    assert len(shown) == len(registered)


def test_every_command_argument_and_option_has_a_help_text() -> None:
    missing = [path for path, command in commands() if not command.help]
    missing += [f"{path} {part.name}" for path, command in commands() for part in command.params if not part.help]
    assert missing == []


def test_every_command_and_option_is_in_the_document() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    missing = [path for path, _ in commands() if f"`{path}" not in text and f"\n{path}" not in text]
    missing += [
        f"{path} {flag}" for path, command in commands() for part in command.params for flag in part.opts
        if flag.startswith("--") and flag != "--help" and f"`{flag}" not in text
    ]  # fmt: skip
    assert missing == []


def test_no_option_in_the_document_is_unknown() -> None:
    known = {
        flag for _, command in commands() for part in command.params for flag in (*part.opts, *part.secondary_opts)
    }
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", DOCUMENT.read_text(encoding="utf-8")))
    assert named - known - {"--help", "--version"} == set()


def test_no_help_text_is_cut_off_at_80_columns(run) -> None:
    for path, _ in [("gymrail", None), ("gymrail new", None), ("gymrail export", None), *commands()]:
        shown = run(*path.split()[1:], "--help")
        assert shown.code == 0
        assert "..." not in shown.stdout.replace("]...", "").replace("}...", ""), shown.stdout


def test_help_of_every_command_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom gymrail.cli import app\n"
        f"for path in {[path.split()[1:] for path, _ in commands()]!r}:\n"
        "    assert CliRunner().invoke(app, [*path, '--help']).exit_code == 0\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    heavy = {"aiohttp", "pyreqwest", "rich", "torch", "transformers", "trl", "datasets", "numpy"}
    assert set(loaded.stdout.split()) & heavy == set()


def test_help_is_quick() -> None:
    assert seconds_of_command("-m", "gymrail", "--help") < 5 * seconds_of_imports()


def test_the_module_runs_as_the_command_does() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gymrail", "--version"], capture_output=True, text=True, timeout=300, check=True
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout)


def test_a_mistyped_command_names_the_nearest_and_exits_with_2(run) -> None:
    done = run("rollot")
    assert done.code == 2
    assert "Did you mean 'rollout'?" in done.stderr
