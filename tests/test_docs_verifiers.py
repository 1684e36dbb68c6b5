"""The examples of docs/verifiers.md: each block is a file, and each file is run here."""

from __future__ import annotations

import asyncio
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gymrail.contract import check_environment
from gymrail.registry import find
from tests.core.models.endpoint import Endpoint, Received, chat

DOCS = Path(__file__).parents[1] / "docs"
TEXT = (DOCS / "verifiers.md").read_text(encoding="utf-8")
PRINTING = ("verify_answers", "verify_structure", "verify_programs")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_every_python_block_is_one_of_the_example_files() -> None:
    examples = {path.read_text(encoding="utf-8") for path in (DOCS / "examples").glob("*.py")}
    assert [block[:80] for block in blocks("python") if block not in examples] == []
    assert len(blocks("python")) == 6


@pytest.mark.parametrize("name", PRINTING)
def test_an_example_prints_what_the_page_shows(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(DOCS / "examples" / f"{name}.py"))
    assert capsys.readouterr().out == blocks("text")[PRINTING.index(name)]


def test_the_judges_of_the_example_judge(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def judge(received: Received) -> Any:
        said = received.body["messages"][1]["content"]
        return chat("[[RUDE]]" if "Look it up" in said else "[[NO]]" if "one sentence" in said else "[[YES]]")

    async def main() -> None:
        async with Endpoint(judge) as endpoint:
            monkeypatch.setattr(sys, "argv", ["judge_answers.py", endpoint.url, "m"])
            await asyncio.to_thread(runpy.run_path, str(DOCS / "examples/judge_answers.py"))

    asyncio.run(main())
    rude, rubric = capsys.readouterr().out.splitlines()
    assert rude == "0.0 {'judge_label': '[[RUDE]]', 'judge_votes': 2}"
    assert rubric == "0.75 {'answers': 0.75, 'short': 0.0}"


def test_the_environment_of_the_example_keeps_the_contract_and_takes_the_settings_shown() -> None:
    spec = find(str(DOCS / "examples/judged_environment.py"))

    async def main() -> None:
        try:
            report = await check_environment(spec)
            assert report.passed, report.failures
        finally:
            await spec.teardown()

    asyncio.run(main())
    (shown,) = blocks("yaml")
    settings = spec.with_config(yaml.safe_load(shown)["config"]).config.judge
    assert (settings.api_key_env, settings.prices.output, settings.cost_limit) == ("JUDGE_KEY", 1.6, 20)


def test_every_verifier_of_the_library_is_on_the_page() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)
    folder = Path(__file__).parents[1] / "src/gymrail/verifiers"
    modules = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    assert (
        set(rows) - modules - {"swap", "votes", "retries", "max_concurrency", "timeout_seconds", "parameters"} == set()
    )
    assert {"exact", "math", "judge", "rubric", "reward_model", "genrm", "state", "schema", "combined"} <= set(rows)
