"""A tiny policy from scratch: a Qwen3 of about 0.1 to 1 million parameters and a tokenizer trained on the environments'
own words.

It is an ordinary Transformers checkpoint with a chat template and tool calls, so everything that trains a real model
trains it, in seconds and on CPU. The quickstart and the tests use it; it knows nothing until its warm start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from gymrail.errors import InputError
from gymrail.messages import chat_tools, to_messages
from gymrail.models.scripted import Oracle
from gymrail.play import play
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
ADDED_TOKENS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
"""Written and sampled like words, so not special: decoding keeps them."""

RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open": "<tool_call>",
            "close_pattern": r"</tool_call>\s*",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"<\|im_end\|>\s*", "content": "text"},
    },
}
"""How Transformers parses an answer of this template; TRL's own tool loop (`environment_factory`) needs it."""


@dataclass(frozen=True, slots=True)
class TinyShape:
    """Size of the policy."""

    hidden_size: int = 64
    layers: int = 2
    heads: int = 4
    vocabulary: int = 384
    context_length: int = 512
    initializer_range: float = 0.08
    """Four times the usual: at this width the usual one learns to copy arguments ten times more slowly."""


def make_tiny_policy(
    specs: Sequence[EnvironmentSpec],
    path: Path,
    *,
    shape: TinyShape = TinyShape(),
    seed: int = 0,
    tasks: int = 200,
) -> int:
    """Write a checkpoint whose tokenizer knows the environments' words; return its number of parameters.

    Args:
        tasks: of each environment, those that the words are taken from.

    Raises:
        InputError: an environment has no gold policy to take the words from.
    """
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = train_tokenizer(asyncio.run(_gold_texts(specs, tasks)), shape)
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.hidden_size * 3,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=max(1, shape.heads // 2),
        head_dim=shape.hidden_size // shape.heads,
        max_position_embeddings=shape.context_length,
        tie_word_embeddings=True,
        initializer_range=shape.initializer_range,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen3ForCausalLM(config)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return sum(parameter.numel() for parameter in model.parameters())


def train_tokenizer(texts: Sequence[str], shape: TinyShape = TinyShape()) -> Any:
    """Train a byte-level BPE tokenizer, digits apart, with the tiny chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=shape.vocabulary,
        special_tokens=[*SPECIAL_TOKENS, *ADDED_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        padding_side="left",
    )
    tokenizer.chat_template = chat_template()
    tokenizer.response_template = RESPONSE_TEMPLATE
    return tokenizer


def chat_template() -> str:
    """The tiny chat template: ChatML, Hermes tool calls, a tool list that costs a few tokens instead of four
    hundred."""
    return resources.files("gymrail_trl").joinpath("tiny_chat_template.jinja").read_text(encoding="utf-8")


async def _gold_texts(specs: Sequence[EnvironmentSpec], per_environment: int) -> list[str]:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    renderer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    renderer.chat_template = chat_template()
    texts = []
    for spec in specs:
        for index, task in enumerate(spec.tasks("train", limit=per_environment)):
            rollout = await play(spec, task, Oracle(), task_index=index)
            if not rollout.is_trainable:
                raise InputError(f"The gold policy of {spec.name} failed on task {index}: {rollout.failure}.")
            texts.append(_render(renderer, spec, rollout))
    return texts


def _render(renderer: Any, spec: EnvironmentSpec, rollout: Rollout) -> str:
    messages = to_messages(rollout.conversation, arguments="object")
    return renderer.apply_chat_template(
        messages, tools=chat_tools(spec.tool_schemas(rollout.task)) or None, tokenize=False
    )
