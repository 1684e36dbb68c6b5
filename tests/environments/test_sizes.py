"""An environment is little code: that is what the library is for."""

import statistics
from pathlib import Path

import pytest

from gymrail.registry import environment_folders, tool_server_folders

ROOT = Path(__file__).parents[2]
MEDIAN, MOST = 150, 400
MOST_OF_WORKPLACE = 760
"""The tool server: 27 tools, each with its own messages, which are the contract."""


def lines_of(folder: Path) -> int:
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in folder.rglob("*.py"))


def own(folders: dict[str, tuple[str, Path]]) -> dict[str, Path]:
    return {name: folder for name, (_, folder) in folders.items() if folder.is_relative_to(ROOT)}


def test_half_of_the_environment_folders_have_at_most_150_lines_of_python() -> None:
    lengths = {name: lines_of(folder) for name, folder in own(environment_folders()).items()}
    assert statistics.median(lengths.values()) <= MEDIAN, lengths


@pytest.mark.parametrize(("name", "folder"), sorted(own(environment_folders()).items()))
def test_no_environment_has_more_than_400_lines_of_python(name: str, folder: Path) -> None:
    assert 0 < lines_of(folder) <= MOST


@pytest.mark.parametrize(("name", "folder"), sorted(own(tool_server_folders()).items()))
def test_no_tool_server_is_larger_than_its_cap(name: str, folder: Path) -> None:
    assert 0 < lines_of(folder) <= (MOST_OF_WORKPLACE if name == "workplace" else MOST)
