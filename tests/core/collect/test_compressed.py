import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gymrail import Rollout
from gymrail.collect import compressed
from gymrail.collect.journal import Journal, JournalError, key_of, read_keys, read_rollouts, read_rows
from gymrail.collect.run_directory import RunDirectory
from gymrail.errors import InputError

Make = Callable[..., Rollout]

zstandard = pytest.importorskip("zstandard")

CHILD = """
import sys
from pathlib import Path
from gymrail.collect import compressed
from gymrail.collect.journal import Journal

compressed.FRAME_BYTES = 20_000
journal = Journal.open(Path(sys.argv[1]))
first = int(sys.argv[2])
filler = "x" * 300
for index in range(first, first + 10_000_000):
    many = filler * (1000 if index % 50 == 49 else 1)  # now and then a line of several blocks
    journal.append_line(b'{"index":%d,"filler":"%s"}\\n' % (index, many.encode()))
    print(index, flush=True)
"""


def standard(path: Path) -> bytes:
    """Decompress as any other program does, which refuses a file that is not whole."""
    content = b""
    data = path.read_bytes()
    while data:
        reader = zstandard.ZstdDecompressor().decompressobj()
        content += reader.decompress(data)
        assert reader.eof, "an unfinished frame"
        data = reader.unused_data
    return content


def lines_of(path: Path) -> list[int]:
    return [row["index"] for row in read_rows(path)]


def write(path: Path, numbers: range, *, close: bool = True) -> list[int]:
    """Write lines that hardly compress, one of them of several blocks; return the file's size after each."""
    journal = Journal.open(path)
    sizes = []
    for index in numbers:
        filler = random.Random(index).randbytes(200_000 if index == 3 else 20).hex()
        journal.append_line(json.dumps({"index": index, "filler": filler}).encode() + b"\n")
        sizes.append(path.stat().st_size)
    if close:
        journal.close()
    else:  # as a process that is gone
        os.close(journal._file)
        os.close(journal._lock)
    return sizes


def test_a_zstd_journal_reads_back_and_is_a_file_for_every_other_program(tmp_path: Path, make_rollout: Make) -> None:
    path = tmp_path / "rollouts.jsonl.zst"
    rollouts = [make_rollout(index) for index in range(20)]
    with Journal.open(path) as journal:
        for rollout in rollouts:
            journal.append(rollout)
            assert [again.task_index for again in journal.read()][-1] == rollout.task_index  # before it is closed
    assert [again.to_row() for again in read_rollouts(path)] == [rollout.to_row() for rollout in rollouts]
    assert read_keys(path) == {key_of(rollout) for rollout in rollouts}
    assert len(standard(path).splitlines()) == 20
    if program := shutil.which("zstd"):
        shown = subprocess.run([program, "-dc", str(path)], capture_output=True, timeout=120, check=True)
        assert shown.stdout == standard(path)


def test_a_frame_has_a_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "FRAME_BYTES", 1000)
    path = tmp_path / "a.jsonl.zst"
    write(path, range(20, 60))
    assert path.read_bytes().count(compressed._MAGIC) >= 3
    write(path, range(60, 70))
    assert lines_of(path) == list(range(20, 70))
    assert len(standard(path).splitlines()) == 50


@pytest.mark.parametrize("frame_bytes", [300, 1 << 20])
def test_a_file_cut_off_at_any_byte_keeps_every_whole_line_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frame_bytes: int
) -> None:
    monkeypatch.setattr(compressed, "FRAME_BYTES", frame_bytes)
    path = tmp_path / "a.jsonl.zst"
    sizes = write(path, range(10, 18))
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        cut = tmp_path / "cut.jsonl.zst"
        cut.write_bytes(whole[:length])
        kept = [number for number, size in zip(range(10, 18), sizes, strict=True) if size <= length]
        # A reader needs no repair; it also sees a line that lacks its newline alone, as in a plain journal.
        assert lines_of(cut)[: len(kept)] == kept
        assert len(lines_of(cut)) <= len(kept) + (length + 1 in sizes)
        write(cut, range(100, 101))
        assert lines_of(cut) == [*kept, 100]
        assert [json.loads(line)["index"] for line in standard(cut).splitlines()] == [*kept, 100]


def test_a_line_of_several_blocks_that_is_cut_off_goes_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    sizes = write(path, range(6), close=False)
    whole = path.read_bytes()
    assert sizes[3] - sizes[2] > compressed._READ_BYTES // 8
    for length in (sizes[2] + 10, sizes[2] + 140_000, sizes[3] - 1):
        path.write_bytes(whole[:length])
        write(path, range(7, 8))
        assert lines_of(path) == [0, 1, 2, 7]
        assert len(standard(path).splitlines()) == 4
    assert path.with_name("a.jsonl.zst.torn").stat().st_size == sum((10, 140_000, sizes[3] - 1 - sizes[2]))


def test_a_line_that_lacks_only_its_newline_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    block = compressor.compress(b'{"index": 5}') + compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    path.write_bytes(block)
    write(path, range(6, 7))
    assert lines_of(path) == [5, 6]
    assert standard(path).startswith(b'{"index": 5}\n')


def test_a_repair_that_is_cut_off_itself_is_repaired(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    sizes = write(path, range(10, 14), close=False)
    whole = path.read_bytes()[: sizes[2]]
    for marker in (b"", b"\x01", b"\x01\x00", b"\x01\x00\x00"):
        path.write_bytes(whole + marker)
        write(path, range(20, 21))
        assert lines_of(path) == [10, 11, 12, 20]
        assert len(standard(path).splitlines()) == 4


def test_nothing_reported_is_lost_when_the_writer_is_killed_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    reported: list[int] = []
    chance = random.Random(7)
    for round_ in range(6):
        command = [sys.executable, "-c", CHILD, str(path), str(round_ * 1_000_000)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            reported += [int(process.stdout.readline()) for _ in range(chance.randrange(20, 400))]
            process.send_signal(signal.SIGKILL)
            reported += [int(line) for line in process.stdout.read().splitlines()]
            process.wait(timeout=120)
        found = lines_of(path)
        assert set(reported) <= set(found)
        # As many more as there were kills: written, and not reported any more.
        assert len(found) == len(set(found)) <= len(reported) + round_ + 1
    Journal.open(path).close()
    assert [json.loads(line)["index"] for line in standard(path).splitlines()] == lines_of(path)


def test_a_line_that_could_not_be_written_leaves_no_trace_and_the_next_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl.zst"
    real = os.write
    with Journal.open(path) as journal:
        journal.append_line(b'{"index": 1}\n')

        def full(file: int, data: bytes) -> int:
            if len(data) > 5:
                return real(file, data[:5])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(JournalError, match="No space left"):
            journal.append_line(b'{"index": 2, "filler": "abcdefghijklmnopq"}\n')
        monkeypatch.setattr(os, "write", real)
        assert lines_of(path) == [1]
        journal.append_line(b'{"index": 3}\n')
        journal.append_line(b'{"index": 4}\n')
    assert lines_of(path) == [1, 3, 4]
    assert standard(path).splitlines()[1] == b'{"index": 3}'


def test_a_file_that_another_program_compressed_is_read_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    text = b"".join(b'{"index": %d}\n' % index for index in range(5))
    path.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(text))
    assert lines_of(path) == [0, 1, 2, 3, 4]
    write(path, range(5, 6))
    assert lines_of(path) == [0, 1, 2, 3, 4, 5]


def test_a_foreign_frame_that_was_cut_off_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    text = b"".join(b'{"index": "%s"}\n' % random.Random(n).randbytes(100).hex().encode() for n in range(3000))
    whole = zstandard.ZstdCompressor(write_checksum=True).compress(text)
    path.write_bytes(whole[:-10])
    with pytest.raises(InputError, match=r"another program wrote it.*zstd -dc a.jsonl.zst > a.jsonl"):
        Journal.open(path)
    assert path.read_bytes() == whole[:-10]


def test_a_damaged_file_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(b'{"index": 1}\n')
    with pytest.raises(InputError, match=r"a\.jsonl\.zst' is damaged, or no zstd file"):
        list(read_rows(path))
    with pytest.raises(InputError, match="is damaged at byte 0"):
        Journal.open(path)
    assert path.read_bytes() == b'{"index": 1}\n'
    path.write_bytes(b"")
    sizes = write(path, range(10, 14))
    path.write_bytes(path.read_bytes() + bytes(1000))  # what a power loss leaves of a file that had grown
    write(path, range(20, 21))
    assert lines_of(path) == [10, 11, 12, 13, 20]
    assert path.stat().st_size > sizes[-1]


def test_a_compressed_run_goes_on_in_its_form_and_never_gets_a_second_one(tmp_path: Path, make_rollout: Make) -> None:
    with RunDirectory.create(tmp_path / "run", {}, compress=True) as run:
        run.record(make_rollout(0))
        run.record(make_rollout(1, reward=None))
    assert sorted(file.name for file in (tmp_path / "run").glob("*.zst")) == [
        "failures.jsonl.zst",
        "rollouts.jsonl.zst",
    ]
    with RunDirectory.create(tmp_path / "run", {}, resume=True) as run:
        run.record(make_rollout(1))
        with pytest.raises(InputError, match="being written by process"):
            RunDirectory.create(tmp_path / "run", {}, resume=True)
    found = RunDirectory.open(tmp_path / "run")
    assert [rollout.task_index for rollout in found.rollouts()] == [0, 1]
    assert {key.task_index for key in found.done} == {0, 1}
    assert not list((tmp_path / "run").glob("*.jsonl"))
    with RunDirectory.create(tmp_path / "plain", {}) as run:
        run.record(make_rollout(0))
    with pytest.raises(InputError, match="is not compressed, and a run has one form: leave out --compress"):
        RunDirectory.create(tmp_path / "plain", {}, resume=True, compress=True)
    shutil.copy(tmp_path / "run/rollouts.jsonl.zst", tmp_path / "plain")
    with pytest.raises(InputError, match=r"holds both 'rollouts.jsonl' and 'rollouts.jsonl.zst'"):
        RunDirectory.open(tmp_path / "plain")


def test_without_the_package_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(InputError, match=r"pip install 'gymrail\[zstd\]'"):
        RunDirectory.create(tmp_path / "run", {}, compress=True)
    assert not (tmp_path / "run").exists()
