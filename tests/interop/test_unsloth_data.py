"""Unsloth loads exports, ShareGPT files with its own `standardize_sharegpt`, and its trainers train a step on each."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from gymrail.collect.run_directory import RunDirectory
from gymrail.collect.runner import Job, collect
from gymrail.data.export import Dpo, Sft, export
from gymrail.data.jsonl import read_rows
from gymrail.models.scripted import Oracle
from gymrail.registry import find
from gymrail_trl.tiny import make_tiny_policy
from tests.interop.unsloth_home import install, variables

ROLES = {"system": "system", "human": "user", "gpt": "assistant"}
_SECONDS = 600

pytestmark = pytest.mark.timeout(1800)


def test_unsloth_loads_exports_and_trains_a_step_on_each(tmp_path: Path) -> None:
    specs = [find("word_math"), find("treasure_hunt")]
    jobs = [
        Job(spec, task, index, repeat)
        for spec in specs
        for index, task in enumerate(spec.tasks(limit=12))
        for repeat in range(4)
    ]
    with RunDirectory.create(tmp_path / "run", {}) as run:
        asyncio.run(collect(jobs, Oracle(noise=0.5), record=run.record))
    make_tiny_policy(specs, tmp_path / "tiny")
    exports = {"sharegpt": (Sft(), "sharegpt"), "sft": (Sft(), "unsloth"), "dpo": (Dpo(), "unsloth")}
    written = {
        name: export([tmp_path / "run"], tmp_path / name, kind, destination=destination)["rows"]
        for name, (kind, destination) in exports.items()
    }
    request = {"tokenizer": str(tmp_path / "tiny"), "exports": {name: str(tmp_path / name) for name in exports}}

    done = subprocess.run(
        [str(install() / "python"), "-P", str(Path(__file__).with_name("load_unsloth.py"))],
        input=json.dumps(request), capture_output=True, text=True, timeout=_SECONDS, cwd=tmp_path, check=False,
        env=variables(UNSLOTH_ALLOW_CPU="1", HF_HOME=str(tmp_path / "hub")),
    )  # fmt: skip

    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    found = json.loads(done.stdout.splitlines()[-1])
    rows = [row["conversations"] for _, row in read_rows(tmp_path / "sharegpt" / "train.jsonl")]
    assert found["talks"] == [
        [{"role": ROLES[turn["from"]], "content": turn["value"]} for turn in conversation] for conversation in rows
    ]
    assert all("<tools>" in text and "<tool_call>" in text for text in found["texts"])
    for name, count in written.items():
        assert found[name]["trainer"].startswith("Unsloth")
        assert found[name]["rows"] == count > 10
        assert len(found[name]["losses"]) == 1
        assert found[name]["losses"][0] > 0
