"""What an export looks like to each program that reads one."""

from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest

from gymrail import Rollout
from gymrail.data.export import Dpo, Kto, Prm, Rft, Sft, export
from gymrail.errors import InputError
from gymrail.models.model import message
from tests.core.data.recorded import TOOL, Run, looked_up, rollout, rows_of, said, write_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Write rollouts as a run."""

    def write(*rollouts: Rollout, name: str = "run", compress: bool = False) -> Path:
        return write_run(tmp_path / name, *rollouts, compress=compress)

    return write


@pytest.fixture
def source(run: Run) -> Path:
    return run(
        looked_up("x", "X", "right", repeat=0),
        looked_up("x", "X", "wrong", repeat=1, reward=0.0),
        looked_up("y", "Y", "right", task="B?"),
    )


def test_sharegpt_is_text_with_calls_in_tags_and_tools_in_the_system_message(source: Path, tmp_path: Path) -> None:
    first = rows_of(export([source], tmp_path / "out", Sft(), destination="sharegpt")["output"])[0]["conversations"]
    assert [turn["from"] for turn in first] == ["system", "human", "gpt", "human", "gpt"]
    assert '"name":"look_up"' in first[0]["value"]
    assert first[2]["value"] == '<tool_call>\n{"name":"look_up","arguments":{"word":"x"}}\n</tool_call>'
    assert first[3]["value"] == "<tool_response>\nX\n</tool_response>"
    assert all(set(turn) == {"from", "value"} and isinstance(turn["value"], str) for turn in first)
    (pair,) = rows_of(export([source], tmp_path / "pairs", Dpo(), destination="sharegpt")["output"])
    assert (pair["chosen"], pair["rejected"]) == ({"from": "gpt", "value": "right"}, {"from": "gpt", "value": "wrong"})


def test_nemo_rl_gets_conversations_that_end_with_the_model(run: Run, tmp_path: Path) -> None:
    cut_off = looked_up("x", "X", "never said")
    cut_off.conversation.pop()
    (row,) = rows_of(export([run(cut_off)], tmp_path / "out", Sft(), destination="nemo-rl")["output"])
    assert [entry["role"] for entry in row["messages"]] == ["user", "assistant"]
    assert row["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"word": "x"}


def test_nemo_rl_gets_ranks_with_one_answer_each_and_is_told_the_tools(source: Path, tmp_path: Path) -> None:
    (row,) = rows_of(export([source], tmp_path / "out", Dpo(), destination="nemo-rl")["output"])
    assert [entry["role"] for entry in row["context"]] == ["system", "user", "assistant", "tool"]
    assert "look_up" in row["context"][0]["content"]
    assert row["completions"] == [
        {"rank": 0, "completion": [{"role": "assistant", "content": "right"}]},
        {"rank": 1, "completion": [{"role": "assistant", "content": "wrong"}]},
    ]


def test_nemo_rl_gets_gym_rows_with_an_agent_and_flat_tools(source: Path, tmp_path: Path) -> None:
    (row,) = rows_of(export([source], tmp_path / "out", Rft(), destination="nemo-rl")["output"])
    assert row["agent_ref"] == {"type": "responses_api_agents", "name": "quiz"}
    assert row["responses_create_params"] == {"input": [{"role": "user", "content": "Who?"}], "tools": [TOOL]}


def test_verl_gets_parquet_of_plain_structs_with_arguments_as_text(source: Path, tmp_path: Path) -> None:
    export([source], tmp_path / "out", Sft(), destination="verl")
    first, _, other = pq.read_table(tmp_path / "out/train.parquet").to_pylist()
    calls = [row["messages"][1]["tool_calls"][0]["function"]["arguments"] for row in (first, other)]
    assert calls == ['{"word": "x"}', '{"word": "y"}']
    assert first["tools"][0]["function"]["parameters"]["properties"] == {"word": {"type": "string"}}
    export([source], tmp_path / "prompts", Rft(), destination="verl")
    (task,) = pq.read_table(tmp_path / "prompts/train.parquet").to_pylist()
    assert task["prompt"] == [{"role": "user", "content": "Who?"}]
    assert (task["data_source"], task["extra_info"]["pass_rate"]) == ("quiz", 0.5)
    export([source], tmp_path / "pairs", Dpo(), destination="verl")
    (pair,) = pq.read_table(tmp_path / "pairs/train.parquet").to_pylist()
    assert (pair["chosen"], pair["rejected"]) == ("right", "wrong")
    assert pair["prompt"].endswith("<tool_response>\nX\n</tool_response>\n\nassistant: ")


def test_rollouts_with_different_tools_are_refused_only_where_they_cannot_lie_in_one_file(
    run: Run,
    tmp_path: Path,
) -> None:
    mixed = run(said("a"), said("b", environment="other", tools=[{**TOOL, "name": "search"}]))
    with pytest.raises(InputError, match=r"have different tools, .* export one environment at a time \(--env NAME\)"):
        export([mixed], tmp_path / "verl", Sft(), destination="verl")
    assert not (tmp_path / "verl").exists()
    for destination in ("trl", "nemo-rl", "sharegpt"):
        assert export([mixed], tmp_path / destination, Sft(), destination=destination)["rows"] == 2


PROGRAMS = {
    "unsloth": (Sft(), Sft(per="step"), Dpo(), Kto(), Prm(), Rft()),
    "sharegpt": (Sft(), Sft(per="step"), Dpo()),
    "nemo-rl": (Sft(), Sft(per="step"), Dpo(), Rft()),
    "verl": (Sft(), Sft(per="step"), Dpo(), Rft()),
}


@pytest.mark.parametrize(
    ("destination", "kind"), [(program, kind) for program, kinds in PROGRAMS.items() for kind in kinds]
)
def test_datasets_loads_what_is_written_for_every_program(
    source: Path, tmp_path: Path, destination: str, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    summary = export([source], tmp_path / "out", kind, destination=destination)
    loaded: Any = datasets.load_dataset(str(tmp_path / "out"), split="train")
    assert loaded.num_rows == summary["rows"] > 0
    file = tmp_path / "out" / f"train.{summary['format']}"
    written = rows_of(file) if file.suffix == ".jsonl" else pq.read_table(file).to_pylist()
    assert [_without_nulls(row) for row in loaded] == [_without_nulls(row) for row in written]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("kind", "options", "said_of_it"),
    [
        (Sft(), {"destination": "nemo"}, "No destination is called 'nemo'. Did you mean 'nemo-rl'?"),
        (Kto(), {"destination": "verl"}, "verl reads no KTO data of ours; these do: trl, unsloth."),
        (Sft(), {"destination": "nemo-rl", "format": "parquet"}, "nemo-rl reads jsonl, not parquet"),
        (Sft(), {"format": "csv"}, "No format is called 'csv'"),
        (Sft(tokens=True), {"destination": "verl"}, "verl has no loader for token ids with labels"),
        (Dpo(completion="rest"), {"destination": "nemo-rl"}, "nemo-rl takes one answer on each side"),
    ],
)
def test_what_a_destination_cannot_take_is_refused_before_anything_is_read(
    tmp_path: Path, kind: Any, options: dict[str, str], said_of_it: str
) -> None:
    with pytest.raises(InputError) as caught:
        export(["no_such_run"], tmp_path / "out", kind, **options)
    assert said_of_it in str(caught.value)


def test_pictures_are_refused_where_there_is_only_text(run: Run, tmp_path: Path) -> None:
    seen = [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]
    pictured = rollout(message("A pixel."), task="See.")
    pictured.task.responses_create_params["input"] = [{"role": "user", "content": seen}]
    with pytest.raises(InputError, match="ShareGPT files are text alone"):
        export([run(pictured)], tmp_path / "out", Sft(), destination="sharegpt")
