"""A scripted policy of tokens, the same on both sides: what it says next is told by the prompt's tokens alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Script:
    """Turns by the prompt that an episode begins with.

    A script file is a list of `{"prompt": [ids], "turns": [text, ...]}`; `header` is the text that begins each of the
    policy's turns in the tokenizer's template.
    """

    def __init__(self, path: str, tokenizer: Any, header: str) -> None:
        self.tokenizer = tokenizer
        self.header = header
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
        self.turns = {tuple(row["prompt"]): row["turns"] for row in rows}

    def say(self, prompt: list[int], limit: int) -> tuple[list[int], bool]:
        """Return the tokens of the next turn, at most so many, and whether it was cut."""
        start = next(ids for ids in self.turns if tuple(prompt[: len(ids)]) == ids)
        since = self.tokenizer.decode(prompt[len(start) :], skip_special_tokens=False)
        text = self.turns[start][since.count(self.header)]
        ids = [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]
        return ids[:limit], len(ids) > limit


def log_probs_of(ids: list[int]) -> list[float]:
    """Some log-probs that differ from token to token, exact in float32."""
    return [-(token % 64) / 64 for token in ids]
