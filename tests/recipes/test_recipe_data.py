"""What an sft or dpo recipe names as its data is looked at before anything loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gymrail.errors import InputError
from gymrail.recipe import Recipe
from gymrail.recipe_data import check_data
from gymrail_nemo_rl.train import train as train_with_nemo_rl
from gymrail_trl.requirements import check_requirements

TRL, NEMO_RL = ("trl", "unsloth"), ("nemo-rl",)


def recipe(data: Path, algorithm: str = "sft", **fields: Any) -> Recipe:
    return Recipe.model_validate(
        {"name": "t", "algorithm": algorithm, "model": "m", "data": [str(data)], "output": str(data) + ".run", **fields}
    )


def export(folder: Path, kind: str, destination: str) -> Path:
    folder.mkdir()
    (folder / "export.json").write_text(json.dumps({"kind": kind, "for": destination}), encoding="utf-8")
    return folder


def test_data_that_does_not_exist_is_refused_by_every_trainer_before_it_starts(tmp_path: Path) -> None:
    wrong = "nothing has that name"
    with pytest.raises(InputError, match=wrong):
        check_requirements(recipe(tmp_path / "rusn"))
    with pytest.raises(InputError, match=wrong):
        train_with_nemo_rl(recipe(tmp_path / "rusn", trainer="nemo_rl", sampling={"context_length": 64}))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        check_data(recipe(tmp_path), TRL)


@pytest.mark.parametrize(
    ("kind", "made_for", "algorithm", "read", "words"),
    [
        ("dpo", "trl", "sft", TRL, "an export of dpo for trl, and the recipe trains sft with trl"),
        ("sft", "verl", "sft", TRL, "gymrail export sft RUN -o DIR --for trl"),
        ("sft", "trl", "sft", NEMO_RL, "gymrail export sft RUN -o DIR --for nemo-rl"),
    ],
)
def test_an_export_for_something_else_says_how_to_make_the_right_one(
    kind: str, made_for: str, algorithm: str, read: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        check_data(recipe(export(tmp_path / "data", kind, made_for), algorithm), read)


def test_the_right_export_and_a_file_of_rows_are_taken(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n", encoding="utf-8")
    check_data(recipe(export(tmp_path / "sft", "sft", "unsloth")), TRL)
    check_data(recipe(export(tmp_path / "dpo", "dpo", "nemo-rl"), "dpo"), NEMO_RL)
    check_data(recipe(rows), TRL)
