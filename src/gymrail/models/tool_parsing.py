# ruff: noqa: RUF001, RUF002
# DeepSeek writes its control tokens with a bar that looks like another one.
"""Reading a model's own words: reasoning, text and tool calls, as the big template families write them.

    Hermes (Qwen, Nous, most fine-tunes)  <tool_call>{"name": ..., "arguments": {...}}</tool_call>
    Llama 3                               {"name": ..., "parameters": {...}}, alone or after <|python_tag|>
    Mistral                               [TOOL_CALLS][{"name": ..., "arguments": {...}}], or
    [TOOL_CALLS]name[ARGS]{...}
    DeepSeek                              <｜tool▁call▁begin｜>function<｜tool▁sep｜>name, then JSON in a code fence, or
    <｜tool▁call▁begin｜>name<｜tool▁sep｜>{...}
    XML (Qwen 3.5, Nemotron 3)            <tool_call><function=name><parameter=key>value</parameter></function>
    </tool_call>

A call whose JSON is broken stays a call when its name can be read: the model is told, and learns. Otherwise it is text.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import orjson

from gymrail.messages import reasoning_item, responses_tools
from gymrail.models.model import function_call, message
from gymrail.task import Item

Format = Literal["hermes", "llama", "mistral", "deepseek", "xml", "none"]

_HERMES = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)
_NAME = re.compile(r'"name"\s*:\s*"([^"]+)"')
_THINK = re.compile(r"\A\s*(?:<think>)?(.*?)</think>\s*", re.DOTALL)
_MISTRAL_NAMED = re.compile(r"\[TOOL_CALLS\]\s*([\w.-]+)\s*(?:\[CALL_ID\]([\w-]+))?\[ARGS\]")
_MISTRAL_ID = re.compile(r"[A-Za-z0-9]{9}")
"""Mistral's templates refuse every other id."""
_DEEPSEEK = re.compile(r"<｜tool▁call▁begin｜>(.*?)<｜tool▁sep｜>(.*?)(?:<｜tool▁call▁end｜>|\Z)", re.DOTALL)
_XML_CALL = re.compile(r"<function=([^>\s]+)>(.*?)(?:</function>|\Z)", re.DOTALL)
_XML_VALUE = re.compile(r"<parameter=([^>\s]+)>\n?(.*?)\n?(?:</parameter>|\Z)", re.DOTALL)
_FENCED = re.compile(r"\s*([\w.-]+)\s*```(?:json)?\s*(.*?)\s*(?:```|\Z)", re.DOTALL)


def detect_format(chat_template: str) -> Format:
    """Tell from a chat template how its model writes tool calls."""
    if "<tool_call>" in chat_template:
        return "xml" if "<function=" in chat_template else "hermes"
    if "[TOOL_CALLS]" in chat_template:
        return "mistral"
    if "<｜tool▁call▁begin｜>" in chat_template:
        return "deepseek"
    if "<|python_tag|>" in chat_template or ("<|start_header_id|>" in chat_template and "parameters" in chat_template):
        return "llama"
    return "none"


def parse_turn(text: str, style: Format, tools: Sequence[Mapping[str, Any]] = ()) -> list[Item]:
    """Take a sampled turn, without its end-of-turn token, apart into items; at least one item comes back.

    Args:
        tools: what the model was offered: XML writes every value as text, and the schemas tell which are.
    """
    items: list[Item] = []
    thought = _THINK.match(text)
    if thought:
        if thought[1].strip():
            items.append(reasoning_item(thought[1].strip("\n")))
        text = text[thought.end() :]
    elif text.lstrip().startswith("<think>"):
        # Cut off while it was still thinking.
        return [reasoning_item(text.lstrip().removeprefix("<think>").strip("\n"))]
    spoken, calls = _xml(text, tools) if style == "xml" else _PARSERS[style](text)
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
            _mistral_item(match[1], text[match.end() : end].strip(), match[2])
            for match, end in zip(named, ends, strict=True)
        ]
    try:
        listed = orjson.loads(body)
    except orjson.JSONDecodeError:
        call = _call(body, "arguments")
        return (spoken, [_mistral_item(call["name"], call["arguments"], None)]) if call else (text, [])
    entries = listed if isinstance(listed, list) else [listed]
    found = [
        _mistral_item(call["name"], call["arguments"], entry.get("id"))
        for entry in entries
        if (call := _from_object(entry, "arguments"))
    ]
    return (spoken, found) if found else (text, [])


def _mistral_item(name: str, arguments: str, call_id: Any) -> Item:
    """The model writes its calls' ids itself, and the results name them."""
    is_own = isinstance(call_id, str) and _MISTRAL_ID.fullmatch(call_id) is not None
    return function_call(name, arguments or "{}", call_id if is_own else uuid.uuid4().hex[:9])


def _deepseek(text: str) -> tuple[str, list[Item]]:
    spoken, mark, _ = text.partition("<｜tool▁calls▁begin｜>")
    calls: list[Item] = []
    for match in _DEEPSEEK.finditer(text):
        fenced = _FENCED.match(match[2]) if match[1].strip() == "function" else None
        calls.append(_item(fenced[1], fenced[2]) if fenced else _item(match[1].strip(), match[2].strip()))
    return (spoken, calls) if mark and calls else (text, [])


def _xml(text: str, tools: Sequence[Mapping[str, Any]]) -> tuple[str, list[Item]]:
    schemas = {str(tool.get("name")): tool.get("parameters") or {} for tool in responses_tools(tools)}
    calls: list[Item] = []

    def take(match: re.Match[str]) -> str:
        call = _XML_CALL.search(match[1])
        if call is None:
            return match[0]
        properties = schemas.get(call[1], {}).get("properties", {})
        values = {part[1]: _xml_value(part[2], properties.get(part[1], {})) for part in _XML_VALUE.finditer(call[2])}
        calls.append(_item(call[1], orjson.dumps(values).decode()))
        return ""

    return _HERMES.sub(take, text), calls


def _xml_value(written: str, schema: Mapping[str, Any]) -> Any:
    if schema.get("type") == "string":
        return written
    if written in _PYTHON_WORDS:
        return _PYTHON_WORDS[written]
    try:
        return orjson.loads(written)
    except orjson.JSONDecodeError:
        return written


_PYTHON_WORDS = {"True": True, "False": False, "None": None}
"""Templates write flags as Python does."""
_PARSERS = {
    "hermes": _hermes,
    "llama": _llama,
    "mistral": _mistral,
    "deepseek": _deepseek,
    "none": lambda text: (text, []),
}


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
