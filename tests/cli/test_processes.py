"""A command in several processes: each knows which it is, and one that fails ends the others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CALL = "import sys; from gymrail.cli.processes import run_processes; sys.exit(run_processes(sys.argv[1:], 3))"


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program = folder / "program.py"
    program.write_text(code, encoding="utf-8")
    command = [sys.executable, "-c", CALL, sys.executable, str(program), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_every_process_has_its_place_and_one_meeting_point(tmp_path: Path) -> None:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    code = (
        "import json, os, pathlib, sys\n"
        f"said = {{name: os.environ[name] for name in {names!r}}}\n"
        "pathlib.Path(sys.argv[1], os.environ['RANK'] + '.json').write_text(json.dumps(said))\n"
    )
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    said = [json.loads((tmp_path / f"{place}.json").read_text()) for place in range(3)]
    assert [(one["RANK"], one["LOCAL_RANK"]) for one in said] == [("0", "0"), ("1", "1"), ("2", "2")]
    assert {(one["WORLD_SIZE"], one["LOCAL_WORLD_SIZE"], one["MASTER_ADDR"]) for one in said} == {
        ("3", "3", "127.0.0.1")
    }
    assert len({one["MASTER_PORT"] for one in said}) == 1


def test_one_that_fails_ends_the_others_and_gives_its_exit_code(tmp_path: Path) -> None:
    # The others wait for what never comes; the test ends because they are ended.
    code = (
        "import os, pathlib, sys, threading\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "(folder / (os.environ['RANK'] + '.started')).touch()\n"
        "if os.environ['RANK'] != '1':\n    threading.Event().wait()\n"
        "sys.exit(7)\n"
    )
    assert run(code, tmp_path).returncode == 7


def test_one_that_is_killed_gives_the_shell_s_code_for_its_signal(tmp_path: Path) -> None:
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
    assert run(code, tmp_path).returncode == 137
