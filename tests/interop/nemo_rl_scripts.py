"""What the scripted policy says in the comparison with NeMo RL, and the tokenizers that it says it with."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from tests.interop.inside_nemo_rl.keypad import KeypadTask

HEADERS = {
    "qwen2_5": "<|im_start|>assistant",
    "qwen3_instruct_2507": "<|im_start|>assistant",
    "llama3_1": "<|start_header_id|>assistant",
}
"""Chat-template families, each with what begins a turn of the policy."""
KINDS = ("right", "wrong", "clumsy", "cut", "restless", "verbose")


def turns_of(kind: str, task: KeypadTask, family: str) -> list[str]:
    """The turns of an episode of a kind."""
    first, second = task.first, task.second
    said = [_call(first, family), f"I typed {first}.", _call(second, family), f"I typed {second} — “done”."]
    if kind == "wrong":
        said[2] = _call((second + 1) % 10, family)
    if kind == "clumsy":  # an argument that does not validate: the model is told, and tries again
        said.insert(0, _call("nine", family))
    if kind == "cut":
        said[3] = "I typed it, and " + "then again, " * 200
    if kind == "restless":
        said = [_call(place % 10, family) for place in range(40)]
    if kind == "verbose":
        said = [_call(place % 10, family, "\n" * 40) for place in range(40)]
    return said


def write_tokenizer(family: str, path: Path) -> Any:
    """A byte-level tokenizer with a family's template, which writes tool calls as that family's real ones do."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    controls = [
        "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
        "<|eot_id|>", "<|eom_id|>",
    ]  # fmt: skip
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=controls,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    template = resources.files("trl").joinpath(f"chat_templates/{family}.jinja").read_text(encoding="utf-8")
    bpe.train_from_iterator([template, *(_call(digit, family) for digit in range(10))], trainer)
    end = "<|eot_id|>" if family == "llama3_1" else "<|im_end|>"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=end, pad_token="<|endoftext|>", bos_token="<|begin_of_text|>"
    )
    # As the real ones have them: one token each, and no special ones.
    words = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in words])
    tokenizer.chat_template = template
    tokenizer.save_pretrained(path)
    return tokenizer


def _call(digit: Any, family: str, pause: str = "") -> str:
    """A tool call with its JSON spaced as no template would space it: rendered again, its tokens would be others."""
    arguments = json.dumps({"digit": digit}, separators=(",  ", f":{pause}"))
    if family == "llama3_1":
        return f'{{"name":"press",  "parameters":{arguments}}}'
    return f'<tool_call>{{"name":"press",  "arguments":{arguments}}}</tool_call>'
