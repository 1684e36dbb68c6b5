"""`gymrail play`: a person at the terminal."""

import os
import signal
import subprocess
import sys

from typer.testing import CliRunner

from gymrail.cli import app
from gymrail.registry import find


def play(typed: str, *arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["play", "session_counter", *arguments], input=typed, prog_name="gymrail")
    return done.exit_code, done.stdout, done.stderr


def test_a_person_who_plays_well_earns_the_reward() -> None:
    task = list(find("session_counter").tasks("train", limit=2))[1]
    missing = task.expected_count - task.initial_count  # pyright: ignore[reportAttributeAccessIssue]
    typed = f'get_counter_value\n:tools\nincrement_counter {{"count":\\\n {missing}}}\nIt is done.\n'
    code, shown, _ = play(typed, "--task", "1")
    assert code == 0
    assert str(task.initial_count) in shown  # pyright: ignore[reportAttributeAccessIssue]
    assert shown.count("increment_counter {") == 2
    assert shown.rstrip().endswith("Reward: 1")


def test_a_person_who_errs_is_told_why() -> None:
    code, shown, _ = play('increment_counter {"count": "many"}\nget_counter_value {}\nNo idea.\n')
    assert code == 0
    assert "count" in shown
    assert "Reward: 0 (the counter shows" in shown


def test_a_person_can_stop_by_a_word_or_the_end_of_the_input() -> None:
    assert play(":quit\n")[0] == 130
    assert play("")[0] == 130


def test_a_person_can_stop_with_ctrl_c() -> None:
    command = [sys.executable, "-m", "gymrail", "play", "session_counter"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as process:
        assert process.stdout is not None
        while process.stdout.read(1) != b">":
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 130


def test_a_task_that_is_not_there_is_refused() -> None:
    code, _, said = play("", "--split", "nowhere")
    assert code == 2
    assert "nowhere" in said
