"""A tokenizer's chat template, used so that sampled tokens are never re-tokenised.

The first prompt goes through the template. After that, ids are only appended: the sampled ids as they were, then the
template's own scaffolding for the tool results or the user turn, cut from a rendering of a stand-in conversation. So
the policy is prompted with exactly what it will be trained on, whatever the template would make of the parsed messages:
one that drops the reasoning of earlier turns, or moves the tools to the last user turn, does so here to the stand-in
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

import orjson

from gymrail.errors import GymrailError
from gymrail.messages import Message, chat_tools, to_messages
from gymrail.models.model import function_call, message
from gymrail.models.tool_parsing import Format, detect_format, parse_turn
from gymrail.task import Item
from gymrail.tokens import first_difference, next_prompt


class TemplateError(GymrailError):
    """A chat template cannot carry the conversation (no tool role, no end of turn, scaffolding that depends on earlier
    turns)."""


Arguments = Literal["object", "text"]


class TemplateRefusal(TemplateError):
    """The template itself raised: a role or an order of messages that its family does not have."""


class _Turn(NamedTuple):
    """Where a stand-in's assistant turn ends in a rendering."""

    ends: int
    """How many end-of-turn ids stand up to there, its own included."""
    tail: list[int]
    """The turn's last id and the one that ends it, by which it is known again."""


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
        self._turns: dict[bytes, _Turn] = {}
        self._held: set[bytes] = set()
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
                return next_prompt(
                    known["prompt_token_ids"],
                    known["generation_token_ids"],
                    self._suffix(turn, new),
                    end_ids=self.eos_token_ids,
                    turn_end=self.turn_end,
                )
        # Equal prompts (the repeats of a group) are rendered once.
        key = orjson.dumps((list(items), instructions, [tool.get("name") or tool for tool in tools]))
        ids = self._prompts.get(key)
        if ids is None:
            if len(self._prompts) > 4096:
                self._prompts.clear()
            ids = self._prompts[key] = self.render(items, tools, instructions, add_generation_prompt=True)
        return list(ids)

    def scaffolding(self, items: Sequence[Item]) -> list[int]:
        """Return the template's ids from the end of the conversation's last turn of the model to where its next begins:
        what a trainer adds that continues its own tokens.

        Raises:
            TemplateError: the template refuses the conversation, or rewrites that turn.
        """
        end = 1 + max(place for place, item in enumerate(items) if _is_models(item))
        return list(self._suffix(_turn_before(items, end), items[end:]))

    @cached_property
    def turn_end(self) -> int:
        """The id with which the template ends an assistant's turn.

        Raises:
            TemplateError: sampling does not stop at it.
        """
        return self._turn_of(_STAND_IN).tail[-1]

    @cached_property
    def header(self) -> list[int]:
        """The ids with which the template begins a turn that is to be sampled."""
        asked = self.render([_ASKED], add_generation_prompt=False)
        opened = self.render([_ASKED], add_generation_prompt=True)
        return opened[first_difference(asked, opened) :]

    @cached_property
    def arguments(self) -> Arguments | None:
        """The form in which the template takes a call's arguments, or None where it writes no calls."""
        call = function_call("press", '{"key": "seven"}', "abcdefgh1")
        forms: tuple[Arguments, ...] = ("object", "text")
        for form in forms:
            try:
                messages = to_messages([_ASKED, call], arguments=form)
                text = self._apply(messages, (), add_generation_prompt=False, tokenize=False)
            except TemplateError:
                continue
            if "press" in text and "seven" in text:
                return form
        return None

    def render(
        self,
        items: Sequence[Item],
        tools: Sequence[Any] = (),
        instructions: str | None = None,
        *,
        add_generation_prompt: bool,
    ) -> list[int]:
        """Return the ids of a conversation as the template writes it from its messages, sampled ids or not.

        Raises:
            TemplateError: the template refuses the conversation.
        """
        has_calls = any(item.get("type") == "function_call" for item in items)
        form = (self.arguments if has_calls else None) or "object"
        messages = to_messages(items, arguments=form, instructions=instructions)
        return self._apply(messages, tools, add_generation_prompt=add_generation_prompt, tokenize=True)

    def render_messages(
        self, messages: Sequence[Message], tools: Sequence[Any] = (), *, add_generation_prompt: bool
    ) -> list[int]:
        """Return the ids of a conversation of chat messages, calls' arguments in the form that `arguments` says.

        Raises:
            TemplateError: the template refuses the conversation.
        """
        return self._apply(list(messages), tools, add_generation_prompt=add_generation_prompt, tokenize=True)

    def parse(self, token_ids: Sequence[int], tools: Sequence[Any] = ()) -> list[Item]:
        """Take a sampled turn apart into items; `tools` are those that the model was offered."""
        ids = list(token_ids)
        while ids and ids[-1] in self.eos_token_ids:
            ids.pop()
        return parse_turn(self.tokenizer.decode(ids, skip_special_tokens=False), self.tool_format, tools)

    def _suffix(self, turn: list[Item], new: Sequence[Item]) -> list[int]:
        """The template's ids between the end of a sampled turn and the next answer.

        They are cut from the rendering of a stand-in conversation, which has the turn's shape (its calls, by name and
        id) and none of its words, so that nothing the model said can change where the cut falls.
        """
        calls = [item for item in turn if item.get("type") == "function_call"]
        named = [(call["name"], call["call_id"] if self.tool_format == "mistral" else "") for call in calls]
        key = orjson.dumps((named, _wording(new)))
        suffix = self._suffixes.get(key)
        if suffix is None:
            if len(self._suffixes) > 4096:
                self._suffixes.clear()
            stand_in = [{**call, "arguments": "{}"} for call in calls] or _STAND_IN
            suffix = self._cut(stand_in, new)
            self._hold(calls, new, suffix)
            self._suffixes[key] = suffix
        return suffix

    def _hold(self, calls: list[Item], new: Sequence[Item], suffix: list[int]) -> None:
        """Refuse a template whose scaffolding changes with what the turn said: once for each kind of turn."""
        shape = orjson.dumps((len(calls), [(item.get("type"), item.get("role")) for item in new]))
        if shape in self._held:
            return
        other = [{**call, "arguments": '{"key": "seven"}'} for call in calls] or [message("Quite so.")]
        if self._cut(other, new) != suffix:
            raise TemplateError(
                f"The chat template of {self.tokenizer.name_or_path!r} writes new messages otherwise depending on what "
                "an earlier turn said, so what was sampled cannot be continued token for token."
            )
        self._held.add(shape)

    def _cut(self, stand_in: list[Item], new: Sequence[Item]) -> list[int]:
        turn = self._turn_of(stand_in)
        after = self.render([_ASKED, *stand_in, *new], add_generation_prompt=True)
        ends = [index for index, token in enumerate(after) if token in self.eos_token_ids]
        cut = ends[turn.ends - 1] + 1 if len(ends) >= turn.ends else 0
        if cut == 0 or after[cut - 2 : cut] != turn.tail:
            raise TemplateError(
                f"The chat template of {self.tokenizer.name_or_path!r} rewrites the end of an earlier turn when "
                "messages are added, so what was sampled cannot be continued token for token."
            )
        return after[cut:]

    def _turn_of(self, stand_in: list[Item]) -> _Turn:
        key = orjson.dumps(stand_in)
        turn = self._turns.get(key)
        if turn is None:
            if len(self._turns) > 4096:
                self._turns.clear()
            turn = self._turns[key] = self._find_turn(self.render([_ASKED, *stand_in], add_generation_prompt=False))
        return turn

    def _find_turn(self, before: list[int]) -> _Turn:
        ends = [index for index, token in enumerate(before) if token in self.eos_token_ids]
        asked = self.render([_ASKED], add_generation_prompt=False)
        if not ends or ends[-1] < len(asked):
            known = [self.tokenizer.decode([token]) for token in sorted(self.eos_token_ids)]
            special = set(self.tokenizer.all_special_ids)
            written = next((token for token in reversed(before[len(asked) :]) if token in special), None)
            name = (
                f"with {self.tokenizer.decode([written])!r} (id {written})" if written is not None else "with no token"
            )
            raise TemplateError(
                f"The chat template of {self.tokenizer.name_or_path!r} ends an assistant's turn {name}, and sampling "
                f"stops at {known} alone; add the id to eos_token_id in generation_config.json, or let the template "
                "write one of those."
            )
        return _Turn(len(ends), before[ends[-1] - 1 : ends[-1] + 1])

    def _apply(
        self, messages: list[dict[str, Any]], tools: Sequence[Any], *, add_generation_prompt: bool, tokenize: bool
    ) -> Any:
        from jinja2 import TemplateError as JinjaError

        try:
            return self.tokenizer.apply_chat_template(
                messages,
                tools=chat_tools(tools) or None,
                add_generation_prompt=add_generation_prompt,
                tokenize=tokenize,
                **({"return_dict": False} if tokenize else {}),
            )
        except (JinjaError, TypeError) as error:  # a TypeError is the template's: text and None joined by +
            raise TemplateRefusal(
                f"The chat template of {self.tokenizer.name_or_path!r} refuses the conversation: {error}"
            ) from error


_ASKED: Item = {"role": "user", "content": "x"}
_STAND_IN = [message("x")]


def _turn_before(items: Sequence[Item], end: int) -> list[Item]:
    start = end
    while start > 0 and _is_models(items[start - 1]):
        start -= 1
    return list(items[start:end])


def _is_models(item: Item) -> bool:
    return item.get("role") == "assistant" or item.get("type") in ("function_call", "reasoning")


def _wording(items: Sequence[Item]) -> list[Any]:
    """What of the new items reaches the template; call ids do not, except in Mistral's."""
    return [(item.get("type"), item.get("role"), item.get("output", item.get("content"))) for item in items]
