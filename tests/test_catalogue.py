"""The documentation's catalogue is what the environments say of themselves, and nothing in the vocabulary is unused
that the library promises."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from gymrail.catalogue import environment_rows, tool_server_rows
from gymrail.properties import CAPABILITIES, STRUCTURES, property_problems

ROOT = Path(__file__).parents[1]
PROMISED = (
    "information dependency",
    "proactive asking",
    "schema adherence",
    "metadata instruction following",
    "counterintuitive instruction following",
    "information relevance",
    "multiple intent synthesis",
)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return [row for row in environment_rows() if Path(row["path"]).is_relative_to(ROOT)]


def test_the_catalogue_page_is_current() -> None:
    found = importlib.util.spec_from_file_location("catalogue_script", ROOT / "scripts/catalogue.py")
    assert found is not None
    assert found.loader is not None
    script = importlib.util.module_from_spec(found)
    found.loader.exec_module(script)
    written = script.PAGE.read_text(encoding="utf-8") if script.PAGE.is_file() else ""
    assert written == script.page(), "docs/catalogue.md is out of date; write it anew: make catalogue"


def test_every_environment_and_tool_server_can_be_loaded(rows: list[dict[str, Any]]) -> None:
    assert {row["name"]: row["error"] for row in [*rows, *tool_server_rows()] if row["error"]} == {}


@pytest.mark.parametrize("capability", PROMISED)
def test_every_promised_capability_has_an_environment(capability: str, rows: list[dict[str, Any]]) -> None:
    assert capability in CAPABILITIES
    assert [row["name"] for row in rows if capability in row["capabilities"]] != []


@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_rollout_structure_has_an_environment(structure: str, rows: list[dict[str, Any]]) -> None:
    assert [row["name"] for row in rows if row["structure"] == structure] != []


def test_every_environment_states_all_it_is_listed_by_in_the_known_words(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        named = {**row, "rollout_structure": row["structure"]}
        assert property_problems(named) == [], row["name"]
        missing = [name for name in ("description", "capabilities", "tasks", "license") if not row[name]]
        assert missing == [], row["name"]
