"""What an export writes: every format with the same rows, and nothing in place of what was there."""

from pathlib import Path
from typing import Any

import datasets
import pytest

from gymrail import Rollout
from gymrail.data.export import Dpo, Kto, Prm, Rft, Sft, export
from gymrail.errors import InputError
from gymrail.models.model import function_call, message
from tests.core.data.recorded import Run, looked_up, rollout, rows_of, said, write_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Write rollouts as a run."""

    def write(*rollouts: Rollout, name: str = "run", compress: bool = False) -> Path:
        return write_run(tmp_path / name, *rollouts, compress=compress)

    return write


@pytest.mark.parametrize("kind", [Sft(), Sft(per="step"), Dpo(with_margin=True), Kto(), Prm(), Rft()])
def test_datasets_loads_every_format_with_the_same_rows(
    run: Run, tmp_path: Path, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    source = run(
        looked_up("é☃", "X", "right", repeat=0),
        said("wrong", repeat=1, reward=0.0),
        looked_up("z", "Z", "also", task="B?", repeat=0),
        said("no", task="B?", reward=0.0, repeat=1),
    )
    written = rows_of(export([source], tmp_path / "jsonl", kind)["output"])
    for format in ("parquet", "dataset"):
        export([source], tmp_path / format, kind, format=format)
    loaded = {
        "jsonl": datasets.load_dataset(str(tmp_path / "jsonl"), split="train"),
        "parquet": datasets.load_dataset(str(tmp_path / "parquet"), split="train"),
        "dataset": datasets.load_from_disk(str(tmp_path / "dataset"))["train"],
    }
    assert len(written) >= 2
    for format in loaded:
        assert [_without_nulls(row) for row in loaded[format]] == written, format


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value


def test_answers_that_look_like_json_stay_text_in_a_dataset(run: Run, tmp_path: Path) -> None:
    texts = ["42", "007", "1e5", '{"a": 1}', "null", '"quoted"']
    source = run(*(said(text, task=text) for text in texts))
    export([source], tmp_path / "out", Sft(), format="dataset")
    loaded = datasets.load_from_disk(str(tmp_path / "out"))["train"]
    assert [[entry["content"] for entry in row["messages"]] for row in loaded] == [[text, text] for text in texts]


def test_pictures_stay_in_jsonl_and_become_a_column_of_images_in_datasets(run: Run, tmp_path: Path) -> None:
    pixel = (
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5Er"
        "kJggg=="
    )
    shown = [{"type": "input_image", "detail": "auto", "image_url": pixel}]
    output = {"type": "function_call_output", "call_id": "c", "output": shown}
    pictured = rollout(function_call("look_up", "{}", "c"), output, message("A pixel."))
    pictured.task.responses_create_params["input"] = [{"role": "user", "content": shown}]
    source = run(pictured, said("none", task="B?"))
    seen, blind = rows_of(export([source], tmp_path / "jsonl", Sft())["output"])
    for place in (0, 2):
        assert seen["messages"][place]["content"][0]["image_url"]["url"] == pixel
    assert "images" not in blind
    export([source], tmp_path / "dataset", Sft(), format="dataset")
    loaded = datasets.load_from_disk(str(tmp_path / "dataset"))["train"]
    assert loaded[0]["messages"][0]["content"] == [{"type": "image"}]
    assert [image.size for image in loaded[0]["images"]] == [(1, 1)]
    assert loaded[1]["images"] == []
    # TRL fills the user's places alone and counts no others, so a tool's picture stays where it is.
    assert loaded[0]["messages"][2]["content"] == [{"type": "image", "image": pixel}]


def test_what_is_there_already_is_only_replaced_when_asked_and_an_export(run: Run, tmp_path: Path) -> None:
    source = run(said("a"))
    export([source], tmp_path / "out", Sft())
    with pytest.raises(InputError, match=r"out' exists already; .* --overwrite"):
        export([source], tmp_path / "out", Sft())
    export([source], tmp_path / "out", Sft(per="step"), overwrite=True)
    assert "completion" in rows_of(tmp_path / "out")[0]
    with pytest.raises(InputError, match=r"is not an export \(export\.json is missing\)"):
        export([source], source, Sft(), overwrite=True)
    assert (source / "rollouts.jsonl").exists()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"is a file; name a directory"):
        export([source], tmp_path / "file", Sft())


def test_a_file_is_written_where_one_is_named(run: Run, tmp_path: Path) -> None:
    source = run(said("a"))
    export([source], tmp_path / "rows.jsonl", Sft())
    export([source], tmp_path / "rows.parquet", Sft())
    assert len(rows_of(tmp_path / "rows.jsonl")) == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["rows.jsonl", "rows.parquet", "run"]
    with pytest.raises(InputError, match=r"is named as jsonl, and the format is parquet"):
        export([source], tmp_path / "rows.jsonl", Sft(), format="parquet")


def test_a_file_that_is_there_is_only_replaced_when_asked_and_never_one_that_is_read(run: Run, tmp_path: Path) -> None:
    source = run(said("a"), said("b", task="B?"))
    file = tmp_path / "rows.jsonl"
    export([source], file, Sft())
    before = file.read_bytes()
    with pytest.raises(InputError, match=r"rows\.jsonl' exists already; .* --overwrite"):
        export([source], file, Sft(per="step"))
    assert file.read_bytes() == before
    export([source], file, Sft(per="step"), overwrite=True)
    assert "completion" in rows_of(file)[0]
    rollouts = (source / "rollouts.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"is read and cannot be written"):
        export([source], source / "rollouts.jsonl", Sft(), overwrite=True)
    assert (source / "rollouts.jsonl").read_bytes() == rollouts
