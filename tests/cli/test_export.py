"""`gymrail export` on a played run."""

import json
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs/examples/export_rollouts.py"


@pytest.fixture
def played(run, tmp_path: Path) -> Path:
    folder = tmp_path / "played"
    done = run(
        "rollout", "word_math", "treasure_hunt", "--model", "oracle:0.5", "--tasks", 12, "--repeats", 4, "--run", folder
    )
    assert done.code == 0
    return folder


def test_each_kind_is_written_with_a_card_and_says_what_was_left_out(run, played: Path, tmp_path: Path) -> None:
    for kind, options in {
        "sft": ["--min-reward", "1", "--dedup", "near", "--per", "step", "--balance", "environment"],
        "dpo": ["--rule", "all", "--max-pairs", "2", "--with-margin"],
        "kto": ["--best-of", "2", "--format", "parquet"],
        "prm": ["--min-siblings", "2"],
        "rft": ["--env", "word_math", "--for", "nemo-rl"],
    }.items():
        folder = tmp_path / kind
        done = run("export", kind, played, "--output", folder, *options)
        assert done.code == 0, done.stderr
        assert done.stdout.startswith("Wrote ")
        assert (folder / "README.md").read_text(encoding="utf-8").startswith("---\n")
        again = run("export", kind, played, "--output", folder, *options)
        assert (again.code, "exists already" in again.stderr) == (2, True)
        document = json.loads(run("export", kind, played, "-o", folder, *options, "--overwrite", "--json").stdout)
        assert document["rows"] == json.loads((folder / "export.json").read_bytes())["rows"] > 0
        assert f"Wrote {document['rows']} rows" in done.stdout


def test_several_runs_become_one_export_with_their_names(run, played: Path, tmp_path: Path) -> None:
    other = played.with_name("other")
    run("rollout", "word_math", "--model", "oracle", "--tasks", 5, "--run", other)
    document = json.loads(run("export", "sft", played, other, "-o", tmp_path / "out", "--json").stdout)
    assert {source["run"]: source["rollouts"] for source in document["sources"]} == {"played": 96, "other": 5}
    assert all(entry["version"] and entry["licenses"] for entry in document["environments"])


def test_an_empty_selection_exits_with_2_and_says_why(run, played: Path, tmp_path: Path) -> None:
    done = run("export", "sft", played, "-o", tmp_path / "out", "--min-reward", "2")
    assert done.code == 2
    assert "Removed by: reward below 2: 96" in done.stderr
    assert run("export", "sft", "no_such_run", "-o", tmp_path / "out").code == 2
    unknown = run("export", "sft", played, "-o", tmp_path / "out", "--env", "word_math", "--env", "tresure_hunt")
    assert unknown.code == 2
    assert "No run holds the environment 'tresure_hunt'. Did you mean 'treasure_hunt'?" in unknown.stderr
    assert not (tmp_path / "out").exists()


def test_a_validation_split_and_a_benchmark_are_said_and_written(run, played: Path, tmp_path: Path) -> None:
    benchmark = tmp_path / "bench.jsonl"
    asked = json.loads((played / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()[0])
    benchmark.write_text(json.dumps({"question": asked["responses_create_params"]["input"]}), encoding="utf-8")
    done = run(
        "export",
        "sft",
        played,
        "-o",
        tmp_path / "out",
        "--validation",
        "0.3",
        "--against",
        benchmark,
        "--env",
        "word_math",
    )
    assert done.code == 0, done.stderr
    split = json.loads((tmp_path / "out/export.json").read_bytes())["splits"]
    assert f"train: {split['train']}, validation: {split['validation']}" in done.stdout
    assert f"shares text with {benchmark}: 4" in done.stdout
    assert {file.name for file in (tmp_path / "out").glob("*.jsonl")} == {"train.jsonl", "validation.jsonl"}


def test_the_example_of_the_documentation_runs(played: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["export_rollouts.py", str(played), str(tmp_path / "data")])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    first, second = capsys.readouterr().out.splitlines()
    assert "rows in" in first
    assert "'reward below 1': " in first
    assert (tmp_path / "data/dpo/train.jsonl").is_file()
    assert "rows in" in second
