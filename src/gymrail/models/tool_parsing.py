"""Reading a model's own words: reasoning, text and tool calls, as the big template families write them.

    Hermes (Qwen, Nous, most fine-tunes)  <tool_call>{"name": ..., "arguments": {...}}</tool_call>
    Llama 3                               {"name": ..., "parameters": {...}}, alone or after <|python_tag|>
    Mistral                               [TOOL_CALLS][{"name": ..., "arguments": {...}}], or
    [TOOL_CALLS]name[ARGS]{...}

A call whose JSON is broken stays a call when its name can be read: the model is told, and learns. Otherwise it is text.
"""

from __future__ import annotations

import re
import uuid
from typing import Any, Literal

import orjson

from gymrail.messages import reasoning_item
from gymrail.models.model import function_call, message
from gymrail.task import Item

Format = Literal["hermes", "llama", "mistral", "none"]

_HERMES = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)
_NAME = re.compile(r'"name"\s*:\s*"([^"]+)"')
_THINK = re.compile(r"\A\s*(?:<think>)?(.*?)</think>\s*", re.DOTALL)
_MISTRAL_NAMED = re.compile(r"\[TOOL_CALLS\]\s*([\w.-]+)\s*(?:\[CALL_ID\][\w-]+)?\[ARGS\]")


def detect_format(chat_template: str) -> Format:
    """Tell from a chat template how its model writes tool calls."""
    if "<tool_call>" in chat_template:
        return "hermes"
    if "[TOOL_CALLS]" in chat_template:
        return "mistral"
    if "<|python_tag|>" in chat_template or ("<|start_header_id|>" in chat_template and "parameters" in chat_template):
        return "llama"
    return "none"


def parse_turn(text: str, style: Format) -> list[Item]:
    """Take a sampled turn, without its end-of-turn token, apart into items; at least one item comes back."""
    items: list[Item] = []
    thought = _THINK.match(text)
    if thought:
        if thought[1].strip():
            items.append(reasoning_item(thought[1].strip("\n")))
        text = text[thought.end() :]
    elif text.lstrip().startswith("<think>"):
        # Cut off while it was still thinking.
        return [reasoning_item(text.lstrip().removeprefix("<think>").strip("\n"))]
    spoken, calls = _PARSERS[style](text)
    spoken = spoken.strip() if calls else spoken
    if spoken or not (calls or items):
        items.append(message(spoken))
    return items + calls


def _hermes(text: str) -> tuple[str, list[Item]]:
    calls: list[Item] = []

    def take(match: re.Match[str]) -> str:
        call = _call(match[1], "arguments")
        if call is None:
            return match[0]
        calls.append(call)
        return ""

    return _HERMES.sub(take, text), calls


def _llama(text: str) -> tuple[str, list[Item]]:
    body = text.strip().removeprefix("<|python_tag|>").strip()
    if not body.startswith("{"):
        return text, []
    calls = [_call(part, "parameters") for part in re.split(r";\s*(?=\{)", body)]
    found = [call for call in calls if call is not None]
    return ("", found) if len(found) == len(calls) else (text, [])


def _mistral(text: str) -> tuple[str, list[Item]]:
    spoken, mark, body = text.partition("[TOOL_CALLS]")
    if not mark:
        return text, []
    named = list(_MISTRAL_NAMED.finditer(text))
    if named:
        ends = [match.start() for match in named[1:]] + [len(text)]
        return spoken, [
            _item(match[1], text[match.end() : end].strip()) for match, end in zip(named, ends, strict=True)
        ]
    try:
        listed = orjson.loads(body)
    except orjson.JSONDecodeError:
        call = _call(body, "arguments")
        return (spoken, [call]) if call else (text, [])
    entries = listed if isinstance(listed, list) else [listed]
    found = [call for entry in entries if (call := _from_object(entry, "arguments"))]
    return (spoken, found) if found else (text, [])


_PARSERS = {"hermes": _hermes, "llama": _llama, "mistral": _mistral, "none": lambda text: (text, [])}


def _call(written: str, key: str) -> Item | None:
    try:
        return _from_object(orjson.loads(written), key)
    except orjson.JSONDecodeError:
        name = _NAME.search(written)
        return _item(name[1], written[name.end() :]) if name else None


def _from_object(value: Any, key: str) -> Item | None:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get(key, value.get("arguments" if key == "parameters" else "parameters", {}))
    return _item(value["name"], arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode())


def _item(name: str, arguments: str) -> Item:
    return function_call(name, arguments or "{}", f"call_{uuid.uuid4().hex[:12]}")
