"""Leaves what a run of NeMo RL leaves: its logger's files and its checkpoints, each written by NeMo RL's own code.

Runs in NeMo RL's environment: `leave_results.py REQUEST ANSWER`, both JSON. Only the numbers are made up.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nemo_rl.algorithms.grpo import GRPOSaveState, MasterConfig, _write_latest_checkpoint_status
from nemo_rl.experience.metric_utils import calculate_single_metric
from nemo_rl.utils.checkpoint import CheckpointManager
from nemo_rl.utils.logger import Logger, get_next_experiment_dir

from gymrail_nemo_rl.launch import check
from gymrail_nemo_rl.logs import write_log


def start(config: MasterConfig, first: int, last: int) -> None:
    """One start of the program, over so many steps, as `grpo_train` goes through them."""
    config.logger["log_dir"] = get_next_experiment_dir(config.logger["log_dir"])
    config.logger["monitor_gpus"] = False
    logger, checkpointer = Logger(config.logger), CheckpointManager(config.checkpointing)
    logger.log_hyperparams(config.model_dump())
    logger.log_metrics({"total_setup_time": 12.5}, step=0, prefix="timing/setup")
    for step in range(first, last + 1):
        rewards = [0.0, step / 10]
        metrics = {"loss": torch.tensor(1 / step), "grad_norm": np.float32(0.5), "reward": np.mean(rewards)}
        metrics |= calculate_single_metric(rewards, 2, "word_math/reward")
        metrics |= calculate_single_metric([1.0], 1, "mcqa/reward")  # its spread is no number
        state = GRPOSaveState(
            consumed_samples=step * 2, current_step=step, current_epoch=0, total_steps=step,
            total_valid_tokens=step * 9, val_reward=step / 10,
        )  # fmt: skip
        if step % 2 == 0:
            logger.log_metrics({"accuracy": step / 10}, step, prefix="validation")
            setattr(state, "val:accuracy", step / 10)
            path = checkpointer.init_tmp_checkpoint(step, vars(state), config)
            os.makedirs(os.path.join(path, "policy", "weights"))
            checkpointer.begin_finalization(path, wait_fn=lambda: None)
            _write_latest_checkpoint_status(checkpointer, last_checkpoint_step=step)
        rows = {"rewards": rewards, "token_ids": [[1, 2], [1, 3]], "advantages": [[-1.0], [1.0]]}
        logger.log_batched_dict_as_jsonl(rows, f"train_data_step{step}.jsonl")
        logger.log_metrics(metrics, step, prefix="train")
        logger.log_metrics({"total_step_time": 3.0}, step, prefix="timing/train", step_finished=True)
    checkpointer.shutdown()
    logger.finish()
    for each in logger.loggers:
        each.writer.flush()


def main() -> None:
    request: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    path = Path(request["config"])
    whole = check(path, "grpo")
    for first, last in request["starts"]:
        start(MasterConfig(**whole), first, last)
        whole = check(path, "grpo")
    Path(sys.argv[2]).write_text(json.dumps({"log": str(write_log(path.parent))}), encoding="utf-8")


main()
