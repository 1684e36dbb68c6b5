"""Anthropic's Messages API as a server speaks it: Claude Code, the Claude Agent SDK, Anthropic's clients.

Covers: text, pictures, thinking, tools, system turns in the middle, streaming, an estimate for count_tokens.
Does not cover: documents, citations, prompt caching, batches, the tools that Anthropic runs itself; those are left out,
and logged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from gymrail.errors import InputError
from gymrail.messages import reasoning_item, reasoning_text
from gymrail.models.model import function_call, message
from gymrail.rollout import text_of
from gymrail.serving.exchange import Answer, Asked, ErrorKind, event, leave_out, new_id
from gymrail.task import Item

_ERRORS: dict[ErrorKind, str] = {
    "invalid": "invalid_request_error",
    "overflow": "invalid_request_error",
    "key": "authentication_error",
    "missing": "not_found_error",
    "too_large": "request_too_large",
    "busy": "rate_limit_error",
    "model": "api_error",
    "timeout": "timeout_error",
}
_STOP = {"max_output_tokens": "max_tokens", "content_filter": "refusal"}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_CHARACTERS_PER_TOKEN = 4


class MessagesApi:
    """`POST /v1/messages`."""

    ping = event({"type": "ping"}, "ping")

    def read(self, body: Mapping[str, Any]) -> Asked:
        messages = body.get("messages")
        if not isinstance(messages, list) or not all(isinstance(entry, dict) for entry in messages):
            raise InputError("'messages' must be a list of messages.")
        items = [item for entry in messages for item in _read_message(entry)]
        parameters = {name: body[name] for name in ("temperature", "top_p") if body.get(name) is not None}
        if body.get("max_tokens"):
            parameters["max_output_tokens"] = body["max_tokens"]
        instructions = _system(body.get("system"))
        if instructions:
            parameters["instructions"] = instructions
        parameters |= _tool_choice(body.get("tool_choice") or {})
        return Asked(items, _read_tools(body.get("tools") or ()), parameters, bool(body.get("stream")), body)

    def write(self, answer: Answer, asked: Asked) -> dict[str, Any]:
        return self._message(
            answer, list(self._blocks(answer, asked)), _stop_reason(answer), answer.usage.output_tokens
        )

    def events(self, answer: Answer, asked: Asked) -> Iterator[bytes]:
        yield event({"type": "message_start", "message": self._message(answer, [], None, 0)}, "message_start")
        yield self.ping
        for index, block in enumerate(self._blocks(answer, asked)):
            kind = block["type"]
            for name, fields in _block_events(kind, block):
                yield event({"type": name, "index": index, **fields}, name)
        end = {"stop_reason": _stop_reason(answer), "stop_sequence": None}
        usage = {"input_tokens": answer.usage.input_tokens, "output_tokens": answer.usage.output_tokens}
        yield event({"type": "message_delta", "delta": end, "usage": usage}, "message_delta")
        yield event({"type": "message_stop"}, "message_stop")

    def error(self, kind: ErrorKind, message: str) -> dict[str, Any]:
        if kind == "overflow":
            message = f"prompt is too long: {message}"  # the words by which clients know an overflow
        return {"type": "error", "error": {"type": _ERRORS[kind], "message": message}, "request_id": None}

    def error_event(self, kind: ErrorKind, message: str) -> bytes:
        return event(self.error(kind, message), "error")

    def count_tokens(self, asked: Asked) -> dict[str, Any]:
        """An estimate from the length of the text: no model here tells its tokenizer."""
        size = len(orjson.dumps([asked.items, asked.tools, asked.parameters.get("instructions")]))
        return {"input_tokens": max(1, size // _CHARACTERS_PER_TOKEN)}

    def _message(
        self, answer: Answer, content: list[dict[str, Any]], stop_reason: str | None, output_tokens: int
    ) -> dict[str, Any]:
        return {
            "id": f"msg_{answer.id}",
            "type": "message",
            "role": "assistant",
            "model": answer.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": {
                "input_tokens": answer.usage.input_tokens,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": output_tokens,
            },
        }

    def _blocks(self, answer: Answer, asked: Asked) -> Iterator[dict[str, Any]]:
        wants_thinking = (asked.body.get("thinking") or {}).get("type", "disabled") != "disabled"
        for item in answer.items:
            kind = item.get("type") or "message"
            if kind == "function_call":
                yield {"type": "tool_use", "id": item["call_id"], "name": item["name"], "input": _object(item)}
            elif kind == "reasoning":
                if wants_thinking:
                    yield {"type": "thinking", "thinking": reasoning_text(item), "signature": "unsigned"}
            else:
                text = text_of(item) or _refusal(item)
                if text:
                    yield {"type": "text", "text": text}


def _object(call: Item) -> dict[str, Any]:
    """The API can say only objects; other arguments (the model's mistake) travel in one field, which the tool
    refuses."""
    written = call.get("arguments") or "{}"
    try:
        value = orjson.loads(written)
    except orjson.JSONDecodeError:
        value = None
    return value if isinstance(value, dict) else {"invalid_arguments": written}


def _refusal(item: Item) -> str:
    content = item.get("content")
    return "".join(part.get("refusal") or "" for part in content) if isinstance(content, list) else ""


def _stop_reason(answer: Answer) -> str:
    return _STOP.get(answer.finish_reason) or ("tool_use" if answer.calls else "end_turn")


def _block_events(kind: str, block: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    if kind == "tool_use":
        start, deltas = (
            {**block, "input": {}},
            [{"type": "input_json_delta", "partial_json": orjson.dumps(block["input"]).decode()}],
        )
    elif kind == "thinking":
        start = {**block, "thinking": "", "signature": ""}
        deltas = [
            {"type": "thinking_delta", "thinking": block["thinking"]},
            {"type": "signature_delta", "signature": block["signature"]},
        ]
    else:
        start, deltas = {**block, "text": ""}, [{"type": "text_delta", "text": block["text"]}]
    yield "content_block_start", {"content_block": start}
    for delta in deltas:
        yield "content_block_delta", {"delta": delta}
    yield "content_block_stop", {}


def _read_message(entry: dict[str, Any]) -> Iterator[Item]:
    role, content = entry.get("role"), entry.get("content", "")
    if role not in ("user", "assistant", "system"):
        raise InputError(f"A message has the role {role!r}. Allowed: assistant, system, user.")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    pending: list[dict[str, Any]] = []
    for block in blocks:
        kind = block.get("type")
        if kind in ("text", "image"):
            if role == "assistant":
                yield message(block.get("text", ""))
            else:
                pending.append(_part(block))
        elif kind == "tool_use":
            yield function_call(block["name"], orjson.dumps(block.get("input") or {}).decode(), block["id"])
        elif kind == "tool_result":
            yield {"type": "function_call_output", "call_id": block["tool_use_id"], "output": _tool_result(block)}
        elif kind == "thinking":
            if block.get("thinking"):
                yield {**reasoning_item(block["thinking"]), "id": new_id("rs")}
        elif kind == "document":
            raise InputError("A message has a document; documents are not supported: send its text.")
        else:
            leave_out("content blocks", {str(kind)})
    if pending:
        # A text alone stays text: that is what most models' templates take.
        is_text = all(part["type"] == "input_text" for part in pending)
        yield {
            "type": "message",
            "role": role,
            "content": "\n".join(part["text"] for part in pending) if is_text else pending,
        }


def _part(block: Mapping[str, Any]) -> dict[str, Any]:
    if block["type"] == "text":
        return {"type": "input_text", "text": block.get("text", "")}
    source = block.get("source") or {}
    if source.get("type") == "base64":
        return {
            "type": "input_image",
            "image_url": f"data:{source.get('media_type')};base64,{source.get('data')}",
            "detail": "auto",
        }
    if source.get("type") == "url":
        return {"type": "input_image", "image_url": source.get("url"), "detail": "auto"}
    raise InputError(f"A picture has the source {source.get('type')!r}. Allowed: base64, url.")


def _tool_result(block: Mapping[str, Any]) -> Any:
    content = block.get("content") or ""
    if isinstance(content, str):
        return content
    parts = [_part(part) for part in content if part.get("type") in ("text", "image")]
    if all(part["type"] == "input_text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _read_tools(tools: Any) -> list[dict[str, Any]]:
    functions: list[dict[str, Any]] = []
    unknown: set[str] = set()
    for tool in tools:
        if tool.get("type", "custom") != "custom":
            unknown.add(str(tool["type"]))
        elif not tool.get("defer_loading"):  # tools that the client has not shown to the model yet
            schema = tool.get("input_schema") or {"type": "object", "properties": {}}
            functions.append(
                {
                    "type": "function",
                    "name": tool["name"],
                    "description": tool.get("description") or "",
                    "parameters": schema,
                    "strict": False,
                }
            )
    leave_out("tools that only their own service can run", unknown)
    return functions


def _tool_choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    kind = choice.get("type")
    if kind == "tool":
        parameters["tool_choice"] = {"type": "function", "name": choice.get("name")}
    elif kind in _CHOICES:
        parameters["tool_choice"] = _CHOICES[kind]
    if choice.get("disable_parallel_tool_use"):
        parameters["parallel_tool_calls"] = False
    return parameters


def _system(system: Any) -> str:
    if isinstance(system, str):
        return system
    texts = [block.get("text", "") for block in system or () if block.get("type") == "text"]
    # Claude Code's first block is a header for its own service; it changes from call to call and is no instruction.
    return "\n\n".join(text for text in texts if not text.startswith("x-anthropic-billing-header"))
