"""Who reads an export: each program's own columns, so that its own loader takes the files unchanged.

trl        messages, tools; prompt, chosen, rejected; prompt, completion, label; prompt, completions, labels
unsloth    the same: it trains with TRL's trainers
sharegpt   conversations of `from` and `value`, all text: what Unsloth's `standardize_sharegpt` takes, and others
nemo-rl    SFT: OpenAI format. DPO: context and completions by rank. RFT: NeMo Gym rows with agent and tools
verl       Parquet. SFT: messages, tools. DPO: three texts, for its reward model's dataset. RFT: prompts with their task
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal, get_args

import orjson

from gymrail.data.export.context import Context, Kind, Row
from gymrail.data.export.pairs import Dpo
from gymrail.data.export.sft import Sft
from gymrail.data.export.text import as_text, spoken, transcript, with_tools
from gymrail.data.profiled import PROFILE
from gymrail.errors import InputError, did_you_mean
from gymrail.messages import Message, chat_tools, responses_tools

Destination = Literal["trl", "unsloth", "sharegpt", "nemo-rl", "verl"]
Format = Literal["jsonl", "parquet", "dataset"]
DESTINATIONS: tuple[str, ...] = get_args(Destination)
FORMATS: tuple[str, ...] = get_args(Format)
_KINDS: dict[str, tuple[str, ...]] = {
    "trl": ("sft", "dpo", "kto", "prm", "rft"),
    "unsloth": ("sft", "dpo", "kto", "prm", "rft"),
    "sharegpt": ("sft", "dpo"),
    "nemo-rl": ("sft", "dpo", "rft"),
    "verl": ("sft", "dpo", "rft"),
}
_FORMATS: dict[str, tuple[str, ...]] = {"nemo-rl": ("jsonl",), "verl": ("parquet",), "sharegpt": ("jsonl", "parquet")}
TASK_LINEAGE = "_lineage"
_FROM = {"system": "system", "user": "human", "tool": "human", "assistant": "gpt"}


def format_for(destination: str, kind: Kind, wanted: str | None) -> str:
    """Return the format to write: the one that is wanted, or the destination's first.

    Raises:
        InputError: the destination does not read it, has no such kind of training, or would train on the wrong words.
    """
    if destination not in DESTINATIONS:
        raise InputError(f"No destination is called {destination!r}. {did_you_mean(destination, DESTINATIONS)}")
    if kind.name not in _KINDS[destination]:
        able = ", ".join(name for name in DESTINATIONS if kind.name in _KINDS[name])
        raise InputError(f"{destination} reads no {kind.name.upper()} data of ours; these do: {able}.")
    if isinstance(kind, Sft) and kind.tokens and destination not in ("trl", "unsloth"):
        raise InputError(f"{destination} has no loader for token ids with labels; leave out tokens, or export for trl.")
    if isinstance(kind, Dpo) and kind.completion == "rest" and destination in ("nemo-rl", "sharegpt"):
        raise InputError(
            f"{destination} takes one answer on each side of a pair, so completion='rest' would lose what came "
            "before the last; leave it at 'turn'."
        )
    allowed = _FORMATS.get(destination, FORMATS)
    if wanted is not None and wanted not in FORMATS:
        raise InputError(f"No format is called {wanted!r}. {did_you_mean(wanted, FORMATS)}")
    if wanted is not None and wanted not in allowed:
        raise InputError(f"{destination} reads {' or '.join(allowed)}, not {wanted}; leave the format out.")
    return wanted or allowed[0]


def shape(row: Row, kind: Kind, destination: str, context: Context) -> Row | None:
    """Rewrite a row in the destination's columns; None where nothing of it can be trained on there.

    Raises:
        InputError: the destination has no form for what is in the row.
    """
    make = _SHAPES.get((destination, kind.name))
    return row if make is None else make(row, context)


def _to_sharegpt(row: Row, _: Context) -> Row:
    messages = row["messages"] if "messages" in row else [*row["prompt"], *row["completion"]]
    return {"conversations": _turns(with_tools(messages, row["tools"])), "lineage": row["lineage"]}


def _to_sharegpt_pair(row: Row, _: Context) -> Row:
    sides = {side: _turns(row[side])[0] for side in ("chosen", "rejected")}
    return {"conversations": _turns(with_tools(row["prompt"], row["tools"])), **sides, "lineage": row["lineage"]}


def _turns(messages: list[Message]) -> list[dict[str, str]]:
    """Messages as turns of text; neighbours of one speaker (answers of parallel calls) become one."""
    turns: list[dict[str, str]] = []
    for message in messages:
        if not isinstance(message.get("content"), str):
            raise InputError("ShareGPT files are text alone, and a conversation holds pictures; export for trl.")
        speaker = _FROM[message["role"]]
        if turns and turns[-1]["from"] == speaker == "human":
            turns[-1]["value"] += "\n" + spoken(message)
        else:
            turns.append({"from": speaker, "value": spoken(message)})
    return turns


def _to_openai(row: Row, context: Context) -> Row | None:
    messages = list(row["messages"]) if "messages" in row else [*row["prompt"], *row["completion"]]
    while messages and messages[-1]["role"] != "assistant":  # its loader asserts it, and nothing there is trained on
        messages.pop()
    if not any(message["role"] == "assistant" for message in messages):
        context.removed["the model never spoke"] += 1
        return None
    return {"messages": messages, "tools": row["tools"], "lineage": row["lineage"]}


def _to_ranks(row: Row, _: Context) -> Row:
    """NeMo RL hands no tools to the template, so the system message tells them."""
    return {
        "context": with_tools(row["prompt"], row["tools"]),
        "completions": [{"rank": rank, "completion": row[side]} for rank, side in enumerate(("chosen", "rejected"))],
        **{name: row[name] for name in ("margin", "lineage") if name in row},
    }


def _to_task(row: Row, _: Context) -> Row:
    """The lineage begins with `_`, so that the task has the id that it had: rollouts of it still belong to it."""
    return {**{name: value for name, value in row.items() if name != "lineage"}, TASK_LINEAGE: row["lineage"]}


def _to_gym(row: Row, context: Context) -> Row:
    environment = row[PROFILE]["environment"]
    parameters = dict(row["responses_create_params"])
    if isinstance(parameters.get("input"), str):
        parameters["input"] = [{"role": "user", "content": parameters["input"]}]
    if parameters.get("tools") is None:
        tools = responses_tools(context.environments.tools_named(environment))
        parameters["tools"] = [{"strict": False, **tool} for tool in tools]
    agent = row.get("agent_ref") or {"type": "responses_api_agents", "name": environment}
    return {**_to_task(row, context), "responses_create_params": parameters, "agent_ref": agent}


def _to_verl(row: Row, context: Context) -> Row | None:
    """Arguments are text here: as Parquet structs, every call would get the arguments of all others, as nulls."""
    made = _to_openai(row, context)
    if made is None:
        return None
    images: list[str] = []
    messages = [_for_verl(message, images) for message in made["messages"]]
    return {**made, "messages": messages, **({"images": images} if images else {})}


def _for_verl(message: Message, images: list[str]) -> Message:
    message = {**message, "content": _with_placeholders(message["content"], images)}
    if "tool_calls" in message:
        message["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": _as_template(call["function"]["arguments"])}}
            for call in message["tool_calls"]
        ]
    return message


def _with_placeholders(content: Any, images: list[str]) -> str:
    if isinstance(content, str):
        return content
    text = ""
    for part in content:
        if part["type"] == "image_url":
            images.append(part["image_url"]["url"])
            text += "<image>"
        else:
            text += part["text"]
    return text


def _to_verl_pair(row: Row, _: Context) -> Row:
    return {
        "prompt": transcript(with_tools(row["prompt"], row["tools"])) + "\n\nassistant: ",
        "chosen": as_text(row["chosen"]),
        "rejected": as_text(row["rejected"]),
        **{name: row[name] for name in ("margin", "lineage") if name in row},
    }


def _to_verl_prompt(row: Row, context: Context) -> Row:
    statistics, parameters = row[PROFILE], row["responses_create_params"]
    task = {name: value for name, value in row.items() if name not in (PROFILE, "lineage")}
    own = {name: value for name, value in task.items() if name != "responses_create_params"}
    tools = parameters.get("tools")
    schemas = chat_tools(tools) if tools is not None else context.environments.tools_named(statistics["environment"])
    return {
        "data_source": statistics["environment"],
        "prompt": [_for_verl(message, []) for message in context.prompt_of(parameters)],
        "ability": statistics["environment"],
        "reward_model": {"style": "rule", "ground_truth": _as_json(own)},
        "extra_info": {
            "index": row["lineage"]["task"],
            "pass_rate": statistics["pass_rate"],
            "task": _as_json(task),
            "tools": _as_json(schemas),
        },
        "lineage": row["lineage"],
    }


def _as_template(arguments: Any) -> str:
    """Arguments as chat templates write them, so that the model learns what it will be shown."""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _as_json(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


_SHAPES: dict[tuple[str, str], Callable[[Row, Context], Row | None]] = {
    ("trl", "rft"): _to_task,
    ("unsloth", "rft"): _to_task,
    ("sharegpt", "sft"): _to_sharegpt,
    ("sharegpt", "dpo"): _to_sharegpt_pair,
    ("nemo-rl", "sft"): _to_openai,
    ("nemo-rl", "dpo"): _to_ranks,
    ("nemo-rl", "rft"): _to_gym,
    ("verl", "sft"): _to_verl,
    ("verl", "dpo"): _to_verl_pair,
    ("verl", "rft"): _to_verl_prompt,
}
