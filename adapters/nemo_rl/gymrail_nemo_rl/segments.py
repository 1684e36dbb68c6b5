"""The texts and tokens between a policy's turns, as NeMo RL's native loop needs them.

That loop tokenizes what an environment answers as it stands, without the chat template: so the environment's text must
carry the template's own scaffolding, from right after the token that ended the policy's turn up to where it writes its
next: `ChatTemplate.scaffolding`, which every trainer's next prompt is made of. The loop shows an environment the
policy's words as text, special tokens left out; they are counted by tokenizing them again, and parsed as any policy's
are. The rows themselves are NeMo RL's: it joins what it sampled and what it tokenized.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gymrail.errors import InputError
from gymrail.models.chat_template import ChatTemplate
from gymrail.models.tool_parsing import parse_turn
from gymrail.task import Item

_MARKS = {"hermes": ("<tool_call>",), "mistral": ("[TOOL_CALLS]",)}
"""What a tool call begins with; Llama's are told by their braces, with or without <|python_tag|>."""


class Segments:
    """One tokenizer's segments."""

    def __init__(self, tokenizer: Any) -> None:
        """
        Raises:
            InputError: the model writes its tool calls with special tokens, which NeMo RL hides from environments.
        """
        self.tokenizer = tokenizer
        self.template = ChatTemplate(tokenizer)
        probes = _MARKS.get(self.template.tool_format, ())
        if probes and not all(mark in self._decoded(self._ids(mark), skip=True) for mark in probes):
            raise InputError(
                f"The tokenizer {tokenizer.name_or_path!r} has {probes[0]} as a special token, and NeMo RL's own loop "
                "takes those out of what an environment sees. Set settings.gymrail.path to nemo_gym."
            )

    def prompt(self, items: Sequence[Item], tools: Sequence[Any], instructions: str | None = None) -> list[int]:
        """Return the ids that the policy is prompted with first."""
        return self.template.prompt(items, tools, instructions)

    def between(self, items: Sequence[Item]) -> list[int]:
        """Return the template's ids from the end of the conversation's last turn of the policy to its next."""
        return self.template.scaffolding(items)

    def text(self, token_ids: Sequence[int]) -> str:
        """Return the text that NeMo RL tokenizes to these ids; `count` says whether it does."""
        return self._decoded(token_ids, skip=False)

    def count(self, text: str) -> int:
        """How many tokens NeMo RL makes of a text."""
        return len(self._ids(text)) if text else 0

    def is_exact(self, token_ids: Sequence[int]) -> bool:
        """Whether NeMo RL makes these very ids of their text."""
        return self._ids(self.text(token_ids)) == list(token_ids)

    def parse(self, text: str) -> list[Item]:
        """Take a turn of the policy apart into items."""
        return parse_turn(text, self.template.tool_format)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _decoded(self, token_ids: Sequence[int], *, skip: bool) -> str:
        return self.tokenizer.decode(list(token_ids), skip_special_tokens=skip, clean_up_tokenization_spaces=False)
