import re
import shlex
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs/cli.md"


def test_the_document_prints_what_its_commands_print(run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    blocks = re.findall(r"```console\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    steps = [step.partition("\n") for block in blocks for step in block.split("$ gymrail ")[1:]]
    assert len(steps) > 5
    for command, _, expected in steps:
        done = run(*shlex.split(command))
        assert done.code == 0, (command, done.stderr)
        printed = [line.rstrip() for line in done.stdout.splitlines()]
        assert [line for line in expected.splitlines() if line not in printed] == [], command
