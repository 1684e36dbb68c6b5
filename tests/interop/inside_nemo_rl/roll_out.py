"""Plays a scripted policy in NeMo RL's own rollout loops, through its registry and a Ray actor of our environment.

Runs in NeMo RL's environment: `roll_out.py REQUEST ANSWER`, both JSON.
"""

import json
import sys
from pathlib import Path
from typing import Any

import ray
import torch
from flattened import flattened, segments
from nemo_rl.algorithms.grpo import shutdown_environments
from nemo_rl.algorithms.utils import get_tokenizer
from nemo_rl.data.collate_fn import rl_collate_fn
from nemo_rl.data.utils import setup_response_data
from nemo_rl.distributed.batched_data_dict import BatchedDataDict
from nemo_rl.experience.rollouts import run_async_multi_turn_rollout, run_multi_turn_rollout
from nemo_rl.models.generation.interfaces import GenerationInterface
from scripted_tokens import Script, log_probs_of

from gymrail_nemo_rl.environment import register


class ScriptedGeneration(GenerationInterface):
    """NeMo RL's policy interface over a script; ends turns and cuts them as vLLM does."""

    def __init__(self, script: Script, max_new: int, max_length: int) -> None:
        self.script, self.max_new, self.max_length = script, max_new, max_length
        self.cfg = {"backend": "vllm", "vllm_cfg": {"async_engine": True, "max_model_len": max_length}}

    def init_collective(self, *_: Any, **__: Any) -> list[Any]:
        return []

    def prepare_for_generation(self, *_: Any, **__: Any) -> bool:
        return True

    def finish_generation(self, *_: Any, **__: Any) -> bool:
        return True

    def shutdown(self) -> bool:
        return True

    def generate(self, data: Any, greedy: bool = False) -> Any:
        return self._pack(self._rows(data))

    async def generate_async(self, data: Any, greedy: bool = False) -> Any:
        for place, row in enumerate(self._rows(data)):
            yield place, self._pack([row])

    def _rows(self, data: Any) -> list[tuple[list[int], list[int], bool]]:
        rows = []
        for ids, length in zip(data["input_ids"], data["input_lengths"], strict=True):
            prompt = ids[: int(length)].tolist()
            rows.append((prompt, *self.script.say(prompt, min(self.max_new, self.max_length - len(prompt)))))
        return rows

    def _pack(self, rows: list[tuple[list[int], list[int], bool]]) -> Any:
        width = max(len(prompt) + len(said) for prompt, said, _ in rows)
        ids = torch.full((len(rows), width), self.script.tokenizer.pad_token_id, dtype=torch.int64)
        log_probs = torch.zeros(len(rows), width)
        for place, (prompt, said, _) in enumerate(rows):
            ids[place, : len(prompt) + len(said)] = torch.tensor(prompt + said)
            log_probs[place, len(prompt) : len(prompt) + len(said)] = torch.tensor(log_probs_of(said))
        return BatchedDataDict(
            {
                "output_ids": ids,
                "logprobs": log_probs,
                "generation_lengths": torch.tensor([len(said) for _, said, _ in rows]),
                "unpadded_sequence_lengths": torch.tensor([len(prompt) + len(said) for prompt, said, _ in rows]),
                "truncated": torch.tensor([cut for _, _, cut in rows]),
            }
        )


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    config = request["config"]
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=True)
    register()
    tokenizer = get_tokenizer(config["policy"]["tokenizer"])
    limit = config["policy"]["max_total_sequence_length"]
    policy = ScriptedGeneration(
        Script(request["script"], tokenizer, request["header"]), config["policy"]["generation"]["max_new_tokens"], limit
    )
    dataset, _, environments, held_out = setup_response_data(tokenizer, config["data"], config["env"])
    turns = config["grpo"]["max_rollout_turns"]
    answer: dict[str, Any] = {}
    for name, roll_out in (("sync", run_multi_turn_rollout), ("async", run_async_multi_turn_rollout)):
        # Anew for each: the loops write into the conversations that they are given.
        batch = rl_collate_fn([dataset[place] for place in range(len(dataset))]).repeat_interleave(request["repeats"])
        finished, metrics = roll_out(policy, batch, tokenizer, environments, max_seq_len=limit, max_rollout_turns=turns)
        answer[name] = {
            "samples": [
                {**sample, "reward": float(reward), "truncated": bool(truncated), "segments": parts}
                for parts, sample, reward, truncated in zip(
                    [segments(log) for log in finished["message_log"]],
                    flattened(finished["message_log"], tokenizer.pad_token_id),
                    finished["total_reward"],
                    finished["truncated"],
                    strict=True,
                )
            ],
            "natural_termination_rate": metrics["natural_termination_rate"],
        }
    (environment,) = environments.values()
    answer["counts"] = ray.get(environment.counts.remote())
    shutdown_environments(environments, held_out)
    ray.shutdown()
    Path(sys.argv[2]).write_text(json.dumps(answer), encoding="utf-8")


main()
