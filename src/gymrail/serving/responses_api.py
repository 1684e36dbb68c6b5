"""The Responses API as a server speaks it: OpenAI's clients, Codex, the OpenAI Agents SDK, NeMo Gym's agents.

Covers: text, pictures, reasoning, function tools, Codex's namespaces and custom (free-form) tools, streaming, NeMo
Gym's token fields.
Does not cover: stored responses, background responses, the tools that OpenAI runs itself; those are left out of the
request, and logged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from gymrail.errors import InputError
from gymrail.messages import TOKEN_FIELDS, reasoning_text
from gymrail.rollout import text_of
from gymrail.serving.exchange import Answer, Asked, ErrorKind, ToolShape, event, leave_out, new_id
from gymrail.task import Item

_STORED = ("previous_response_id", "conversation", "background")
_PARAMETERS = ("instructions", "max_output_tokens", "parallel_tool_calls", "temperature", "tool_choice", "top_p")
_ECHOED = ("instructions", "max_output_tokens", "metadata", "reasoning", "temperature", "text", "top_p", "user")
_ERRORS: dict[ErrorKind, tuple[str, str | None]] = {
    "invalid": ("invalid_request_error", None),
    "overflow": ("invalid_request_error", "context_length_exceeded"),
    "key": ("invalid_request_error", "invalid_api_key"),
    "missing": ("invalid_request_error", "not_found"),
    "too_large": ("invalid_request_error", "request_too_large"),
    "busy": ("rate_limit_error", "rate_limit_exceeded"),
    "model": ("server_error", "server_error"),
    "timeout": ("server_error", "timeout"),
}


class ResponsesApi:
    """`POST /v1/responses`."""

    ping = b": waiting\n\n"

    def read(self, body: Mapping[str, Any]) -> Asked:
        for name in _STORED:
            if body.get(name):
                raise InputError(
                    f"{name!r} is {body[name]!r}; responses are not stored here: send the whole conversation."
                )
        given = body.get("input", "")
        if not isinstance(given, str | list):
            raise InputError(f"'input' is {type(given).__name__}; it must be text or a list of items.")
        shapes: dict[str, ToolShape] = {}
        tools = _read_tools(body.get("tools") or (), shapes)
        parameters = {name: body[name] for name in _PARAMETERS if body.get(name) is not None}
        effort = (body.get("reasoning") or {}).get("effort")
        if effort:
            parameters["reasoning"] = {"effort": effort}
        form = (body.get("text") or {}).get("format") or {}
        if form.get("type", "text") != "text":
            parameters["text"] = {"format": form}
        _read_tool_choice(parameters, shapes)
        items = [{"role": "user", "content": given}] if isinstance(given, str) else _read_items(given)
        return Asked(items, tools, parameters, bool(body.get("stream")), body, shapes)

    def write(self, answer: Answer, asked: Asked) -> dict[str, Any]:
        return self._response(answer, asked, [self._item(item, answer, asked) for item in answer.items])

    def events(self, answer: Answer, asked: Asked) -> Iterator[bytes]:
        number = 0

        def numbered(kind: str, **fields: Any) -> bytes:
            nonlocal number
            number += 1
            return event({"type": kind, "sequence_number": number - 1, **fields}, kind)

        begun = {
            **self._response(answer, asked, []),
            "status": "in_progress",
            "usage": None,
            "incomplete_details": None,
        }
        yield numbered("response.created", response=begun)
        yield numbered("response.in_progress", response=begun)
        items = [self._item(item, answer, asked) for item in answer.items]
        for index, item in enumerate(items):
            place = {"output_index": index, "item_id": item["id"]}
            yield numbered("response.output_item.added", output_index=index, item=_empty(item))
            for kind, fields in _deltas(item):
                yield numbered(kind, **place, **fields)
            yield numbered("response.output_item.done", output_index=index, item=item)
        whole = self._response(answer, asked, items)
        yield numbered(f"response.{whole['status']}", response=whole)

    def error(self, kind: ErrorKind, message: str) -> dict[str, Any]:
        name, code = _ERRORS[kind]
        return {"error": {"message": message, "type": name, "param": None, "code": code}}

    def error_event(self, kind: ErrorKind, message: str) -> bytes:
        code = _ERRORS[kind][1]
        failed = {
            "id": new_id("resp"),
            "object": "response",
            "status": "failed",
            "output": [],
            "error": {"code": code, "message": message},
        }
        return event({"type": "response.failed", "sequence_number": 0, "response": failed}, "response.failed")

    def _response(self, answer: Answer, asked: Asked, output: list[Item]) -> dict[str, Any]:
        usage, body = answer.usage, asked.body
        incomplete = answer.finish_reason != "stop"
        return {
            "id": f"resp_{answer.id}",
            "object": "response",
            "created_at": int(answer.created),
            "status": "incomplete" if incomplete else "completed",
            "error": None,
            "incomplete_details": {"reason": answer.finish_reason} if incomplete else None,
            "model": answer.model,
            "output": output,
            "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
            "tool_choice": body.get("tool_choice") or "auto",
            "tools": body.get("tools") or [],
            "store": False,
            **{name: body.get(name) for name in _ECHOED},
            "usage": {
                "input_tokens": usage.input_tokens,
                "input_tokens_details": {"cached_tokens": usage.cached_tokens},
                "output_tokens": usage.output_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": usage.input_tokens + usage.output_tokens,
            },
        }

    def _item(self, item: Item, answer: Answer, asked: Asked) -> Item:
        kind = item.get("type") or "message"
        tokens = {name: item[name] for name in TOKEN_FIELDS if name in item} if answer.has_tokens else {}
        if kind == "reasoning":
            parts = [{"type": "summary_text", "text": reasoning_text(item)}]
            return {"id": new_id("rs"), "type": "reasoning", "summary": parts, "encrypted_content": None, **tokens}
        if kind == "function_call":
            return {**_write_call(item, asked.shapes.get(item["name"])), **tokens}
        content = item.get("content", "")
        parts = [{"type": "output_text", "text": content, "annotations": []}] if isinstance(content, str) else content
        return {
            "id": new_id("msg"),
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": parts,
            **tokens,
        }


def _read_tools(tools: Any, shapes: dict[str, ToolShape]) -> list[dict[str, Any]]:
    functions: list[dict[str, Any]] = []
    unknown: set[str] = set()
    for tool in tools:
        kind = tool.get("type")
        if kind == "function":
            functions.append(_function(tool, tool["name"]))
        elif kind == "namespace":
            for inner in tool.get("tools") or ():
                name = f"{tool['name']}__{inner['name']}"
                shapes[name] = ToolShape("namespaced", inner["name"], tool["name"])
                functions.append(_function(inner, name))
        elif kind == "custom":
            shapes[tool["name"]] = ToolShape("custom", tool["name"])
            text = {"type": "string", "description": "Free-form text, no JSON."}
            schema = {
                "type": "object",
                "properties": {"input": text},
                "required": ["input"],
                "additionalProperties": False,
            }
            functions.append(_function({**tool, "parameters": schema}, tool["name"]))
        else:
            unknown.add(str(kind))
    leave_out("tools that only their own service can run", unknown)
    return functions


def _function(tool: Mapping[str, Any], name: str) -> dict[str, Any]:
    schema = tool.get("parameters") or {"type": "object", "properties": {}}
    return {
        "type": "function",
        "name": name,
        "description": tool.get("description") or "",
        "parameters": schema,
        "strict": bool(tool.get("strict")),
    }


def _read_tool_choice(parameters: dict[str, Any], shapes: dict[str, ToolShape]) -> None:
    choice = parameters.get("tool_choice")
    if isinstance(choice, Mapping):
        if choice.get("type") in ("function", "custom") and "name" in choice:
            parameters["tool_choice"] = {"type": "function", "name": choice["name"]}
        else:
            leave_out("tool_choice", {str(choice.get("type"))})
            del parameters["tool_choice"]


def _read_items(given: list[Any]) -> list[Item]:
    items: list[Item] = []
    unknown: set[str] = set()
    for item in given:
        if not isinstance(item, dict):
            raise InputError(f"'input' has the item {item!r}; an item is an object.")
        kind = item.get("type") or "message"
        if kind in ("function_call", "custom_tool_call"):
            items.append(_read_call(item))
        elif kind in ("function_call_output", "custom_tool_call_output"):
            items.append(
                {"type": "function_call_output", "call_id": item.get("call_id", ""), "output": item.get("output") or ""}
            )
        elif kind == "reasoning":
            if reasoning_text(item):
                items.append(
                    {name: item[name] for name in ("type", "summary", "content", *TOKEN_FIELDS) if item.get(name)}
                )
        elif kind == "message":
            items.append(item)
        else:
            unknown.add(str(kind))
    leave_out("items", unknown)
    return items


def _read_call(item: Item) -> Item:
    name = f"{item['namespace']}__{item['name']}" if item.get("namespace") else item.get("name", "")
    arguments = item.get("arguments") or "{}"
    if item["type"] == "custom_tool_call":
        arguments = orjson.dumps({"input": item.get("input", "")}).decode()
    tokens = {field: item[field] for field in TOKEN_FIELDS if field in item}
    return {"type": "function_call", "call_id": item.get("call_id", ""), "name": name, "arguments": arguments, **tokens}


def _write_call(item: Item, shape: ToolShape | None) -> Item:
    call = {"id": new_id("fc"), "type": "function_call", "status": "completed", "call_id": item["call_id"]}
    arguments = item.get("arguments") or "{}"
    if shape is None:
        return {**call, "name": item["name"], "arguments": arguments}
    if shape.kind == "namespaced":
        return {**call, "namespace": shape.namespace, "name": shape.name, "arguments": arguments}
    return {**call, "id": new_id("ctc"), "type": "custom_tool_call", "name": shape.name, "input": _free_form(arguments)}


def _free_form(arguments: str) -> str:
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return arguments  # the model wrote the text itself
    written = value.get("input") if isinstance(value, dict) else None
    return written if isinstance(written, str) else arguments


def _empty(item: Item) -> Item:
    """The item as it is announced, before its text arrives."""
    blank = {
        "message": {"content": []},
        "function_call": {"arguments": ""},
        "custom_tool_call": {"input": ""},
        "reasoning": {"summary": []},
    }
    announced = {**item, **blank[item["type"]]}
    if "status" in item:
        announced["status"] = "in_progress"
    return {name: value for name, value in announced.items() if name not in TOKEN_FIELDS}


def _deltas(item: Item) -> Iterator[tuple[str, dict[str, Any]]]:
    kind = item["type"]
    if kind == "function_call":
        yield "response.function_call_arguments.delta", {"delta": item["arguments"]}
        yield "response.function_call_arguments.done", {"arguments": item["arguments"], "name": item["name"]}
    elif kind == "custom_tool_call":
        yield "response.custom_tool_call_input.delta", {"delta": item["input"]}
        yield "response.custom_tool_call_input.done", {"input": item["input"]}
    elif kind == "reasoning":
        for index, part in enumerate(item["summary"]):
            place = {"summary_index": index}
            yield "response.reasoning_summary_part.added", {**place, "part": {**part, "text": ""}}
            yield "response.reasoning_summary_text.delta", {**place, "delta": part["text"]}
            yield "response.reasoning_summary_text.done", {**place, "text": part["text"]}
            yield "response.reasoning_summary_part.done", {**place, "part": part}
    else:
        yield from _text_deltas(item)


def _text_deltas(item: Item) -> Iterator[tuple[str, dict[str, Any]]]:
    for index, part in enumerate(item["content"]):
        place = {"content_index": index}
        field = "refusal" if part.get("type") == "refusal" else "text"
        text = part.get(field) or text_of({"content": [part]})
        kind = "response.refusal" if field == "refusal" else "response.output_text"
        extra: dict[str, Any] = {} if field == "refusal" else {"logprobs": []}
        yield "response.content_part.added", {**place, "part": {**part, field: ""}}
        yield f"{kind}.delta", {**place, "delta": text, **extra}
        yield f"{kind}.done", {**place, field: text, **extra}
        yield "response.content_part.done", {**place, "part": part}
