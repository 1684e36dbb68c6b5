"""What NeMo RL's SFT and DPO read: an export made of run directories, or one that is there already."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gymrail.data.export import Dpo, Kto, Selection, Sft, export
from gymrail.data.jsonl import read_rows
from gymrail.errors import InputError
from gymrail.recipe import load_recipe
from gymrail_nemo_rl.train import write_inputs
from tests.core.data.recorded import said, write_run

RECIPES = Path(__file__).parents[3] / "recipes"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rollouts = [said("good"), said("half", reward=0.6, repeat=1), said("bad", reward=0.0, repeat=2)]
    return write_run(tmp_path / "played", *rollouts)


def file_of(tmp_path: Path, algorithm: str, data: Path, *overrides: str) -> Path:
    """The training file that NeMo RL's configuration names."""
    path = RECIPES / algorithm / "nemo_rl_from_rollouts.yaml"
    output = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
    output.mkdir()
    recipe = load_recipe(path, [f"data=[{data}]", f"output={output}", *overrides])
    config = yaml.safe_load(write_inputs(recipe, recipe.specs(), Path("/checkout")).read_text(encoding="utf-8"))
    return Path(config["data"]["train"]["data_path"])


def test_run_directories_are_exported_as_the_recipe_says(run: Path, tmp_path: Path) -> None:
    (row,) = [row for _, row in read_rows(file_of(tmp_path, "sft", run))]
    assert row["messages"][-1]["content"] == "good"
    (pair,) = [row for _, row in read_rows(file_of(tmp_path, "dpo", run))]
    assert [side["completion"][0]["content"] for side in pair["completions"]] == ["good", "bad"]


def test_an_export_for_nemo_rl_is_read_where_it_lies(run: Path, tmp_path: Path) -> None:
    export([run], tmp_path / "sft", Sft(), selection=Selection(min_reward=1.0), destination="nemo-rl")
    export([run], tmp_path / "dpo", Dpo(margin=0.5), destination="nemo-rl")
    for algorithm in ("sft", "dpo"):
        data = tmp_path / algorithm
        assert file_of(tmp_path, algorithm, data) == (data / "train.jsonl").resolve()


def test_an_export_that_the_recipe_cannot_train_on_as_it_says_is_refused(run: Path, tmp_path: Path) -> None:
    export([run], tmp_path / "all", Sft(), destination="nemo-rl")
    export([run], tmp_path / "kto", Kto())
    export([run], tmp_path / "trl", Sft())
    with pytest.raises(InputError, match=r"min_reward is 1\.0, .* export with --min-reward 1, or set min_reward=null"):
        file_of(tmp_path, "sft", tmp_path / "all")
    everything = file_of(tmp_path, "sft", tmp_path / "all", "min_reward=null")
    assert everything == (tmp_path / "all/train.jsonl").resolve()
    for name, found in (("kto", "kto rows for trl"), ("trl", "sft rows for trl")):
        with pytest.raises(InputError, match=rf"is an export of {found}, and sft needs sft rows for nemo-rl"):
            file_of(tmp_path, "sft", tmp_path / name)
