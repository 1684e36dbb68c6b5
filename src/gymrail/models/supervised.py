"""A conversation as a supervised training row: the template's ids, with labels on what a policy would have sampled.

For trainers that cannot tell a template's assistant tokens themselves: TRL can where the template marks them with
`{% generation %}`, or is one of those that it has marked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gymrail.messages import Message
from gymrail.models.chat_template import ChatTemplate, TemplateError
from gymrail.tokens import first_difference


def supervised_row(
    template: ChatTemplate, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
) -> dict[str, list[int]]:
    """Return `input_ids` and `labels`: each of the assistant's turns up to the token that ends it, -100 elsewhere.

    Raises:
        TemplateError: the template refuses the conversation, or writes an earlier turn otherwise once messages follow.
    """
    said = [_with_text_arguments(message) if template.arguments == "text" else message for message in messages]
    ids = template.render_messages(said, tools, add_generation_prompt=False)
    labels = [-100] * len(ids)
    for place, message in enumerate(said):
        if message["role"] != "assistant":
            continue
        before = template.render_messages(said[:place], tools, add_generation_prompt=True)
        start = first_difference(before, ids)
        if start < len(before):
            raise TemplateError(
                f"The chat template of {template.tokenizer.name_or_path!r} writes what stands before an answer "
                f"otherwise once the answer is there (token {start} differs), so that what a policy is prompted with "
                "cannot be trained on. `gymrail tokens check` says which part does it."
            )
        end = next((at + 1 for at in range(start, len(ids)) if ids[at] == template.turn_end), len(ids))
        labels[start:end] = ids[start:end]
    return {"input_ids": ids, "labels": labels}


def _with_text_arguments(message: Message) -> Message:
    if not message.get("tool_calls"):
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": _as_text(call["function"]["arguments"])}}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def _as_text(arguments: Any) -> str:
    """Spaced as templates write them."""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
