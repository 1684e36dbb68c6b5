"""Ctrl-C, SIGTERM and kill -9 on the command line, in a process of its own."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from .conftest import PLAYGROUND, is_running, wait_until

TASKS = 40
SECONDS = 120


class Run:
    """`gymrail rollout` of tasks that wait in their tool until `open_gate`; leader of a process group, as in a
    terminal."""

    def __init__(self, folder: Path, *options: str, blocks: bool = False) -> None:
        self.folder, self.directory = folder, folder / "run"
        command = [
            sys.executable, "-m", "gymrail", "rollout", f"{PLAYGROUND}:Gated", "--model", "oracle",
            "--tasks", str(TASKS), "--concurrency", "4", "--run", str(self.directory), *options,
        ]  # fmt: skip
        self.environment = {
            **os.environ, "GYMRAIL_TEST_FOLDER": str(folder), "GYMRAIL_TEST_BLOCKS": "1" if blocks else "0",
        }  # fmt: skip
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=self.environment, process_group=0
        )
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr:
            self.said.extend(self.process.stderr)

    @property
    def text(self) -> str:
        return "".join(self.said)

    @property
    def playing(self) -> list[int]:
        """The processes that play, once per episode in flight."""
        return [int(path.name.split("-")[1]) for path in self.folder.glob("playing-*")]

    def wait_for_episodes(self, count: int = 4) -> set[int]:
        assert wait_until(lambda: len(self.playing) == count, SECONDS), self.text
        return set(self.playing)

    def open_gate(self) -> None:
        (self.folder / "open").touch()

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """Signal the whole process group, as a terminal does."""
        os.killpg(self.process.pid, number)

    def wait(self) -> int:
        code = self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        return code

    def recorded(self) -> list[int]:
        """Task indices in the journal; every line is whole."""
        lines = (self.directory / "rollouts.jsonl").read_bytes().splitlines()
        return sorted(json.loads(line)["_ng_task_index"] for line in lines)

    def resume(self) -> None:
        """Run the command that the run printed; it has to finish everything."""
        command = next(line.strip() for line in self.said if line.startswith("  gymrail rollout"))
        words = shlex.split(command)
        assert words[-1] == "--resume"
        self.open_gate()
        done = subprocess.run(
            [sys.executable, "-m", *words], env=self.environment, timeout=300, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert self.recorded() == list(range(TASKS))


MODES = pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["in process", "two workers"])


@MODES
def test_one_interrupt_finishes_what_is_in_flight_and_takes_no_new_job(tmp_path: Path, options) -> None:
    run = Run(tmp_path, *options)
    run.wait_for_episodes()
    run.interrupt()
    assert wait_until(lambda: "finishing 4 rollouts in flight" in run.text), run.text
    run.open_gate()
    assert run.wait() == 130
    assert len(run.recorded()) == 4
    assert f"Interrupted: 4 of {TASKS} rollouts are in" in run.text
    assert "Traceback" not in run.text
    run.resume()


@MODES
def test_two_interrupts_cancel_and_close_the_episodes(tmp_path: Path, options) -> None:
    run = Run(tmp_path, *options)
    pids = run.wait_for_episodes()
    run.interrupt()
    assert wait_until(lambda: "finishing 4 rollouts" in run.text), run.text
    run.interrupt()
    assert run.wait() == 130
    assert "Traceback" not in run.text
    assert run.recorded() == []
    assert run.playing == []  # what an episode's `close` removes
    assert not any(is_running(pid) for pid in pids)
    run.resume()


@MODES
def test_sigterm_cancels_at_once(tmp_path: Path, options) -> None:
    run = Run(tmp_path, *options)
    run.wait_for_episodes()
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 130
    assert re.search(rf"Interrupted: 0 of {TASKS} rollouts", run.text)
    assert (run.recorded(), run.playing) == ([], [])


def test_workers_outlive_an_interrupt_that_reaches_them(tmp_path: Path) -> None:
    run = Run(tmp_path, "--workers", "2")
    for pid in run.wait_for_episodes():
        os.kill(pid, signal.SIGINT)
    run.open_gate()
    assert run.wait() == 0, run.text
    assert run.recorded() == list(range(TASKS))
    assert "lost" not in run.text


def test_workers_end_when_their_run_is_killed_though_a_tool_blocks_one(tmp_path: Path) -> None:
    run = Run(tmp_path, "--workers", "2", blocks=True)
    pids = run.wait_for_episodes(2)  # a worker whose tool blocks plays nothing else
    assert all(is_running(pid) for pid in pids)
    run.process.kill()
    run.wait()
    assert wait_until(lambda: not any(is_running(pid) for pid in pids))
    run.environment["GYMRAIL_TEST_BLOCKS"] = "0"
    run.said.append(
        f"  gymrail rollout {PLAYGROUND}:Gated --model oracle --tasks {TASKS} --run {run.directory} --resume\n"
    )
    run.resume()
