"""What NeMo RL leaves behind and what it measures of a batch, by its own code; runs with a checkout, as test_nemo_rl.py
does."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gymrail.agents.tool_loop import ToolLoop
from gymrail.collect.runner import Job, collect
from gymrail.models.model import ModelRequest, ModelResponse, message
from gymrail.models.scripted import Oracle
from gymrail.recipe import load_recipe
from gymrail.registry import find
from gymrail.serving.agent import create_agent_app
from gymrail.serving.loopback import serve_on_loopback
from gymrail.serving.settings import Settings
from gymrail_nemo_rl.record import Record
from gymrail_nemo_rl.results import read_results
from gymrail_nemo_rl.train import make_run, write_inputs
from tests.interop.nemo_rl_checkout import ask, source
from tests.interop.nemo_rl_scripts import write_tokenizer
from tests.interop.node import ROOT

pytestmark = [
    pytest.mark.skipif(source() is None, reason="needs NEMO_RL_SOURCE, a NeMo RL checkout"),
    pytest.mark.timeout(1800),
]

KEEP = ("settings.checkpointing.keep_top_k=2", "settings.checkpointing.save_period=2")
MOODY = str(Path(__file__).parent / "inside_nemo_rl" / "moody.py")


def test_what_nemo_rl_logged_and_saved_is_read_back_into_the_run(tmp_path: Path) -> None:
    overrides = [f"output={tmp_path / 'run'}", "settings.grpo.max_num_steps=1", *KEEP]
    recipe = load_recipe(ROOT / "recipes" / "grpo" / "nemo_rl_quickstart.yaml", overrides)
    specs, checkout = recipe.specs(), source()
    assert checkout is not None
    make_run(recipe, specs)
    config = write_inputs(recipe, specs, checkout)
    record = Record(recipe.directory, specs)
    jobs = [Job(spec, task, index) for spec in specs for index, task in enumerate(spec.tasks("train", limit=3))]
    asyncio.run(collect(jobs, Oracle(), record=record))
    record.close()

    # The run is broken off after step 5 and goes on from the checkpoint of step 4.
    ask("leave_results.py", {"config": str(config), "starts": [[1, 5], [5, 6]]}, tmp_path)
    summary = read_results(recipe, specs)

    assert summary == json.loads((recipe.directory / "metrics.json").read_text(encoding="utf-8"))
    log = json.loads((recipe.directory / "log.json").read_text(encoding="utf-8"))
    assert [entry["step"] for entry in log] == [0, 1, 2, 3, 4, 5, 6]
    assert log[0] == {"step": 0, "timing/setup/total_setup_time": 12.5}
    last = summary["last_step"]
    assert last == log[-1]
    assert last["train/loss"] == pytest.approx(1 / 6)
    assert last["train/reward"] == pytest.approx(0.3)
    assert last["train/word_math/reward/mean"] == pytest.approx(0.3)
    assert last["validation/accuracy"] == pytest.approx(0.6)
    assert "validation/accuracy" not in log[-2]
    assert "train/mcqa/reward/stddev" not in last, "it is not a number, and JSON has none"
    kept = summary["checkpoints"]
    assert [saved["current_step"] for saved in kept] == [4, 6], "NeMo RL keeps the best two"
    assert [saved["val:accuracy"] for saved in kept] == pytest.approx([0.4, 0.6])
    assert summary["policy"] == str(recipe.directory / "checkpoints" / "step_6" / "policy")
    assert Path(summary["policy"], "weights").is_dir()
    assert sorted(path.name for path in (recipe.directory / "logs").iterdir()) == ["exp_001", "exp_002"]
    assert summary["rollouts"] == len(jobs)


class _Says:
    """Says what it is asked, with tokens."""

    async def respond(self, request: ModelRequest) -> ModelResponse:
        tokens = {"prompt_token_ids": [1, 2], "generation_token_ids": [3, 4], "generation_log_probs": [-0.5, -0.25]}
        return ModelResponse([{**message(str(request.input[-1]["content"])), **tokens}])


def test_a_metric_that_one_row_lacks_breaks_no_environment_in_nemo_rls_own_metrics(tmp_path: Path) -> None:
    write_tokenizer("qwen2_5", tmp_path / "tokenizer")
    moods = ["calm", "silent", "odd", "broken", "calm"]
    specs = [find(MOODY), find("mcqa")]
    choice = next(iter(specs[1].tasks("example", limit=1)))
    rows = [{"responses_create_params": {"input": mood}, "agent_ref": _ref("moody")} for mood in moods]
    rows += [{**choice.row, "agent_ref": _ref("mcqa")}] * 2
    answers = asyncio.run(_answers(specs, rows))
    assert [answer.get("mood") for answer in answers[:5]] == [0.5, None, None, None, 0.5]
    assert "mood" not in answers[1]

    request = {"tokenizer": str(tmp_path / "tokenizer"), "rows": rows, "answers": answers}
    found = ask("aggregate.py", request, tmp_path)

    metrics = found["metrics"]
    assert found["masked"] == [False, False, False, True, False, False, False]
    assert metrics["moody/mood/max"] == metrics["moody/mood/min"] == 0.5
    assert metrics["moody/mood/mean"] == pytest.approx(1.0 / 5), "NeMo RL divides by all of the agent's rows"
    assert metrics["moody/reward/max"] == 1.0
    for name in ("mcqa/reward/mean", "mcqa/reward/max"):
        assert metrics[name] == pytest.approx(sum(found["rewards"][5:]) / 2)
    assert not any(name.startswith("mcqa/mood") for name in metrics)


def _ref(name: str) -> dict[str, str]:
    return {"type": "responses_api_agents", "name": name}


async def _answers(specs: list[Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    settings = Settings.for_address("127.0.0.1", is_open=True)
    app = create_agent_app(specs, _Says(), ToolLoop(1), settings, for_training=True)
    answers = []
    async with serve_on_loopback(app) as agent, aiohttp.ClientSession() as session:
        for row in rows:
            async with session.post(f"{agent}/run", json=row) as response:
                answers.append(await response.json())
                assert response.status == 200, answers[-1]
    return answers
