"""NeMo RL and verl load exports with their own dataset classes: NEMO_RL_SOURCE and VERL_SOURCE name checkouts."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from gymrail.collect.run_directory import RunDirectory
from gymrail.collect.runner import Job, collect
from gymrail.data.export import Dpo, Rft, Selection, Sft, export
from gymrail.data.jsonl import read_rows
from gymrail.models.scripted import Oracle
from gymrail.registry import find
from gymrail_trl.tiny import make_tiny_policy
from tests.interop.destinations import load


def source_of(variable: str, package: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} names no checkout")
    source = Path(value).resolve()
    assert (source / package).is_dir(), f"{variable} is {value!r}, which holds no folder {package!r}"
    return source


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "played"
    jobs = [
        Job(spec, task, index, repeat)
        for spec in (find("word_math"), find("treasure_hunt"))
        for index, task in enumerate(spec.tasks(limit=12))
        for repeat in range(4)
    ]
    with RunDirectory.create(folder, {}) as run:
        asyncio.run(collect(jobs, Oracle(noise=0.5), record=run.record))
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny_policy([find("word_math"), find("treasure_hunt")], folder)
    return str(folder)


def test_nemo_rl_s_dataset_classes_load_what_is_written_for_it(run: Path, tokenizer: str, tmp_path: Path) -> None:
    source = source_of("NEMO_RL_SOURCE", "nemo_rl")
    request = {"tokenizer": tokenizer}
    for kind in (Sft(), Dpo(), Rft()):
        export([run], tmp_path / kind.name, kind, destination="nemo-rl")
        request[kind.name] = str(tmp_path / kind.name / "train.jsonl")
    written = {name: [row for _, row in read_rows(Path(request[name]))] for name in ("sft", "dpo", "rft")}

    found = load("nemo_rl", source, request, tmp_path)

    assert len(found["sft"]) == len(written["sft"]) == 96
    assert [row["messages"] for row in found["sft"]] == [row["messages"] for row in written["sft"]]
    for row in found["sft"] + found["sft_standard"]:
        assert row["text"] == row["whole"]
        assert row["weight"] == 1.0
    assert any("<tool_response>" in row["text"] for row in found["sft"])
    assert len(found["dpo"]) == len(written["dpo"]) > 10
    for row in found["dpo"]:
        assert row["chosen_answer"] != row["rejected_answer"]
        assert row["chosen"].removesuffix(row["chosen_answer"]) == row["rejected"].removesuffix(row["rejected_answer"])
    assert found["rft"] == written["rft"]
    assert {row["agent_ref"]["name"] for row in found["rft"]} == {"word_math", "treasure_hunt"}


@pytest.mark.parametrize("environment", ["word_math", "treasure_hunt"])
def test_verl_s_dataset_classes_load_what_is_written_for_it(
    run: Path, tokenizer: str, tmp_path: Path, environment: str
) -> None:
    source = source_of("VERL_SOURCE", "verl")
    request = {"tokenizer": tokenizer}
    counts = {}
    for kind in (Sft(), Dpo(), Rft()):
        chosen = Selection(environments=(environment,))
        summary = export([run], tmp_path / kind.name, kind, selection=chosen, destination="verl")
        request[kind.name] = str(tmp_path / kind.name / "train.parquet")
        counts[kind.name] = summary["rows"]

    found = load("verl", source, request, tmp_path)

    assert {name: len(rows) for name, rows in found.items()} == counts
    assert counts["sft"] == 48
    for row in found["sft"]:
        assert row["trained"].count("<tool_call>") == row["text"].count("<tool_call>")
        assert "<tool_response>" not in row["trained"]
        assert "<|im_start|>user" not in row["trained"]
    for chosen, rejected in found["dpo"]:
        assert chosen != rejected
        assert "\n\nassistant: " in chosen
    assert {row["data_source"] for row in found["rft"]} == {environment}
    assert all(row["raw_prompt"][-1]["role"] == "user" for row in found["rft"])
