"""Takes our agent server's answers to one batch through NeMo RL's own NeMo Gym post-processing and its own metrics.

Runs in NeMo RL's environment: `aggregate.py REQUEST ANSWER`, both JSON.
"""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from nemo_rl.algorithms.utils import get_tokenizer
from nemo_rl.distributed.batched_data_dict import BatchedDataDict
from nemo_rl.environments.nemo_gym import NemoGym
from nemo_rl.experience.rollouts import _postprocess_single_nemo_gym_group
from nemo_rl.utils.timer import Timer


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    rows, answers = request["rows"], request["answers"]
    tokenizer = get_tokenizer({"name": request["tokenizer"]})
    process = NemoGym.__ray_metadata__.modified_class._postprocess_nemo_gym_to_nemo_rl_result
    results = [process(SimpleNamespace(cfg={}), *pair, tokenizer) for pair in zip(rows, answers, strict=True)]
    made = _postprocess_single_nemo_gym_group(
        nemo_gym_rows=rows,
        results=results,
        timer=Timer(),
        timer_prefix="timing/rollout",
        policy_generation=SimpleNamespace(cfg={"vllm_cfg": {"max_model_len": 512}}),
        input_batch=BatchedDataDict({"loss_multiplier": torch.ones(len(rows))}),
        tokenizer=tokenizer,
        log_full_result_tables=False,
    )
    metrics = {
        name: float(value)
        for name, value in made.rollout_metrics.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
    answer = {
        "metrics": metrics,
        "rewards": made.final_batch["total_reward"].tolist(),
        "masked": [bool(flag) for flag in made.final_batch["mask_sample"]],
    }
    Path(sys.argv[2]).write_text(json.dumps(answer), encoding="utf-8")


main()
