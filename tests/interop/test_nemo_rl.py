"""NeMo RL's own rollout loops over our environment, held token by token against what the TRL adapter makes of it.

Runs with a checkout: `NEMO_RL_SOURCE=CHECKOUT make interop-nemo-rl`.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gymrail.agents.tool_loop import ToolLoop
from gymrail.data.jsonl import write_jsonl
from gymrail.data.mixture import Group
from gymrail.episode import Limits
from gymrail.models.chat_template import ChatTemplate
from gymrail.models.token_model import Sample, Sampling, TokenModel
from gymrail.models.trained import trained_model
from gymrail.play import play
from gymrail.recipe import Recipe
from gymrail.registry import find
from gymrail.rollout import Rollout
from gymrail.serving.agent import create_agent_app
from gymrail.serving.loopback import serve_on_loopback
from gymrail.serving.settings import Settings
from gymrail.spec import EnvironmentSpec
from gymrail.tokens import training_row
from gymrail_nemo_rl.configuration import configuration
from gymrail_nemo_rl.tasks import gym_row, native_row
from tests.interop.inside_nemo_rl.keypad import KeypadTask
from tests.interop.inside_nemo_rl.scripted_tokens import Script, log_probs_of
from tests.interop.nemo_rl_checkout import ask, source
from tests.interop.nemo_rl_policy import PolicyServer
from tests.interop.nemo_rl_scripts import HEADERS, KINDS, turns_of, write_tokenizer

pytestmark = [
    pytest.mark.skipif(
        source() is None, reason="needs a NeMo RL checkout: NEMO_RL_SOURCE=CHECKOUT make interop-nemo-rl"
    ),
    pytest.mark.timeout(1800),
]

KEYPAD = str(Path(__file__).parent / "inside_nemo_rl" / "keypad.py")
SAMPLING = {"temperature": 1.0, "top_p": 1.0, "max_output_tokens": 96}
OUTPUT, STEPS, REPEATS = 96, 8, 2
EXACT = ("ids", "mask", "log_probs", "reward", "segments")
"""What is equal, token by token: the rows as tensors, and cut into messages as NeMo RL keeps them."""
CONTEXT = {"qwen2_5": 690, "qwen3_instruct_2507": 680, "llama3_1": 650}
"""Tokens of an episode, so that in each family one of the episodes runs out of them between two turns."""


@pytest.mark.parametrize("family", HEADERS)
def test_nemo_rls_rollout_trains_on_the_tokens_that_the_trl_adapter_trains_on(family: str, tmp_path: Path) -> None:
    ours = _Side(family, tmp_path)
    answer = ask("roll_out.py", ours.request(), tmp_path)
    expected = ours.expected()

    ends = {sample["reason"] or sample["status"] for sample in expected}
    assert ends >= {"scored", "failed", "max_output_tokens", "max_steps", "context"}
    assert {sample["reward"] for sample in expected} == {0.0, 1.0, None}
    for loop in ("sync", "async"):
        theirs = answer[loop]["samples"]
        assert len(theirs) == len(expected) * REPEATS
        for place, sample in enumerate(theirs):
            want = expected[place // REPEATS]
            if want["status"] == "failed":
                # Cut off by the length limit, and so out of the loss under `overlong_filtering`.
                assert sample["truncated"]
                assert len(sample["ids"]) == CONTEXT[family]
                continue
            got = {name: sample[name] for name in EXACT}
            assert got == {name: want[name] for name in got}
            assert sample["truncated"] == (want["reason"] == "max_output_tokens")
    assert answer["counts"] == {"abandoned": 0, "inexact": 0}
    _check_record(tmp_path / "run", expected)


@pytest.mark.parametrize("family", HEADERS)
def test_nemo_rls_gym_post_processing_takes_our_agent_servers_answers(family: str, tmp_path: Path) -> None:
    ours = _Side(family, tmp_path)
    rows, answers = asyncio.run(ours.answers())
    request = {"tokenizer": str(tmp_path / "tokenizer"), "rows": rows, "answers": answers}
    samples = ask("post_process.py", request, tmp_path)

    for sample, want in zip(samples, ours.expected(), strict=True):
        if want["status"] == "failed":
            assert sample["masked"]
            continue
        assert not sample["masked"]
        got = {name: sample[name] for name in EXACT}
        assert got == {name: want[name] for name in got}


def _check_record(run: Path, expected: list[dict[str, Any]]) -> None:
    """Every rollout of both loops is on record, and a failed one has no reward."""
    rows = [json.loads(line) for line in (run / "rollouts.jsonl").read_text("utf-8").splitlines()]
    failures = [json.loads(line) for line in (run / "failures.jsonl").read_text("utf-8").splitlines()]
    failed = sum(sample["status"] == "failed" for sample in expected)
    assert len(failures) == failed * REPEATS * 2
    assert len(rows) == (len(expected) - failed) * REPEATS * 2
    assert all(row.get("reward") is None for row in failures)
    assert len({(row["_ng_task_index"], row["_ng_rollout_index"]) for row in [*rows, *failures]}) == len(
        rows + failures
    )


class _Side:
    """Our side: the tasks, the script, and what the TRL adapter makes of the episodes."""

    def __init__(self, family: str, folder: Path) -> None:
        self.family, self.folder = family, folder
        self.tokenizer = write_tokenizer(family, folder / "tokenizer")
        self.template = ChatTemplate(self.tokenizer)
        self.spec: EnvironmentSpec = find(KEYPAD)
        tasks = [KeypadTask.ask(f"Type {place % 10}, née “{place}”.", first=place % 10, second=(place * 7) % 10,
                 breaks=place == len(KINDS)) for place in range(len(KINDS) + 1)]  # fmt: skip
        self.groups = [Group(place, self.spec, task, place) for place, task in enumerate(tasks)]
        kinds = (*KINDS, "right")
        rows = [
            {"prompt": self._prompt(task), "turns": turns_of(kind, task, family)}
            for task, kind in zip(tasks, kinds, strict=True)
        ]
        self.script = folder / "script.json"
        self.script.write_text(json.dumps(rows), encoding="utf-8")

    def request(self) -> dict[str, Any]:
        recipe = _recipe(self.folder, CONTEXT[self.family])
        write_jsonl((native_row(group, {}) for group in self.groups), self.folder / "train.jsonl")
        from gymrail.collect.run_directory import RunDirectory

        RunDirectory.create(recipe.directory, {}, environments=[self.spec]).close()
        config = configuration(recipe, [self.spec], Path("/nowhere"), {"train": self.folder / "train.jsonl"})
        return {
            "config": _resolved(config),
            "script": str(self.script),
            "header": HEADERS[self.family],
            "repeats": REPEATS,
        }

    async def answers(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Post each task, as NeMo RL does, to our agent server, which asks a stand-in of NeMo Gym's model server."""
        rows = [gym_row(group, {}) for group in self.groups]
        for row in rows:
            row["responses_create_params"] |= SAMPLING
        policy = PolicyServer(self._model())
        async with serve_on_loopback(policy.app) as url:
            settings = Settings.for_address("127.0.0.1", is_open=True)
            model = trained_model(f"{url}/v1", "policy_model")
            app = create_agent_app([self.spec], model, ToolLoop(STEPS), settings, for_training=True)
            async with serve_on_loopback(app) as agent, aiohttp.ClientSession() as session:
                answers = [await _post(session, f"{agent}/run", row) for row in rows]
        policy.check()
        return rows, answers

    def expected(self) -> list[dict[str, Any]]:
        from gymrail_trl import RolloutFunction

        rollouts = [asyncio.run(self._play(group)) for group in self.groups]
        columns = RolloutFunction({}).to_columns(rollouts, self.tokenizer.eos_token_id)
        rows = [training_row(rollout, placeholder_id=self.tokenizer.eos_token_id) for rollout in rollouts]
        return [
            {**_sample(columns, place, rollout), "segments": [list(part) for part in row.sequence.segments]}
            for place, (rollout, row) in enumerate(zip(rollouts, rows, strict=True))
        ]

    def _prompt(self, task: KeypadTask) -> list[int]:
        return self.template.prompt(task.input_items, self.spec.tool_schemas(task))

    async def _play(self, group: Group) -> Rollout:
        agent = ToolLoop(STEPS)
        return await play(group.spec, group.task, self._model(), agent=agent, limits=Limits(), task_index=group.index)

    def _model(self) -> TokenModel:
        sampler = _Sampler(Script(str(self.script), self.tokenizer, HEADERS[self.family]))
        return TokenModel(self.template, sampler, Sampling(max_output_tokens=OUTPUT), CONTEXT[self.family])


class _Sampler:
    def __init__(self, script: Script) -> None:
        self.script = script

    async def sample(self, prompt_ids: list[int], sampling: Sampling) -> Sample:
        ids, _ = self.script.say(prompt_ids, sampling.max_output_tokens)
        return Sample(ids, log_probs_of(ids))


async def _post(session: aiohttp.ClientSession, url: str, row: dict[str, Any]) -> dict[str, Any]:
    async with session.post(url, json=row) as response:
        answer = await response.json()
        assert response.status == 200, answer
        return answer


def _sample(columns: dict[str, list[Any]], place: int, rollout: Rollout) -> dict[str, Any]:
    assert rollout.outcome is not None
    prompt = columns["prompt_ids"][place]
    blank = [0] * len(prompt)
    return {
        "ids": prompt + columns["completion_ids"][place],
        "mask": blank + columns["env_mask"][place],
        "log_probs": [0.0] * len(prompt) + columns["logprobs"][place],
        "reward": columns["gymrail_reward"][place],
        "status": rollout.outcome.status,
        "reason": rollout.outcome.reason,
    }


def _recipe(folder: Path, context: int) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "keypad",
            "algorithm": "grpo",
            "trainer": "nemo_rl",
            "model": str(folder / "tokenizer"),
            "output": str(folder / "run"),
            "mixture": [{"environment": KEYPAD}],
            "agent": {"max_steps": STEPS},
            "sampling": {"max_output_tokens": OUTPUT, "context_length": context},
            "settings": {"grpo": {"max_num_steps": 1, "num_prompts_per_step": len(KINDS) + 1}},
        }
    )


def _resolved(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with its few references filled in, as NeMo RL's loader does with the whole file."""
    policy = config["policy"]
    text = json.dumps(config)
    for name, value in {
        '"${policy.max_total_sequence_length}"': policy["max_total_sequence_length"],
        '"${policy.generation.max_new_tokens}"': policy["generation"]["max_new_tokens"],
        '"${policy.tokenizer}"': policy["tokenizer"],
    }.items():
        text = text.replace(name, json.dumps(value))
    found = json.loads(text)
    for section in (found["data"], found["env"]):
        section.pop("_override_")
    return found
