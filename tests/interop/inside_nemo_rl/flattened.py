"""What NeMo RL's trainer would train on, flattened by its own functions."""

from typing import Any

from nemo_rl.algorithms.grpo import add_grpo_token_loss_masks_and_generation_logprobs
from nemo_rl.data.llm_message_utils import batched_message_log_to_flat_message


def flattened(logs: list[Any], pad: int) -> list[dict[str, Any]]:
    """Each conversation's tokens, with 1 where the loss counts them, and the log-probs they were sampled with."""
    add_grpo_token_loss_masks_and_generation_logprobs(logs)
    flat, lengths = batched_message_log_to_flat_message(logs, pad_value_dict={"token_ids": pad})
    return [
        {
            "ids": flat["token_ids"][place, : int(length)].tolist(),
            "mask": [int(keep) for keep in flat["token_loss_mask"][place, : int(length)]],
            "log_probs": flat["generation_logprobs"][place, : int(length)].tolist(),
        }
        for place, length in enumerate(lengths)
    ]


def segments(log: list[Any]) -> list[list[Any]]:
    """A conversation as NeMo RL's `message_log` has it: who wrote, token ids, log-probs; what is empty left out."""
    return [
        [
            "assistant" if message["role"] == "assistant" else "user",
            message["token_ids"].tolist(),
            message["generation_logprobs"].tolist() if message["role"] == "assistant" else [],
        ]
        for message in log
        if len(message["token_ids"])
    ]
