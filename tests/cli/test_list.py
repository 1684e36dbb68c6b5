"""`gymrail list`: what it shows, how it narrows, and that it is quick."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gymrail.cli import list as list_command
from tests.yardstick import seconds_of_command, seconds_of_imports

MANIFEST = """\
description: It needs a package.
extra: {extra}
properties: {{rollout_structure: multi-turn, capabilities: [juggling]}}
license: MIT
datasets:
  - {{name: mine, split: train, source: jsonl, path: rows.jsonl}}
  - {{name: hub, split: test, source: huggingface, path: org/set}}
"""


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another package's environment, `juggler`, whose extra is not installed."""
    folder = tmp_path / "their_circus/juggler"
    folder.mkdir(parents=True)
    for file in (folder.parent / "__init__.py", folder / "__init__.py"):
        file.touch()
    (folder / "environment.py").write_text("import no_such_balls\n", encoding="utf-8")
    (folder / "environment.yaml").write_text(MANIFEST.format(extra="openenv"), encoding="utf-8")
    (folder / "rows.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n', encoding="utf-8")
    info = tmp_path / "circus-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: circus\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[gymrail.environments]\ncircus = their_circus\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("gymrail.catalogue.missing_packages", lambda extra: ["balls"] if extra == "openenv" else [])
    return folder


def names(run, *options: str) -> list[str]:
    return [row["name"] for row in json.loads(run("list", *options, "--json").stdout)["environments"]]


def test_a_capability_is_found_however_it_is_spelled(run) -> None:
    found = names(run, "--capability", "tool use")
    assert {"single_tool", "word_math"} <= set(found)
    assert "mcqa" not in found
    assert names(run, "--capability", "Tool-Use") == names(run, "--capability", "TOOL_USE") == found


def test_two_capabilities_and_a_structure_narrow_further(run) -> None:
    both = names(run, "--capability", "tool use", "--capability", "format following")
    assert "tool_call_multireward" in both
    assert "word_math" not in both
    assert "treasure_hunt" in names(run, "--structure", "Multi Step")
    assert "word_math" not in names(run, "--structure", "multi-step")


def test_an_unknown_capability_or_structure_names_the_nearest(run) -> None:
    done = run("list", "--capability", "tool-usage")
    assert (done.code, done.stdout) == (2, "")
    assert "There is no capability 'tool-usage'. Did you mean 'tool use'?" in done.stderr
    done = run("list", "--structure", "multistep")
    assert done.code == 2
    assert "Did you mean 'multi-step'?" in done.stderr
    assert "schema adherence" in run("list", "--capability", "zzz").stderr


def test_a_known_capability_that_nothing_installed_has_gives_an_empty_list(run, theirs: Path, monkeypatch) -> None:
    monkeypatch.setattr("gymrail.catalogue.environment_folders", lambda: {"juggler": ("their_circus", theirs)})
    assert names(run, "--capability", "tool use") == []
    done = run("list", "--capability", "tool use")
    assert done.code == 0
    assert "0 of 1 environments" in done.stdout


def test_an_environment_whose_extra_is_missing_is_listed_by_its_manifest_with_the_command(run, theirs: Path) -> None:
    rows = {row["name"]: row for row in json.loads(run("list", "--json").stdout)["environments"]}
    row = rows["juggler"]
    assert "no_such_balls" in row["error"]
    assert {key: row[key] for key in ("capabilities", "structure", "tasks", "license", "extra", "install")} == {
        "capabilities": ["juggling"],
        "structure": "multi-turn",
        "tasks": {"train": 2, "test": "hub"},
        "license": "MIT",
        "extra": "openenv",
        "install": "pip install 'gymrail[openenv]'",
    }
    text = run("list", "--capability", "juggling").stdout
    assert "juggler needs packages that are not installed: pip install 'gymrail[openenv]'" in text
    assert "2 + hub" in text


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_table_fits_the_terminal_and_breaks_no_name(run, monkeypatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = run("list").stdout.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    shown = lines[0].split()
    assert shown == [name for name, least in list_command.COLUMNS.items() if width >= least]
    listed = [line.split()[0] for line in lines[2:] if line and not line.startswith(" ")]
    assert set(names(run)) <= set(listed)


def test_listing_is_quick_and_loads_nothing_heavy() -> None:
    code = "import sys; from gymrail.catalogue import environment_rows; environment_rows(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    heavy = {
        "PIL", "aiohttp", "aviary", "bm25s", "datasets", "gymnasium", "httpx", "jsonschema", "math_verify", "mcp",
        "numpy", "openenv", "pandas", "reasoning_gym", "sympy", "torch", "transformers", "verifiers", "xmltodict",
    }  # fmt: skip
    assert {name.partition(".")[0] for name in loaded.stdout.split()} & heavy == set()
    assert seconds_of_command("-m", "gymrail", "list") < 20 * seconds_of_imports()
