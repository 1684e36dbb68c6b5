"""Our agent server in NeMo Gym's place: started for a run, asked over HTTP, recorded, stopped."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gymrail.collect.run_directory import RunDirectory
from gymrail.data.mixture import Group
from gymrail.models.model import message
from gymrail.recipe import load_recipe
from gymrail.serving.loopback import serve_on_loopback
from gymrail_nemo_rl.agent import own_address, serving
from gymrail_nemo_rl.tasks import gym_row

WORKPLACE = Path(__file__).parents[3] / "recipes" / "grpo" / "nemo_rl_workplace_assistant.yaml"
TOKENS = {"prompt_token_ids": [1, 2], "generation_token_ids": [3], "generation_log_probs": [-0.5]}


async def respond(request: Request) -> JSONResponse:
    body = await request.json()
    assert (body["temperature"], body["top_p"]) == (1.0, 1.0)
    return JSONResponse({"status": "completed", "model": "policy", "output": [{**message("Nothing."), **TOKENS}]})


@pytest.fixture
def port() -> Iterator[int]:
    """A port of our own: bound and not listening, so that nobody else gets it, and the server may listen there."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_rows_are_played_against_the_trainers_model_and_recorded_in_the_run(tmp_path: Path, port: int) -> None:
    async def run() -> list[dict[str, Any]]:
        app = Starlette(routes=[Route("/v1/responses", respond, methods=["POST"])])
        async with serve_on_loopback(app) as url:
            overrides = [
                f"output={tmp_path / 'run'}", "mixture=[{environment: mcqa}]", f"settings.gymrail.agent_port={port}",
                "settings.gymrail.policy_host=127.0.0.1", f"settings.gymrail.policy_port={url.rpartition(':')[2]}",
            ]  # fmt: skip
            recipe = load_recipe(WORKPLACE, overrides)
            (spec,) = recipe.specs()
            RunDirectory.create(recipe.directory, {}, environments=[spec]).close()
            row = gym_row(Group(4, spec, next(iter(spec.tasks("train", limit=1))), 4), {})
            row["responses_create_params"] |= {"temperature": 1.0, "top_p": 1.0}
            return await asyncio.to_thread(ask, recipe, f"http://127.0.0.1:{port}/run", row)

    answers = asyncio.run(run())
    for answer in answers:
        assert answer["reward"] == 0.0
        assert {name: answer["response"]["output"][-1][name] for name in TOKENS} == TOKENS
        assert "instance_config" not in answer
    rows = list(RunDirectory.open(tmp_path / "run").rows())
    assert [(row["_ng_task_index"], row["_ng_rollout_index"]) for row in rows] == [(4, 0), (4, 1)]


def ask(recipe: Any, url: str, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Post a row twice, as a group of two repeats."""
    answers = []
    with serving(recipe):
        for _ in range(2):
            request = urllib.request.Request(url, json.dumps(row).encode(), {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=120) as response:
                answers.append(json.loads(response.read()))
    return answers


def test_this_machines_own_address_is_an_address() -> None:
    socket.inet_aton(own_address())
