"""Chat Completions: a Responses request written as messages, and the answer read back as items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from gymrail.errors import InputError
from gymrail.messages import TOKEN_FIELDS, chat_tools, from_message, to_messages
from gymrail.models.conversation import Conversations
from gymrail.models.http import TryAgain
from gymrail.models.model import ModelResponse, message
from gymrail.models.wire import EndpointSettings, finish_reason_of, new_call_id, put_tokens, to_json
from gymrail.rollout import Usage
from gymrail.task import Item

_SAME = frozenset(
    {
        "metadata", "moderation", "parallel_tool_calls", "prompt_cache_key", "prompt_cache_options",
        "prompt_cache_retention", "safety_identifier", "service_tier", "store", "temperature", "top_p", "user",
    }
)  # fmt: skip
"""Parameters that both formats have, with one meaning."""
_NOT_SENT = frozenset({"input", "instructions", "model", "tools"})
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "background": (False,),
    "include": ([],),
    "stream": (False,),
    "truncation": ("disabled",),
}
"""Values that ask for what Chat Completions does anyway."""
_ASK_FOR_TOKENS = {"return_token_ids": True, "return_tokens_as_token_ids": True, "logprobs": True, "top_logprobs": 0}
"""vLLM's words. Without `top_logprobs` the log-probs stay empty; with ids for tokens their pairing can be checked."""
_BROKEN = frozenset({"error", "abort"})
_PROMPT, _GENERATED, _LOG_PROBS = TOKEN_FIELDS


class ChatWire:
    """The format that every server speaks."""

    path = "chat/completions"
    tail = b"]}"

    def __init__(self, model: str, settings: EndpointSettings, max_tokens_field: str) -> None:
        self.model = model
        self.settings = settings
        self.max_tokens_field = max_tokens_field
        self.conversations = Conversations(self._convert)

    def head(self, tools: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any]) -> bytes:
        """The body up to the first message; `instructions` are a first system message."""
        body: dict[str, Any] = {"model": self.model}
        if tools:
            body["tools"] = chat_tools(tools)
        body |= _ASK_FOR_TOKENS if self.settings.token_ids is True else {}
        body |= self._translate(parameters)
        if not tools:
            # Endpoints refuse both where there are no tools.
            body.pop("tool_choice", None)
            body.pop("parallel_tool_calls", None)
        body |= self.settings.extra_body
        head = to_json(body)[:-1] + b',"messages":['
        instructions = parameters.get("instructions")
        return head + to_json({"role": "system", "content": instructions}) + b"," if instructions else head

    def conversation(self, episode_id: str, items: Sequence[Item]) -> bytes:
        if self.settings.carry_token_ids:
            # Most of such a body is token ids, which must be written again in any case.
            return to_json(self._convert(items))[1:-1]
        return self.conversations.to_json(episode_id, items)

    def parse(self, payload: dict[str, Any]) -> ModelResponse:
        choices = payload.get("choices")
        if not choices:
            raise TryAgain("the answer has no choices")
        choice = choices[0]
        reply = choice.get("message")
        if not isinstance(reply, dict):
            raise TryAgain("the answer's choice has no message")
        finish_reason = choice.get("finish_reason")
        if finish_reason in _BROKEN:
            raise TryAgain(f"the model stopped with finish_reason {finish_reason!r}")
        items = _items(reply)
        if self.settings.token_ids is not False:
            _put_tokens(items[-1], payload, choice, reply, self.settings.token_ids)
        usage = payload.get("usage") or {}
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        return ModelResponse(
            items,
            finish_reason_of(finish_reason),
            Usage(usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0, cached),
            payload.get("model") or self.model,
        )

    def _convert(self, items: Sequence[Item]) -> list[dict[str, Any]]:
        messages = to_messages(items, keep_tokens=self.settings.carry_token_ids)
        name = self.settings.reasoning_field
        for entry in messages:
            if name != "reasoning_content" and "reasoning_content" in entry:
                reasoning = entry.pop("reasoning_content")
                if name is not None:
                    entry[name] = reasoning
            elif entry["role"] == "tool" and not entry["name"]:
                del entry["name"]
        return messages

    def _translate(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        body: dict[str, Any] = {}
        for name, value in parameters.items():
            if value is None or name in _NOT_SENT or value in _HARMLESS.get(name, ()):
                continue
            if name in _SAME:
                body[name] = value
            elif name == "max_output_tokens":
                body[self.max_tokens_field] = value
            elif name == "top_logprobs":
                body |= {"logprobs": True, "top_logprobs": value}
            elif name == "tool_choice":
                body[name] = _tool_choice(value)
            elif name == "reasoning":
                body |= _reasoning(value)
            elif name == "text":
                body |= _text(value)
            else:
                raise InputError(
                    f"The parameter {name!r} (value {value!r}) has no counterpart in Chat Completions; "
                    'remove it from the task, or use an endpoint with the Responses API (api="responses").'
                )
        return body


def _tool_choice(choice: Any) -> Any:
    if isinstance(choice, str):
        return choice
    kind = choice.get("type") if isinstance(choice, Mapping) else None
    if kind == "function" and "function" in choice:
        return choice
    if kind == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    if kind == "allowed_tools":
        allowed = {"mode": choice.get("mode", "auto"), "tools": chat_tools(choice.get("tools", ()))}
        return {"type": "allowed_tools", "allowed_tools": allowed}
    raise InputError(
        f"tool_choice is {choice!r}; in Chat Completions it can be 'auto', 'none', 'required', "
        "{'type': 'function', 'name': ...} or {'type': 'allowed_tools', ...}."
    )


def _reasoning(value: Any) -> dict[str, Any]:
    asked = {key: part for key, part in _mapping("reasoning", value).items() if part is not None}
    effort = asked.pop("effort", None)
    if asked:
        raise InputError(
            f"reasoning.{next(iter(asked))} has no counterpart in Chat Completions; reasoning.effort has one."
        )
    return {} if effort is None else {"reasoning_effort": effort}


def _text(value: Any) -> dict[str, Any]:
    asked = {key: part for key, part in _mapping("text", value).items() if part is not None}
    body: dict[str, Any] = {}
    verbosity = asked.pop("verbosity", None)
    if verbosity is not None:
        body["verbosity"] = verbosity
    wanted = asked.pop("format", None)
    if asked:
        name = next(iter(asked))
        raise InputError(
            f"text.{name} has no counterpart in Chat Completions; text.format and text.verbosity have one."
        )
    if wanted is None:
        return body
    kind = wanted.get("type") if isinstance(wanted, Mapping) else None
    if kind == "json_schema":
        schema = {key: part for key, part in wanted.items() if key != "type"}
        return body | {"response_format": {"type": "json_schema", "json_schema": schema}}
    if kind == "json_object":
        return body | {"response_format": {"type": "json_object"}}
    if kind == "text":
        return body
    raise InputError(f"text.format is {wanted!r}; its type can be 'text', 'json_object' or 'json_schema'.")


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{name} is {value!r}; it must be an object.")
    return value


def _items(reply: dict[str, Any]) -> list[Item]:
    calls = reply.get("tool_calls") or ()
    seen: set[str] = set()
    for call in calls:
        # The id ties the tool's output to the call, so each call of a turn needs one of its own.
        if not call.get("id") or call["id"] in seen:
            call["id"] = new_call_id()
        seen.add(call["id"])
    items = from_message(reply)
    refusal = reply.get("refusal")
    if refusal and not reply.get("content") and not calls:
        said = {**message(""), "content": [{"type": "refusal", "refusal": refusal}]}
        items = [*(item for item in items if item["type"] == "reasoning"), said]
    for field in TOKEN_FIELDS:
        items[-1].pop(field, None)  # they come back once they are checked
    return items


def _put_tokens(item: Item, payload: Any, choice: Any, reply: Any, wanted: bool | Literal["auto"]) -> None:
    """Read NeMo Gym's fields on the message, or vLLM's on the choice; the prompt's ids may stand at the top."""
    prompt, generated, log_probs = reply.get(_PROMPT), reply.get(_GENERATED), reply.get(_LOG_PROBS)
    if generated is None:
        if wanted == "auto" and not choice.get("token_ids"):
            return
        prompt = payload.get("prompt_token_ids") or choice.get("prompt_token_ids")
        generated = choice.get("token_ids")
        content = (choice.get("logprobs") or {}).get("content") or ()
        if wanted == "auto" and not (prompt and generated and content):
            return
        log_probs = [entry.get("logprob") for entry in content]
        names = [entry.get("token") for entry in content] if generated else []
        if names and names[0].startswith("token_id:") and names != [f"token_id:{token}" for token in generated]:
            raise TryAgain("the answer's log-probs belong to other tokens than its token ids")
    put_tokens(item, prompt, generated, log_probs, wanted)
