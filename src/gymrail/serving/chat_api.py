"""Chat Completions as a server speaks it: OpenAI's clients, LangChain, LiteLLM and most other programs.

Covers: text, pictures, tools, reasoning, streaming, NeMo Gym's token fields on the message.
Does not cover: `n` above 1, audio, the deprecated `functions`, log-probs in OpenAI's own form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gymrail.errors import InputError
from gymrail.messages import TOKEN_FIELDS, from_message, responses_tools, to_messages
from gymrail.serving.exchange import Answer, Asked, ErrorKind, event
from gymrail.serving.responses_api import ResponsesApi
from gymrail.task import Item

_PART_TYPES = {"text": "input_text", "image_url": "input_image"}
_FINISH = {"max_output_tokens": "length", "content_filter": "content_filter"}


class ChatApi:
    """`POST /v1/chat/completions`."""

    ping = b": waiting\n\n"

    def read(self, body: Mapping[str, Any]) -> Asked:
        if body.get("n") not in (None, 1):
            raise InputError(f"'n' is {body['n']!r}; one request gets one answer here.")
        if body.get("functions"):
            raise InputError("'functions' is deprecated; write them as 'tools'.")
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages or not all(isinstance(entry, dict) for entry in messages):
            raise InputError("'messages' must be a list of messages with at least one of them.")
        tools = [tool for tool in body.get("tools") or () if tool.get("type") == "function"]
        items = [item for entry in messages for item in _read_message(entry)]
        return Asked(items, responses_tools(tools), _parameters(body), bool(body.get("stream")), body)

    def write(self, answer: Answer, asked: Asked) -> dict[str, Any]:
        choice = {
            "index": 0,
            "message": self._message(answer),
            "finish_reason": _finish_reason(answer),
            "logprobs": None,
        }
        return {**self._head(answer, "chat.completion"), "choices": [choice], "usage": _usage(answer)}

    def events(self, answer: Answer, asked: Asked) -> Iterator[bytes]:
        message = self._message(answer)
        head = self._head(answer, "chat.completion.chunk")
        calls = message.pop("tool_calls", ())
        deltas = [
            {"role": "assistant", "content": ""},
            *({name: message[name]} for name in ("reasoning_content", "refusal", "content") if message.get(name)),
        ]
        for index, call in enumerate(calls):
            deltas.append({"tool_calls": [{"index": index, **call, "function": {**call["function"], "arguments": ""}}]})
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": call["function"]["arguments"]}}]})
        tokens = {name: message[name] for name in TOKEN_FIELDS if name in message}
        for delta in deltas:
            yield event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None, "logprobs": None}]})
        yield event(
            {
                **head,
                "choices": [{"index": 0, "delta": tokens, "finish_reason": _finish_reason(answer), "logprobs": None}],
            }
        )
        if (asked.body.get("stream_options") or {}).get("include_usage"):
            yield event({**head, "choices": [], "usage": _usage(answer)})
        yield b"data: [DONE]\n\n"

    def error(self, kind: ErrorKind, message: str) -> dict[str, Any]:
        return ResponsesApi().error(kind, message)

    def error_event(self, kind: ErrorKind, message: str) -> bytes:
        return event(self.error(kind, message))

    def _head(self, answer: Answer, kind: str) -> dict[str, Any]:
        return {"id": f"chatcmpl-{answer.id}", "object": kind, "created": int(answer.created), "model": answer.model}

    def _message(self, answer: Answer) -> dict[str, Any]:
        written = to_messages(answer.items, keep_tokens=answer.has_tokens)
        # One answer is one message, even where a model wrote several.
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(_text(entry) for entry in written) or None,
            "refusal": None,
        }
        for entry in written:
            if entry.get("tool_calls"):
                message.setdefault("tool_calls", []).extend(entry["tool_calls"])
            for name in ("reasoning_content", *TOKEN_FIELDS):
                if name in entry:
                    message[name] = entry[name]
        return message


def _text(entry: Mapping[str, Any]) -> str:
    content = entry.get("content")
    return content if isinstance(content, str) else ""


def _finish_reason(answer: Answer) -> str:
    return _FINISH.get(answer.finish_reason) or ("tool_calls" if answer.calls else "stop")


def _usage(answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _read_message(entry: dict[str, Any]) -> list[Item]:
    role = entry.get("role")
    if role == "assistant":
        items = from_message(entry)
        # `from_message` writes an empty message for an answer of nothing; a turn of calls has none.
        return items
    if role == "tool":
        return [
            {
                "type": "function_call_output",
                "call_id": entry.get("tool_call_id", ""),
                "output": _parts(entry.get("content")),
            }
        ]
    if role not in ("user", "system", "developer"):
        raise InputError(f"A message has the role {role!r}. Allowed: assistant, developer, system, tool, user.")
    return [{"type": "message", "role": role, "content": _parts(entry.get("content"))}]


def _parts(content: Any) -> Any:
    if content is None or isinstance(content, str):
        return content or ""
    return [_part(part) for part in content]


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    kind = part.get("type")
    if kind == "text":
        return {"type": "input_text", "text": part.get("text", "")}
    if kind == "image_url":
        image = part.get("image_url") or {}
        return {"type": "input_image", "image_url": image.get("url"), "detail": image.get("detail") or "auto"}
    raise InputError(f"A content part has the type {kind!r}. Allowed: {', '.join(_PART_TYPES)}.")


def _parameters(body: Mapping[str, Any]) -> dict[str, Any]:
    parameters = {
        name: body[name] for name in ("temperature", "top_p", "parallel_tool_calls") if body.get(name) is not None
    }
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if limit:
        parameters["max_output_tokens"] = limit
    choice = body.get("tool_choice")
    if isinstance(choice, Mapping):
        choice = {"type": "function", "name": (choice.get("function") or {}).get("name")}
    if choice is not None:
        parameters["tool_choice"] = choice
    if body.get("reasoning_effort"):
        parameters["reasoning"] = {"effort": body["reasoning_effort"]}
    form = body.get("response_format") or {}
    if form.get("type", "text") != "text":
        parameters["text"] = {"format": {"type": form["type"], **(form.get("json_schema") or {})}}
    return parameters
