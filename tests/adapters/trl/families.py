"""Tiny checkpoints of real chat-template families, overfitted on a conversation so that they call tools when
sampled."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from importlib import resources
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from gymrail import Environment, Rollout, Task, call, tool
from gymrail.environment import Turn
from gymrail.messages import chat_tools, to_messages
from gymrail.models.scripted import Oracle
from gymrail.play import play
from gymrail.spec import EnvironmentSpec
from gymrail_trl.tiny import chat_template as tiny_chat_template
from tests.core.models.chat_families import control_tokens
from tests.core.models.chat_families import template_of as own_template

FAMILIES = ("tiny", "qwen3", "qwen3_instruct_2507", "qwen2_5", "llama3_1", "gemma", "deepseek")
_ENDS = {"llama3_1": "<|eot_id|>", "gemma": "<end_of_turn>", "deepseek": "<\uff5cend\u2581of\u2581sentence\uff5c>"}
_OWN = ("gemma", "deepseek")
"""Families whose templates are those of the core's tests: TRL's have no tool role, or begin with a thought."""
_CONTROLS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|python_tag|>",
    *(token for family in _OWN for token in control_tokens(family)),
)
_WORDS = (
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<tools>",
    "</tools>",
    "<think>",
    "</think>",
)


class PadTask(Task):
    first: int
    second: int


class Pad(Environment[PadTask]):
    """Two tool-using turns around a user turn: type a digit, be asked for another, type it, say what was typed."""

    typed: list[int]

    @classmethod
    def generate(cls, rng: Random) -> PadTask:
        first, second = rng.randint(0, 9), rng.randint(0, 9)
        return PadTask.ask(f"Type {first}.", first=first, second=second)

    def seed(self) -> None:
        self.typed = []

    @tool
    def press(self, digit: int) -> str:
        """Press a key.

        Args:
            digit: The key.
        """
        self.typed.append(digit)
        return f"The pad shows {digit}."

    def reply(self, rollout: Rollout) -> str | None:
        return f"Now type {self.task.second}." if len(rollout.answers) == 1 else None

    def verify(self, rollout: Rollout) -> float:
        return float(self.typed == [self.task.first, self.task.second])

    def solve(self) -> Generator[Turn, Any, None]:
        yield call("press", digit=self.task.first)
        yield f"Typed {self.task.first}."
        yield call("press", digit=self.task.second)
        yield f"Typed {self.task.second}."


PAD = EnvironmentSpec("pad", Pad)


def template_of(family: str) -> str:
    if family == "tiny":
        return tiny_chat_template()
    if family in _OWN:
        return own_template(family, {})
    return resources.files("trl").joinpath(f"chat_templates/{family}.jinja").read_text(encoding="utf-8")


def make_checkpoint(family: str, path: Path, *, steps: int = 60, seed: int = 0) -> None:
    """Train a tokenizer and a two-layer model on eight gold conversations in the family's template."""
    rollouts = [
        asyncio.run(play(PAD, task, Oracle(), task_index=index)) for index, task in enumerate(PAD.tasks(limit=8))
    ]
    tokenizer = _tokenizer(family, rollouts)
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=0.08,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen3ForCausalLM(config)
    _overfit(model, [_ids(tokenizer, rollout) for rollout in rollouts], steps)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


def _tokenizer(family: str, rollouts: list[Rollout]) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    renderer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<|begin_of_text|>")
    renderer.chat_template = template_of(family)
    texts = [_render(renderer, rollout, tokenize=False) for rollout in rollouts]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=[*_CONTROLS, *_WORDS], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<|begin_of_text|>",
        eos_token=_ENDS.get(family, "<|im_end|>"),
        pad_token="<|endoftext|>",
        additional_special_tokens=[token for token in _CONTROLS if token != "<|python_tag|>"],
        padding_side="left",
    )
    tokenizer.chat_template = template_of(family)
    return tokenizer


def _render(tokenizer: Any, rollout: Rollout, *, tokenize: bool) -> Any:
    is_text = tokenizer.chat_template == template_of("deepseek")
    messages = to_messages(rollout.conversation, arguments="text" if is_text else "object")
    tools = chat_tools(PAD.tool_schemas(rollout.task))
    return tokenizer.apply_chat_template(
        messages, tools=tools, tokenize=tokenize, **({"return_dict": False} if tokenize else {})
    )


def _ids(tokenizer: Any, rollout: Rollout) -> torch.Tensor:
    return torch.tensor([_render(tokenizer, rollout, tokenize=True)])


def _overfit(model: Any, rows: list[torch.Tensor], steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95))
    for step in range(steps):
        ids = rows[step % len(rows)]
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
