"""The `response` of a verify or step request: checked, because verifiers trust its shape, and taken into the
rollout."""

from __future__ import annotations

import re
from typing import Any, get_args

from gymrail.rollout import Outcome, Reason, Rollout, Usage
from gymrail.serving.refusal import bad_request
from gymrail.task import Item

_MCP_NAME = re.compile(r"mcp__[A-Za-z0-9_-]+?__([A-Za-z0-9_-]+)")
_TEXT_FIELDS = {
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id",),
}


def items_of(response: Any) -> list[Item]:
    """Return the items of a Responses answer, tool names as the environment has them.

    Raises:
        Refusal: it is none.
    """
    if response is None:
        return []
    output = response.get("output", []) if isinstance(response, dict) else None
    if not isinstance(output, list):
        raise bad_request("'response' is no Responses answer; it is an object with a list 'output'.", 422)
    return [_own_name(item) for item in checked_items(output, "response.output")]


def checked_items(items: list[Any], where: str) -> list[Item]:
    """Return items whose shape a verifier can rely on.

    Raises:
        Refusal: naming the item and the field.
    """
    for index, item in enumerate(items):
        problem = _problem(item)
        if problem is not None:
            raise bad_request(f"{where}[{index}]: {problem}.", 422)
    return items


def take_response(rollout: Rollout, response: Any) -> None:
    """Make the answer's items, model and usage those of the rollout."""
    items = items_of(response)
    rollout.conversation[rollout.prompt_length :] = items
    if not isinstance(response, dict):
        return
    rollout.model = str(response.get("model") or "")
    if isinstance(response.get("usage"), dict):
        rollout.usage = Usage.from_row(response["usage"])


def outcome_of(response: Any) -> Outcome:
    """Scored, or truncated where the answer says that it is incomplete."""
    details = response.get("incomplete_details") if isinstance(response, dict) else None
    if not isinstance(details, dict):
        return Outcome("scored")
    reason = details.get("reason")
    return Outcome("truncated", reason=reason if reason in get_args(Reason) else None)


def _problem(item: Any) -> str | None:
    if not isinstance(item, dict):
        return f"an item is an object, and this is a JSON {type(item).__name__}"
    kind = item.get("type", "message")
    if not isinstance(kind, str):
        return "'type' must be a text"
    if kind == "message":
        if not isinstance(item.get("role"), str):
            return "a message has a 'role'"
        return _content_problem(item.get("content", ""))
    for name in _TEXT_FIELDS.get(kind, ()):
        if not isinstance(item.get(name, "{}" if name == "arguments" else None), str):
            return f"a {kind} has a text {name!r}"
    return _content_problem(item.get("output", "")) if kind == "function_call_output" else None


def _content_problem(content: Any) -> str | None:
    if isinstance(content, str):
        return None
    if not isinstance(content, list):
        return "its content is a text or a list of parts"
    for part in content:
        if not isinstance(part, dict) or not isinstance(part.get("text", ""), str | None):
            return "a content part is an object, and its 'text' a text"
    return None


def _own_name(item: Item) -> Item:
    """Harnesses name an MCP tool mcp__SERVER__TOOL; the environment knows it as TOOL."""
    if item.get("type") != "function_call":
        return item
    match = _MCP_NAME.fullmatch(item["name"])
    return {**item, "name": match[1]} if match else item
