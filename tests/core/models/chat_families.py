# ruff: noqa: E501, RUF001
# Templates break no line; DeepSeek writes its control tokens with a bar that looks like another one.
"""Chat templates that behave as six families do, with tokenizers made here; every behaviour is a switch.

`STOCK` is how a family behaves as it is published; `CLEAN` switches off what messages do not survive. Switches stand at
the top of each template, so that a planted drift is one line of it.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

FAMILIES = ("qwen3", "qwen2_5", "llama3", "gemma", "mistral", "deepseek")
# Controls: BOS, the end of a turn, the tokenizer's EOS, and the others. Words: added, and no control tokens.
_CONTROLS = {
    "qwen3": (None, "<|im_end|>", "<|im_end|>", ("<|endoftext|>", "<|im_start|>")),
    "qwen2_5": (None, "<|im_end|>", "<|im_end|>", ("<|endoftext|>", "<|im_start|>")),
    "llama3": (
        "<|begin_of_text|>",
        "<|eot_id|>",
        "<|eot_id|>",
        ("<|end_of_text|>", "<|eom_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>"),
    ),
    "gemma": ("<bos>", "<end_of_turn>", "<eos>", ("<start_of_turn>",)),
    "mistral": ("<s>", "</s>", "</s>", ("[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]")),
    "deepseek": (
        "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        (
            "<｜User｜>",
            "<｜Assistant｜>",
            *(f"<｜tool▁{name}｜>" for name in ("calls▁begin", "calls▁end", "call▁begin", "call▁end", "sep")),
            *(f"<｜tool▁{name}｜>" for name in ("outputs▁begin", "outputs▁end", "output▁begin", "output▁end")),
        ),
    ),
}
_WORDS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
MORE_ENDS = {"llama3": ("<|eom_id|>", "<|end_of_text|>"), "gemma": ("<end_of_turn>",)}
"""Ends of a turn that stand in the generation config and not in the tokenizer."""

_SHARED = {
    "bos_always": True,
    "tail": False,
    "trim": False,
    "keeps_thinking": True,
    "empty_think": False,
    "opens_think": "",
    "keeps_words": True,
    "arguments": "plain",
    "system_last": False,
    "tools_last": False,
    "end_of_earlier": "",
    "counts_words": False,
}
STOCK: dict[str, dict[str, Any]] = {
    "qwen3": {"tail": True, "keeps_thinking": False, "empty_think": True},
    "qwen2_5": {"tail": True},
    "llama3": {"trim": True, "keeps_words": False},
    "gemma": {"tail": True, "trim": True},
    "mistral": {"system_last": True, "tools_last": True},
    "deepseek": {"keeps_thinking": False, "opens_think": "<think>\n"},
}
CLEAN: dict[str, dict[str, Any]] = {family: {} for family in FAMILIES}

_MACROS = """
{%- macro arguments_of(call) -%}
{%- set given = call.function.arguments -%}
{%- if given is string -%}{{ given }}
{%- elif arguments == 'indented' -%}{{ given | tojson(indent=2) }}
{%- elif arguments == 'compact' -%}{{ given | tojson(separators=(',', ':')) }}
{%- elif arguments == 'escaped' -%}{{ given | tojson(ensure_ascii=true) }}
{%- elif arguments == 'sorted' -%}{{ given | tojson(sort_keys=true) }}
{%- else -%}{{ given | tojson }}{%- endif -%}
{%- endmacro -%}
{%- macro thinking_of(message, place, last_user) -%}
{%- if message.reasoning_content and (keeps_thinking or place > last_user) -%}
{{ '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}
{%- elif empty_think and place > last_user and not message.reasoning_content -%}{{ '<think>\\n\\n</think>\\n\\n' }}
{%- endif -%}
{%- endmacro -%}
{%- macro said(message) -%}
{%- if not message.tool_calls or keeps_words -%}
{{- (message.content | trim if trim else message.content) if message.content else '' -}}
{%- endif -%}
{%- endmacro -%}
{%- macro count(place) -%}
{%- if counts_words and place > 0 and messages[place - 1].role == 'assistant' -%}
({{ messages[place - 1].content | length }} letters) {% endif -%}
{%- endmacro -%}
{%- set ns = namespace(last_user=-1, first_user=-1) -%}
{%- for message in messages -%}{%- if message.role == 'user' -%}
{%- set ns.last_user = loop.index0 -%}
{%- if ns.first_user < 0 -%}{%- set ns.first_user = loop.index0 -%}{%- endif -%}
{%- endif -%}{%- endfor -%}
{%- set system = messages[0].content if messages[0].role == 'system' else '' -%}
{%- set system_at = ns.last_user if system_last else ns.first_user -%}
{%- set tools_at = ns.last_user if tools_last else ns.first_user -%}
{%- if bos_token and (bos_always or messages | length < 4) -%}{{ bos_token }}{%- endif -%}
"""

_CHATML = """
{{- '<|im_start|>system\\n' + (DEFAULT if not system else '' if system_last else system) -}}
{%- if tools and not tools_last -%}{{ '\\n# Tools\\n' }}{%- for tool in tools -%}{{ tool | tojson + '\\n' }}{%- endfor -%}{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- for message in messages -%}
{%- set is_last = loop.last -%}
{%- if message.role == 'user' -%}
{{ '<|im_start|>user\\n' + count(loop.index0) }}
{%- if system and system_last and loop.index0 == system_at -%}{{ system + '\\n' }}{%- endif -%}
{%- if tools and tools_last and loop.index0 == tools_at -%}{%- for tool in tools -%}{{ tool | tojson + '\\n' }}{%- endfor -%}{%- endif -%}
{{ message.content + '<|im_end|>\\n' }}
{%- elif message.role == 'assistant' -%}
{{ '<|im_start|>assistant\\n' + thinking_of(message, loop.index0, ns.last_user) + said(message) }}
{%- for call in message.tool_calls or [] -%}
{{ ('\\n' if not loop.first or (said(message)) else '') + '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + arguments_of(call) + '}\\n</tool_call>' }}
{%- endfor -%}
{{ end_of_earlier if end_of_earlier and not is_last else '<|im_end|>' }}{{ '\\n' if tail or not is_last or add_generation_prompt else '' }}
{%- elif message.role == 'tool' -%}
{%- if messages[loop.index0 - 1].role != 'tool' -%}{{ '<|im_start|>user' }}{%- endif -%}
{{ '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
{%- if is_last or messages[loop.index0 + 1].role != 'tool' -%}{{ '<|im_end|>\\n' }}{%- endif -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' + opens_think }}{%- endif -%}
"""

_LLAMA3 = """
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday is a Tuesday.' + ('' if system_last else '\\n' + system) + '<|eot_id|>' -}}
{%- for message in messages -%}
{%- if message.role == 'user' -%}
{{ '<|start_header_id|>user<|end_header_id|>\\n\\n' + count(loop.index0) }}
{%- if system and system_last and loop.index0 == system_at -%}{{ system + '\\n' }}{%- endif -%}
{%- if tools and loop.index0 == tools_at -%}{{ 'Answer with a function call.\\n' }}{%- for tool in tools -%}{{ tool | tojson(indent=4) + '\\n\\n' }}{%- endfor -%}{%- endif -%}
{{ message.content | trim + '<|eot_id|>' }}
{%- elif message.role == 'assistant' -%}
{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' + said(message) }}
{%- if message.tool_calls -%}
{%- if message.tool_calls | length > 1 -%}{{ raise_exception('One call at a time.') }}{%- endif -%}
{{ '{"name": "' + message.tool_calls[0].function.name + '", "parameters": ' + arguments_of(message.tool_calls[0]) + '}' }}
{%- endif -%}
{{ end_of_earlier if end_of_earlier and not loop.last else '<|eot_id|>' }}{{ '\\n' if tail and loop.last and not add_generation_prompt else '' }}
{%- elif message.role == 'tool' -%}
{{ '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + message.content | tojson + '<|eot_id|>' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif -%}
"""

_GEMMA = """
{%- set after = namespace(model=true) -%}
{%- for message in messages -%}
{%- set is_last = loop.last -%}
{%- if message.role == 'user' -%}
{%- if not after.model -%}{{ raise_exception('Turns must alternate.') }}{%- endif -%}
{{ '<start_of_turn>user\\n' + count(loop.index0) }}
{%- if system and loop.index0 == system_at -%}{{ system + '\\n\\n' }}{%- endif -%}
{%- if tools and loop.index0 == tools_at -%}{%- for tool in tools -%}{{ tool | tojson + '\\n' }}{%- endfor -%}{%- endif -%}
{{ message.content | trim + '<end_of_turn>\\n' }}
{%- set after.model = false -%}
{%- elif message.role == 'assistant' -%}
{{ '<start_of_turn>model\\n' + said(message) }}
{%- for call in message.tool_calls or [] -%}
{{ '<tool_call>{"name": "' + call.function.name + '", "arguments": ' + arguments_of(call) + '}</tool_call>' }}
{%- endfor -%}
{{ end_of_earlier if end_of_earlier and not is_last else '<end_of_turn>' }}{{ '\\n' if tail or not is_last or add_generation_prompt else '' }}
{%- set after.model = true -%}
{%- elif message.role == 'tool' -%}
{%- if messages[loop.index0 - 1].role != 'tool' -%}{{ '<start_of_turn>user\\n' }}{%- endif -%}
{{ '<tool_response>' + message.content + '</tool_response>' }}
{%- if is_last or messages[loop.index0 + 1].role != 'tool' -%}{{ '<end_of_turn>\\n' }}{%- endif -%}
{%- set after.model = false -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}
"""

_MISTRAL = """
{%- for message in messages -%}
{%- if message.role == 'user' -%}
{%- if tools and loop.index0 == tools_at -%}{{ '[AVAILABLE_TOOLS]' + tools | tojson + '[/AVAILABLE_TOOLS]' }}{%- endif -%}
{{ '[INST]' + count(loop.index0) + (system + '\\n\\n' if system and loop.index0 == system_at else '') + message.content + '[/INST]' }}
{%- elif message.role == 'assistant' -%}
{{ said(message) }}
{%- if message.tool_calls -%}
{{ '[TOOL_CALLS][' }}
{%- for call in message.tool_calls -%}
{%- if call.id | length != 9 -%}{{ raise_exception('Call ids have nine letters.') }}{%- endif -%}
{{ (', ' if not loop.first else '') + '{"name": "' + call.function.name + '", "arguments": ' + arguments_of(call) + ', "id": "' + call.id + '"}' }}
{%- endfor -%}
{{ ']' }}
{%- endif -%}
{{ end_of_earlier if end_of_earlier and not loop.last else '</s>' }}{{ '\\n' if tail and loop.last and not add_generation_prompt else '' }}
{%- elif message.role == 'tool' -%}
{%- if message.tool_call_id | length != 9 -%}{{ raise_exception('Call ids have nine letters.') }}{%- endif -%}
{{ '[TOOL_RESULTS]{"content": ' + message.content | tojson + ', "call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
{%- endif -%}
{%- endfor -%}
"""

_DEEPSEEK = """
{{- '' if system_last else system -}}
{%- if tools and not tools_last -%}{{ '\\n' + tools | tojson + '\\n' }}{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'user' -%}
{{ '<｜User｜>' + count(loop.index0) + (system + '\\n' if system_last and loop.index0 == system_at else '') + (tools | tojson if tools and tools_last and loop.index0 == tools_at else '') + message.content }}
{%- elif message.role == 'assistant' -%}
{%- if loop.index0 == 0 or messages[loop.index0 - 1].role != 'tool' -%}{{ '<｜Assistant｜>' }}{%- endif -%}
{{ thinking_of(message, loop.index0, ns.last_user if keeps_thinking else 999) + said(message) }}
{%- if message.tool_calls -%}
{{ '<｜tool▁calls▁begin｜>' }}
{%- for call in message.tool_calls -%}
{{ '<｜tool▁call▁begin｜>function<｜tool▁sep｜>' + call.function.name + '\\n```json\\n' + (call.function.arguments + '' if arguments == 'plain' else arguments_of(call)) + '\\n```<｜tool▁call▁end｜>' }}
{%- endfor -%}
{{ '<｜tool▁calls▁end｜>' }}
{%- endif -%}
{{ end_of_earlier if end_of_earlier and not loop.last else '<｜end▁of▁sentence｜>' }}{{ '\\n' if tail and loop.last and not add_generation_prompt else '' }}
{%- elif message.role == 'tool' -%}
{%- if messages[loop.index0 - 1].role != 'tool' -%}{{ '<｜tool▁outputs▁begin｜>' }}{%- endif -%}
{{ '<｜tool▁output▁begin｜>' + message.content + '<｜tool▁output▁end｜>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' -%}{{ '<｜tool▁outputs▁end｜>' }}{%- endif -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and messages[-1].role != 'tool' -%}{{ '<｜Assistant｜>' + opens_think }}{%- endif -%}
"""

_BODIES = {
    "qwen3": _CHATML.replace("DEFAULT", "'Think first.'"),
    # The family knows no thinking: no word of it in the template.
    "qwen2_5": _CHATML.replace("DEFAULT", "'You are helpful.'"),
    "llama3": _LLAMA3,
    "gemma": _GEMMA,
    "mistral": _MISTRAL,
    "deepseek": _DEEPSEEK,
}


def template_of(family: str, switches: dict[str, Any] | None = None) -> str:
    """Return the family's template with the given switches on top of the clean ones; stock ones by default."""
    chosen = {**_SHARED, **(STOCK[family] if switches is None else switches)}
    macros, body = _MACROS, _BODIES[family]
    if family not in ("qwen3", "deepseek"):
        start, end = macros.index("{%- macro thinking_of"), macros.index("{%- macro said")
        macros = macros[:start] + macros[end:]
        body = body.replace("thinking_of(message, loop.index0, ns.last_user) + ", "")
        body = body.replace(" + opens_think", "")
        chosen = {name: value for name, value in chosen.items() if "think" not in name}
    tops = [f"{{%- set {name} = {_literal(value)} -%}}" for name, value in chosen.items()]
    return "\n".join([*tops, macros + body])


def control_tokens(family: str) -> list[str]:
    """Return the tokens that the family's template is built of."""
    bos, turn_end, eos, others = _CONTROLS[family]
    return [token for token in dict.fromkeys((bos, turn_end, eos, *others)) if token is not None]


def tokenizer_of(family: str, switches: dict[str, Any] | None = None) -> Any:
    """Return a fast tokenizer with the family's control tokens and template; it merges common English letters."""
    bos, _, eos, _ = _CONTROLS[family]
    controls = control_tokens(family)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_trained(family),
        bos_token=bos,
        eos_token=eos,
        pad_token="<pad>",
        additional_special_tokens=[token for token in controls if token not in (bos, eos)],
        padding_side="left",
    )
    tokenizer.chat_template = template_of(family, switches)
    return tokenizer


def ends_of(family: str, tokenizer: Any) -> list[int]:
    """All ids at which sampling stops, as the checkpoint's generation config has them."""
    return [tokenizer.eos_token_id, *(tokenizer.convert_tokens_to_ids(token) for token in MORE_ENDS.get(family, ()))]


def save(family: str, folder: Path, switches: dict[str, Any] | None = None) -> Path:
    """Write what the check needs of a checkpoint: tokenizer and generation config."""
    tokenizer = tokenizer_of(family, switches)
    tokenizer.save_pretrained(folder)
    config = {"eos_token_id": ends_of(family, tokenizer)}
    (folder / "generation_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@functools.cache
def _trained_text(family: str) -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    controls = [*control_tokens(family), "<pad>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500 + len(controls),
        special_tokens=[*controls, *_WORDS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    text = 'The tour begins at the old bridge and ends at the mill. {"name": "press", "arguments": {"digit": 4}}\n' * 4
    bpe.train_from_iterator([text, "Typed 4. Now type 7. The pad shows 4."] * 3, trainer)
    return bpe.to_str()


def _trained(family: str) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(_trained_text(family))


def _literal(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
