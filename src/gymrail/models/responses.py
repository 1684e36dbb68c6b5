"""The Responses API: items go out and come back as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gymrail.errors import InputError, ModelError
from gymrail.messages import TOKEN_FIELDS, responses_tools
from gymrail.models.conversation import without_tokens
from gymrail.models.http import TryAgain
from gymrail.models.model import ModelResponse, message
from gymrail.models.wire import EndpointSettings, finish_reason_of, new_call_id, put_tokens, to_json
from gymrail.rollout import Usage
from gymrail.task import Item

_MAY_PASS = frozenset({"server_error", "rate_limit_exceeded", "vector_store_timeout"})


class ResponsesWire:
    """OpenAI's own format, and that of NeMo Gym's model servers."""

    path = "responses"
    tail = b"]}"

    def __init__(self, model: str, settings: EndpointSettings) -> None:
        self.model = model
        self.settings = settings

    def head(self, tools: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any]) -> bytes:
        for name in ("stream", "background"):
            if parameters.get(name):
                raise InputError(
                    f"The parameter {name!r} is {parameters[name]!r}; Gymrail waits for whole answers: remove it."
                )
        body: dict[str, Any] = {"model": self.model}
        if tools:
            body["tools"] = responses_tools(tools)
        left_out = ("input", "model", "tools", "stream", "background")
        body |= {name: value for name, value in parameters.items() if value is not None and name not in left_out}
        if not tools:
            body.pop("tool_choice", None)
            body.pop("parallel_tool_calls", None)
        body |= self.settings.extra_body
        return to_json(body)[:-1] + b',"input":['

    def conversation(self, episode_id: str, items: Sequence[Item]) -> bytes:
        return to_json(items if self.settings.carry_token_ids else [without_tokens(item) for item in items])[1:-1]

    def parse(self, payload: dict[str, Any]) -> ModelResponse:
        status = payload.get("status")
        output = payload.get("output")
        if status == "failed":
            _raise_failure(payload.get("error") or {})
        if status not in ("completed", "incomplete", None) or not isinstance(output, list):
            raise TryAgain(f"the answer has the status {status!r} and no usable output")
        details = payload.get("incomplete_details") or {}
        finish_reason = finish_reason_of(details.get("reason"))
        if not output:
            if finish_reason == "stop":
                raise TryAgain("the answer has no output")
            output = [message("")]  # the budget ran out before the first word
        for item in output:
            _complete(item)
        self._check_tokens(output[-1])
        usage = payload.get("usage") or {}
        cached = (usage.get("input_tokens_details") or {}).get("cached_tokens") or 0
        counted = Usage(usage.get("input_tokens") or 0, usage.get("output_tokens") or 0, cached)
        return ModelResponse(output, finish_reason, counted, payload.get("model") or self.model)

    def _check_tokens(self, item: Item) -> None:
        wanted = self.settings.token_ids
        if wanted == "auto" and "generation_token_ids" not in item:
            return
        prompt, generated, log_probs = (item.pop(name, None) for name in TOKEN_FIELDS)
        if wanted is not False:
            put_tokens(item, prompt, generated, log_probs, wanted)


def _complete(item: Item) -> None:
    """Fill in what some servers leave out of a tool call."""
    if item.get("type") != "function_call":
        return
    if not item.get("call_id"):
        item["call_id"] = item.get("id") or new_call_id()
    if not isinstance(item.get("arguments"), str):
        item["arguments"] = to_json(item.get("arguments") or {}).decode()


def _raise_failure(error: Mapping[str, Any]) -> None:
    said = f"the answer failed: {error.get('message') or 'no reason given'} ({error.get('code') or 'no code'})"
    if error.get("code") in _MAY_PASS:
        raise TryAgain(said)
    raise ModelError(said)
