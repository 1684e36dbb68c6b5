"""Pushing a folder to a hub on loopback: what arrives, what stays, what is said when it is refused."""

from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import huggingface_hub
import pytest
import yaml

from gymrail.data.prepare import Source, prepare
from gymrail.data.push import push
from gymrail.errors import GymrailError, InputError
from gymrail.spec import EnvironmentSpec
from tests.core.data.stand_in_hub import COMMIT, TOKEN, StandInHub, serving


@pytest.fixture(autouse=True)
def _no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)


@pytest.fixture
def hub() -> Iterator[StandInHub]:
    with serving(StandInHub()) as hub:
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "prepared"
    folder.mkdir()
    for name in ("train.jsonl", "validation.jsonl", "train_metrics.json", "bad_rows.jsonl", ".hidden"):
        (folder / name).write_text('{"a": 1}\n')
    return folder


def test_a_folder_arrives_in_one_commit_with_a_card_that_names_the_splits(hub: StandInHub, folder: Path) -> None:
    made = push(folder, "org/tasks", token=TOKEN, endpoint=hub.url)
    arrived = hub.pushed["org/tasks"]
    assert sorted(arrived) == ["README.md", "train.jsonl", "train_metrics.json", "validation.jsonl"]
    assert arrived["train.jsonl"] == (folder / "train.jsonl").read_bytes()
    assert (made.commit, made.kept_here) == (COMMIT, ["bad_rows.jsonl"])
    card = yaml.safe_load(arrived["README.md"].decode().split("---")[1])
    assert [entry["path"] for entry in card["configs"][0]["data_files"]] == ["train.jsonl", "validation.jsonl"]


def test_a_card_of_the_folders_own_is_pushed_as_it_is(hub: StandInHub, folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    push(folder, "org/tasks", token=TOKEN, endpoint=hub.url)
    assert b"# Mine" in hub.pushed["org/tasks"]["README.md"]


def test_pushing_again_adds_to_the_dataset(hub: StandInHub, folder: Path) -> None:
    push(folder, "org/tasks", token=TOKEN, endpoint=hub.url)
    (folder / "test.jsonl").write_text("{}\n")
    push(folder, "org/tasks", token=TOKEN, endpoint=hub.url)
    assert "test.jsonl" in hub.pushed["org/tasks"]


def test_without_a_token_nothing_is_asked(hub: StandInHub, folder: Path) -> None:
    with pytest.raises(InputError, match="needs a token of the hub that may write: export HF_TOKEN"):
        push(folder, "org/tasks", endpoint=hub.url)
    assert hub.requests == []


def test_a_wrong_token_a_bad_name_and_a_dead_hub_are_told_apart(hub: StandInHub, folder: Path) -> None:
    with pytest.raises(InputError, match=r"refuses the token for 'org/tasks' \(status 401\)"):
        push(folder, "org/tasks", token="hf_wrong", endpoint=hub.url)
    with pytest.raises(GymrailError, match="cannot be reached"):
        push(folder, "org/tasks", token=TOKEN, endpoint="http://127.0.0.1:9")


def test_a_folder_without_data_is_refused(hub: StandInHub, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no folder"):
        push(tmp_path / "none", "org/tasks", token=TOKEN, endpoint=hub.url)
    (tmp_path / "notes.txt").write_text("?")
    with pytest.raises(InputError, match="has no data to push"):
        push(tmp_path, "org/tasks", token=TOKEN, endpoint=hub.url)


def test_what_arrives_is_loaded_split_by_split_without_the_metrics(
    hub: StandInHub, make_quiz: Callable[..., EnvironmentSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    quiz = make_quiz("quiz", 6)
    held_out = tmp_path / "quiz/train.jsonl"
    prepare([Source(quiz, "train"), Source(quiz, "validation", held_out, limit=2)], tmp_path / "prepared")
    push(tmp_path / "prepared", "org/tasks", token=TOKEN, endpoint=hub.url)
    there = tmp_path / "there"
    there.mkdir()
    for name, content in hub.pushed["org/tasks"].items():
        (there / name).write_bytes(content)
    loaded = datasets.load_dataset(str(there))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 6, "validation": 2}
    assert loaded["train"][0]["agent_ref"]["name"] == "quiz"
    assert "| quiz | validation | 2 |" in (there / "README.md").read_text(encoding="utf-8")
