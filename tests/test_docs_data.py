"""The examples of docs/data.md: each block is a file or is run here."""

import re
import runpy
from pathlib import Path

import orjson
import pytest
import yaml

from gymrail.data.plan import Plan
from gymrail.data.prompts import Prompt
from gymrail.spec import Manifest

DOCS = Path(__file__).parents[1] / "docs"
TEXT = (DOCS / "data.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_prompt_config_shown_is_an_example_file_that_makes_a_prompt() -> None:
    assert blocks("yaml")[0] == (DOCS / "examples/prompt.yaml").read_text(encoding="utf-8")
    said = Prompt.read(DOCS / "examples/prompt.yaml").messages({"question": "How many moons has Mars?"})
    assert [item["role"] for item in said] == ["system", *("user", "assistant") * 2, "user"]
    assert said[2]["content"] == r"\boxed{8}"
    assert said[-1]["content"] == "How many moons has Mars?\nAnswer with the number in \\boxed{}."


def test_the_manifest_and_the_plan_shown_are_valid() -> None:
    _, manifest, plan = blocks("yaml")
    assert Manifest.model_validate(yaml.safe_load(manifest)).datasets[0].prompt == "prompts/boxed.yaml"
    assert [source.repeats for source in Plan.model_validate(yaml.safe_load(plan)).sources] == [4, 1, 1]


def test_the_python_shown_splits_a_file(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture) -> None:
    (block,) = blocks("python")
    assert block == (DOCS / "examples/split_tasks.py").read_text(encoding="utf-8")
    text = "Why did the old man in the story leave his house before the first light of the day?"
    rows = [{"question": f"What is {number}?", "answer": "a", "document": number % 40} for number in range(200)]
    rows.append({"question": f"Listen. {text} 7", "answer": "a", "document": 0})
    (tmp_path / "all.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    (tmp_path / "benchmark.jsonl").write_bytes(orjson.dumps({"question": f"{text} 7"}) + b"\n")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(DOCS / "examples/split_tasks.py"))
    report = orjson.loads((tmp_path / "split/split.json").read_bytes())
    assert sum(report["splits"].values()) == 200
    assert capsys.readouterr().out == f"{report['splits']} 1\n"


def test_every_command_shown_exists() -> None:
    (session,) = blocks("sh")
    named = re.findall(r"^gymrail data (\w+)", session, re.MULTILINE)
    assert named == ["download", "validate", "split", "prepare", "push"]
