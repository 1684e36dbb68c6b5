"""What docs/bridges.md shows runs."""

from __future__ import annotations

import asyncio
import importlib
import re
from pathlib import Path

import pytest

from gymrail.bridges import BRIDGES
from gymrail.contract import check_environment
from gymrail.registry import find

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "bridges.md").read_text(encoding="utf-8")


def test_every_bridge_is_documented_and_there() -> None:
    for bridge in BRIDGES:
        assert f"| `{bridge}:" in DOCUMENT
        assert callable(importlib.import_module(f"gymrail.bridges.{bridge}").find)


@pytest.mark.parametrize(("language", "file"), [("python", "corridor.py"), ("yaml", "notes/env.yaml")])
def test_the_examples_shown_are_the_files(language: str, file: str) -> None:
    (block,) = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    assert block == (ROOT / "docs" / "examples" / file).read_text(encoding="utf-8")


def test_the_game_of_ones_own_passes_the_contract() -> None:
    report = asyncio.run(check_environment(find(str(ROOT / "docs" / "examples" / "corridor.py")), tasks=6))
    assert report.passed, report.failures


def test_the_mcp_folder_is_found_with_its_server_and_tasks() -> None:
    spec = find(f"mcp:{ROOT / 'docs' / 'examples' / 'notes'}")
    assert (spec.name, list(spec.tools)) == ("notes", ["write_note"])
    assert len(list(spec.tasks("train"))) == 2


def test_the_commands_name_environments_that_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names = re.findall(r"^\$ gymrail \w+ \"?([^\s\"]+)", DOCUMENT, re.MULTILINE)
    assert [find(name).name for name in names] == ["FrozenLake-v1", "aviary", "notes"]
