import json
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gymrail import Rollout
from gymrail.collect.journal import Journal, JournalError, Key, key_of, read_rollouts
from gymrail.errors import InputError

Make = Callable[..., Rollout]

CHILD = """
import sys
from pathlib import Path
from gymrail import Outcome, Rollout, Task
from gymrail.collect.journal import Journal

journal = Journal.open(Path(sys.argv[1]))
first, filler = int(sys.argv[2]), sys.argv[3]
for index in range(first, first + 10_000_000):
    rollout = Rollout("counter", Task.ask("q" * int(filler)), f"r{index}", index, outcome=Outcome("scored"), reward=1.0)
    journal.append(rollout)
    print(index, flush=True)
"""


def child(path: Path, first: int, filler: int = 10) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", CHILD, str(path), str(first), str(filler)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def read_until(process: subprocess.Popen[str], lines: int) -> list[int]:
    assert process.stdout is not None
    reported = [int(process.stdout.readline()) for _ in range(lines)]
    return reported


def kill_and_collect(process: subprocess.Popen[str], reported: list[int]) -> list[int]:
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=120)
    with process:  # closes the pipes
        assert process.stdout is not None
        return reported + [int(line) for line in process.stdout.read().splitlines()]


def test_a_rollout_comes_back_from_the_journal_as_it_was(tmp_path: Path, make_rollout: Make) -> None:
    rollout = make_rollout(3, 2, metrics={"note": "é\n"})
    with Journal.open(tmp_path / "runs" / "rollouts.jsonl") as journal:
        journal.append(rollout)
        (again,) = journal.read()
        assert journal.keys() == {Key("counter", 3, rollout.task.id, 2)} == {key_of(again)}
    assert again.to_row() == rollout.to_row()


def test_nothing_reported_as_durable_is_lost_when_the_writer_is_killed_in_the_middle_of_writing(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    reported: list[int] = []
    for round_ in range(4):
        process = child(path, round_ * 100_000, filler=1 + 20_000 * (round_ % 2))
        reported += kill_and_collect(process, read_until(process, 50))
        # As much as one more may be in the file: written, and not reported any more.
        with Journal.open(path) as journal:
            found = [rollout.task_index for rollout in journal.read()]
        assert set(reported) <= set(found)
        assert len(found) == len(set(found)) <= len(reported) + round_ + 1


def test_a_torn_last_line_is_moved_aside_and_what_came_before_stays(
    tmp_path: Path, make_rollout: Make, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rollouts.jsonl"
    with Journal.open(path) as journal:
        journal.append(make_rollout(0))
        journal.append(make_rollout(1))
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert [rollout.task_index for rollout in read_rollouts(path)] == [0]
    with caplog.at_level(logging.WARNING), Journal.open(path) as journal:
        journal.append(make_rollout(2))
        assert [rollout.task_index for rollout in journal.read()] == [0, 2]
    assert (tmp_path / "rollouts.jsonl.torn").read_bytes() == whole.splitlines()[1][:-39] + b"\n"
    assert "cut off by a crash" in caplog.text


def test_a_last_line_that_lacks_only_its_newline_is_kept(tmp_path: Path, make_rollout: Make) -> None:
    path = tmp_path / "rollouts.jsonl"
    with Journal.open(path) as journal:
        journal.append(make_rollout(0))
    path.write_bytes(path.read_bytes()[:-1])
    assert [rollout.task_index for rollout in read_rollouts(path)] == [0]
    with Journal.open(path) as journal:
        journal.append(make_rollout(1))
        assert [rollout.task_index for rollout in journal.read()] == [0, 1]
    assert not (tmp_path / "rollouts.jsonl.torn").exists()


def test_a_torn_line_longer_than_the_search_window_is_found(
    tmp_path: Path, make_rollout: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gymrail.collect.journal._CHUNK_BYTES", 7)
    path = tmp_path / "rollouts.jsonl"
    path.write_bytes(b'{"a": "' + b"x" * 100)
    with Journal.open(path) as journal:
        journal.append(make_rollout(5))
        assert [rollout.task_index for rollout in journal.read()] == [5]


def test_a_second_writer_is_refused_with_the_file_and_the_process(tmp_path: Path, make_rollout: Make) -> None:
    path = tmp_path / "rollouts.jsonl"
    process = child(path, 0)
    read_until(process, 1)
    with pytest.raises(InputError, match=rf"'{path}' is being written by process {process.pid};"):
        Journal.open(path)
    kill_and_collect(process, [])
    with Journal.open(path), pytest.raises(InputError, match=f"process {os.getpid()};"):
        Journal.open(path)
    Journal.open(path).close()


def test_a_full_disk_stops_the_writer_and_leaves_only_whole_lines(tmp_path: Path, make_rollout: Make) -> None:
    path = tmp_path / "rollouts.jsonl"
    script = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n" + CHILD
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", script, str(path), "0", "10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 5000
    assert f"JournalError: Cannot write '{path}': File too large. Everything recorded so far is safe" in done.stderr
    content = path.read_bytes()
    assert content.endswith(b"\n")
    assert len(content) <= 5000
    assert [json.loads(line)["_ng_task_index"] for line in content.splitlines()] == [
        int(line) for line in done.stdout.split()
    ]
    with Journal.open(path) as journal:
        journal.append(make_rollout(99))
        assert [rollout.task_index for rollout in journal.read()][-1] == 99
    assert not (tmp_path / "rollouts.jsonl.torn").exists()


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match=r"Cannot write '.*file/rollouts.jsonl': "):
        Journal.open(tmp_path / "file" / "rollouts.jsonl")


def test_a_damaged_line_in_the_middle_is_named_and_not_skipped(tmp_path: Path, make_rollout: Make) -> None:
    path = tmp_path / "rollouts.jsonl"
    with Journal.open(path) as journal:
        journal.append(make_rollout(0))
    path.write_bytes(path.read_bytes() + b'{"broken\n' + path.read_bytes())
    with pytest.raises(InputError, match=r"rollouts.jsonl, line 2: not valid JSON .*'\{\"broken'"):
        list(read_rollouts(path))


class Oddity:
    def __repr__(self) -> str:
        return "an oddity"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (Oddity(), "an oddity"),
        ({1, 2}, [1, 2]),
        ({3: "three"}, {"3": "three"}),
        ("half \ud83d", "half \\ud83d"),
        (2**80, str(2**80)),
        (float("nan"), None),
    ],
)
def test_a_metric_that_json_cannot_carry_costs_no_rollout(
    tmp_path: Path, make_rollout: Make, value: Any, written: Any
) -> None:
    with Journal.open(tmp_path / "rollouts.jsonl") as journal:
        journal.append(make_rollout(0, metrics={"value": value, "other": 1}))
        (again,) = journal.read()
    assert again.metrics == {"value": written, "other": 1}


def test_with_fsync_every_line_is_synced_at_the_latest_when_the_journal_closes(
    tmp_path: Path, make_rollout: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rollouts.jsonl"
    synced: list[int] = []
    real = os.fsync

    def fsync(file: int) -> None:
        real(file)
        synced.append(os.fstat(file).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    with Journal.open(path, fsync=True) as journal:
        for index in range(100):
            journal.append(make_rollout(index))
    assert synced[-1] == path.stat().st_size
    assert len(synced) < 10


def test_a_failed_sync_stops_the_writer(tmp_path: Path, make_rollout: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(file: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    journal = Journal.open(tmp_path / "rollouts.jsonl", fsync=True)
    journal.append(make_rollout(0))
    with pytest.raises(JournalError, match="Input/output error"):
        journal.close()
    with pytest.raises(JournalError, match="closed"):
        journal.append(make_rollout(1))
