"""A tokenizer's chat template, used so that sampled tokens are never re-tokenised.

The first prompt goes through the template. After that, ids are only appended: the sampled ids as they were, then the
template's own scaffolding for the tool results or the user turn, cut from a rendering of a stand-in conversation. So
the policy is prompted with exactly what it will be trained on, whatever the template would make of the parsed messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from gymrail.errors import GymrailError
from gymrail.messages import chat_tools, to_messages
from gymrail.models.model import message
from gymrail.models.tool_parsing import Format, detect_format, parse_turn
from gymrail.task import Item


class TemplateError(GymrailError):
    """A chat template cannot carry the conversation (no tool role, no generation prompt, not prefix-preserving)."""


class ChatTemplate:
    """Renders prompts, continues them, and parses what was sampled. One per tokenizer; safe to use from one thread."""

    def __init__(self, tokenizer: Any, tool_format: Format | None = None, eos_token_ids: Sequence[int] = ()) -> None:
        """
        Args:
            tokenizer: a Transformers tokenizer with a chat template.
            tool_format: how the model writes tool calls; read from the template by default.
            eos_token_ids: all ids that end a turn; the tokenizer's own is always among them.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise TemplateError(
                f"The tokenizer {tokenizer.name_or_path!r} has no chat template; use an instruct checkpoint or set one."
            )
        self.tokenizer = tokenizer
        self.tool_format: Format = tool_format or detect_format(str(tokenizer.chat_template))
        self.eos_token_ids = frozenset({*eos_token_ids, tokenizer.eos_token_id})
        self._suffixes: dict[bytes, list[int]] = {}
        self._prompts: dict[bytes, list[int]] = {}

    def prompt(self, items: Sequence[Item], tools: Sequence[Any], instructions: str | None = None) -> list[int]:
        """Return the ids that the model is prompted with after this conversation.

        Raises:
            TemplateError: the template refuses the conversation.
        """
        for index in range(len(items) - 1, -1, -1):
            if "generation_token_ids" in items[index]:
                known = items[index]
                new = items[index + 1 :]
                turn = _turn_before(items, index + 1)
                return known["prompt_token_ids"] + known["generation_token_ids"] + self._suffix(turn, new)
        # Equal prompts (the repeats of a group) are rendered once.
        key = orjson.dumps((list(items), instructions, [tool.get("name") or tool for tool in tools]))
        ids = self._prompts.get(key)
        if ids is None:
            if len(self._prompts) > 4096:
                self._prompts.clear()
            ids = self._prompts[key] = self._render(
                to_messages(items, arguments="object", instructions=instructions), tools, add_generation_prompt=True
            )
        return list(ids)

    def parse(self, token_ids: Sequence[int]) -> list[Item]:
        """Take a sampled turn apart into items."""
        ids = list(token_ids)
        while ids and ids[-1] in self.eos_token_ids:
            ids.pop()
        return parse_turn(self.tokenizer.decode(ids, skip_special_tokens=False), self.tool_format)

    def _suffix(self, turn: list[Item], new: Sequence[Item]) -> list[int]:
        """The template's ids between the end of a sampled turn and the next answer.

        A stand-in conversation is rendered with and without the new messages. The stand-in has the turn's shape (its
        calls, by name and id) and none of its words, so that nothing the model said can change where the cut falls.
        """
        calls = [item for item in turn if item.get("type") == "function_call"]
        stand_in = [{**call, "arguments": "{}"} for call in calls] or [message("x")]
        key = orjson.dumps(
            (
                [(call["name"], call["call_id"] if self.tool_format == "mistral" else "") for call in calls],
                _wording(new),
            )
        )
        suffix = self._suffixes.get(key)
        if suffix is None:
            if len(self._suffixes) > 4096:
                self._suffixes.clear()
            suffix = self._suffixes[key] = self._cut([{"role": "user", "content": "x"}, *stand_in], new)
        return suffix

    def _cut(self, stand_in: list[Item], new: Sequence[Item]) -> list[int]:
        before = self._render(to_messages(stand_in, arguments="object"), (), add_generation_prompt=False)
        after = self._render(to_messages([*stand_in, *new], arguments="object"), (), add_generation_prompt=True)
        end = next((index + 1 for index in range(len(before) - 1, -1, -1) if before[index] in self.eos_token_ids), 0)
        if end == 0 or after[:end] != before[:end]:
            raise TemplateError(
                f"The chat template of {self.tokenizer.name_or_path!r} rewrites earlier turns when messages are added, "
                "so what was sampled cannot be continued token for token."
            )
        return after[end:]

    def _render(self, messages: list[dict[str, Any]], tools: Sequence[Any], add_generation_prompt: bool) -> list[int]:
        from jinja2 import TemplateError as JinjaError

        try:
            return self.tokenizer.apply_chat_template(
                messages,
                tools=chat_tools(tools) or None,
                add_generation_prompt=add_generation_prompt,
                tokenize=True,
                return_dict=False,
            )
        except JinjaError as error:
            raise TemplateError(
                f"The chat template of {self.tokenizer.name_or_path!r} refuses the conversation: {error}"
            ) from error


def _turn_before(items: Sequence[Item], end: int) -> list[Item]:
    start = end
    while start > 0 and (
        items[start - 1].get("role") == "assistant" or items[start - 1].get("type") in ("function_call", "reasoning")
    ):
        start -= 1
    return list(items[start:end])


def _wording(items: Sequence[Item]) -> list[Any]:
    """What of the new items reaches the template; call ids do not, except in Mistral's."""
    return [(item.get("type"), item.get("role"), item.get("output", item.get("content"))) for item in items]
