"""`gymrail data` as a person runs it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import orjson
import pytest
from huggingface_hub import constants

from tests.core.data.stand_in_hub import TOKEN, StandInHub, serving

LONG = "How many of the seven hundred apples in the old barn were red when they were counted?"


def write(path: Path, *rows: object) -> Path:
    path.write_bytes(b"".join((row if isinstance(row, bytes) else orjson.dumps(row)) + b"\n" for row in rows))
    return path


def task(number: int) -> dict[str, object]:
    return {"responses_create_params": {"input": f"Say {number}"}, "number": number}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandInHub]:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving(StandInHub(files={"org/quiz": {"train.jsonl": b'{"question": "1?"}\n'}})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def test_prepare_merges_files_and_generated_tasks(run, echo: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "validation.jsonl", task(1), task(2))
    out = tmp_path / "out"
    done = run("data", "prepare", f"{echo}={file}", "word_math", "--limit", 3, "-o", out)
    assert done.code == 0, done.stderr
    assert done.stdout == f"validation: 5 rows in {out}/validation.jsonl\ntrain: 3 rows in {out}/train.jsonl\n"
    named = [orjson.loads(line)["agent_ref"]["name"] for line in (out / "validation.jsonl").read_bytes().splitlines()]
    assert named == ["echo", "echo", "word_math", "word_math", "word_math"]
    again = run("data", "prepare", f"{echo}={file}", "-o", out)
    assert (again.code, "replace it with --overwrite" in again.stderr) == (2, True)
    done = run("data", "prepare", f"{echo}={file}", "--split", "test", "-o", out, "--overwrite", "--json")
    assert list(orjson.loads(done.stdout)["splits"]) == ["test"]


def test_prepare_takes_a_plan_whose_paths_are_relative_to_it(run, echo: Path, tmp_path: Path) -> None:
    (tmp_path / "plans").mkdir()
    write(tmp_path / "plans/raw.jsonl", {"number": 4})
    (tmp_path / "plans/p.yaml").write_text("user: 'Say {number}'", encoding="utf-8")
    plan = tmp_path / "plans/plan.yaml"
    source = "{environment: ../echo.py, split: train, path: raw.jsonl, prompt: p.yaml, repeats: 2}"
    plan.write_text(f"sources:\n  - {source}\n", encoding="utf-8")
    done = run("data", "prepare", plan, "-o", tmp_path / "out", "--json")
    assert done.code == 0, done.stderr
    assert orjson.loads(done.stdout)["splits"]["train"]["rows"] == 2
    refused = run("data", "prepare", plan, "-o", tmp_path / "out2", "--limit", 1)
    assert (refused.code, "A plan says what holds" in refused.stderr) == (2, True)
    plan.write_text("sources:\n  - {environment: echo, splt: train}\n", encoding="utf-8")
    refused = run("data", "prepare", plan, "-o", tmp_path / "out2")
    assert (refused.code, "unknown key 'sources.0.splt'. Did you mean 'split'?" in refused.stderr) == (2, True)


def test_prepare_lists_bad_rows_and_skips_them_if_asked(run, echo: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "raw.jsonl", task(1), {**task(2), "number": "two"}, b"{")
    done = run("data", "prepare", f"{echo}={file}", "-o", tmp_path / "out")
    assert done.code == 2
    assert done.stderr.startswith("Error: 2 of 3 rows are bad, and nothing was written.\n")
    assert f"{file}, line 2: field 'number': Input should be a valid integer" in done.stderr
    done = run("data", "prepare", f"{echo}={file}", "-o", tmp_path / "out", "--skip-bad")
    assert (done.code, f"2 bad rows left out: {tmp_path}/out/bad_rows.jsonl" in done.stdout) == (0, True)


def test_prepare_warns_of_a_prompt_that_tells_the_answer(run, tmp_path: Path) -> None:
    rows = [{"question": "?", "options": [{"A": "x"}, {"B": "y"}], "expected_answer": "A"}]
    (tmp_path / "p.yaml").write_text("user: '{question} {expected_answer}'", encoding="utf-8")
    source = f"mcqa={write(tmp_path / 'raw.jsonl', *rows)}"
    done = run("data", "prepare", source, "--prompt", tmp_path / "p.yaml", "-o", tmp_path / "out")
    assert done.code == 0
    assert f"Warning: {tmp_path}/p.yaml shows {{expected_answer}} to the agent" in done.stderr


def test_split_writes_the_splits_and_says_what_overlaps(run, tmp_path: Path) -> None:
    rows = [*({"question": f"{n}?", "answer": n} for n in range(200)), {"question": f"Well. {LONG}", "answer": 1}]
    file, bench = write(tmp_path / "all.jsonl", *rows), write(tmp_path / "bench.jsonl", {"problem": LONG})
    shares = ("--shares", "train=0.999,validation=0.001", "--seed", 0)
    done = run("data", "split", file, "-o", tmp_path / "out", "--shares", "train=0.8,validation=0.2")
    assert done.code == 0, done.stderr
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["train", "validation"]
    done = run("data", "split", file, "-o", tmp_path / "b", "--shares", "train=1", "--against", bench)
    assert "1 rows overlap a benchmark (kept; --drop-contaminated leaves them out)" in done.stdout
    done = run("data", "split", file, "-o", tmp_path / "c", "--shares", "train=1", "--against", bench,
               "--drop-contaminated", "--json")  # fmt: skip
    assert (orjson.loads(done.stdout)["contaminated"], orjson.loads(done.stdout)["splits"]) == (1, {"train": 200})
    for arguments, message in [
        ((*shares, "--drop-contaminated"), "needs a benchmark to compare with: --against FILE"),
        (("--shares", "train"), "write SPLIT=SHARE"),
        (("--by", "dokument"), "the row lacks it, and rows are grouped by it"),
    ]:
        refused = run("data", "split", file, "-o", tmp_path / "d", *arguments)
        assert (refused.code, message in refused.stderr) == (2, True), refused.stderr


def test_validate_exits_with_1_and_names_every_problem(run, echo: Path, tmp_path: Path) -> None:
    good = write(tmp_path / "good.jsonl", task(1), task(2))
    assert run("data", "validate", good, "--env", echo).stdout == "2 rows in 1 files: all good\n"
    bad = write(tmp_path / "bad.jsonl", task(2), task(2), {**task(3), "number": None})
    done = run("data", "validate", good, bad, "--env", echo)
    assert done.code == 1
    for expected in (
        "1 bad rows:",
        f"{bad}, line 3: field 'number': Input should be a valid integer (value None)",
        f"{bad}, line 1: asks the same as {good}, line 2",
        f"{bad}, line 2: asks the same as {good}, line 2",
        "2 rows stand in another file too:",
    ):
        assert expected in done.stdout
    found = orjson.loads(run("data", "validate", good, bad, "--env", echo, "--json").stdout)
    assert (found["passed"], found["bad_rows"], found["overlaps"]) == (False, 1, 2)


def test_render_writes_a_file(run, echo: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "raw.jsonl", {"number": 4}, {"number": 5})
    prompt = tmp_path / "p.yaml"
    prompt.write_text("user: 'Say {number}'", encoding="utf-8")
    out = tmp_path / "out.jsonl"
    done = run("data", "render", file, "--prompt", prompt, "--env", echo, "-o", out)
    assert done.stdout == f"Wrote 2 rows to {out}; the prompt shows number\n"
    prompt.write_text("user: 'Say {nmber}'", encoding="utf-8")
    refused = run("data", "render", file, "--prompt", prompt, "--env", echo, "-o", out, "--overwrite")
    assert (refused.code, "Did you mean 'number'?" in refused.stderr) == (2, True)


def test_download_and_push_talk_to_the_hub(run, hub: StandInHub, tmp_path: Path, monkeypatch) -> None:
    done = run("data", "download", "org/quiz", "-o", tmp_path / "quiz")
    assert (done.code, "1 files, 19 bytes; 1 fetched" in done.stdout) == (0, True), done.stderr
    assert "1 here already" in run("data", "download", "org/quiz", "-o", tmp_path / "quiz").stdout
    missing = run("data", "download", "org/quizz", "-o", tmp_path / "other")
    assert (missing.code, "has no dataset 'org/quizz'" in missing.stderr) == (2, True)
    refused = run("data", "push", tmp_path / "quiz", "--to", "org/new")
    assert (refused.code, "export HF_TOKEN=" in refused.stderr) == (2, True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    done = run("data", "push", tmp_path / "quiz", "--to", "org/new", "--json")
    assert (done.code, hub.pushed["org/new"]["train.jsonl"]) == (0, b'{"question": "1?"}\n'), done.stderr


def test_download_takes_a_url_with_a_checksum(run, hub: StandInHub, tmp_path: Path) -> None:
    url = f"{hub.url}/cdn/org/quiz/train.jsonl"
    done = run("data", "download", url, "-o", tmp_path / "in", "--checksum", "0" * 64)
    assert (done.code, "is not what it should be" in done.stderr) == (1, True)
    assert run("data", "download", url, "-o", tmp_path / "in", "--json").code == 0
    for arguments, message in [
        ((url, "--file", "x"), "a URL names one file"),
        (("org/quiz", "--checksum", "0"), "--checksum is for a URL"),
    ]:
        refused = run("data", "download", *arguments, "-o", tmp_path / "in")
        assert (refused.code, message in refused.stderr) == (2, True)


def test_a_missing_package_is_one_message_that_says_what_to_install(run, tmp_path: Path, monkeypatch) -> None:
    write(tmp_path / "train.jsonl", task(1))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for arguments in (("download", "org/quiz"), ("push", tmp_path, "--to", "org/quiz")):
        done = run("data", *arguments)
        assert (done.code, "pip install 'gymrail[data]'" in done.stderr) == (1, True), done.stderr
