"""Whether prompts tell their answers: a prompt config is held against the rows that it is filled from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gymrail.data.content import answer_of, question_of
from gymrail.data.prompts import Prompt
from gymrail.verifiers.answer import contains_phrase

_ROWS = 1000
"""Rows that are looked at: the search is slow, and a template does to all rows what it does to the first."""
_CHANCE = 0.75
"""Share of prompts that may hold their answer by chance, as in `gymrail check`."""


class ShownAnswers:
    """Counts prompts that hold the answer where the row's own fields do not offer it as a choice."""

    def __init__(self, prompt: Prompt, environment: str) -> None:
        self._prompt = prompt
        self._environment = environment
        self._looked = self._found = 0

    def look(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Look at one row, as it was and with its prompt."""
        answer = answer_of(before)
        if self._looked >= _ROWS or answer is None or isinstance(answer, dict | list) or "options" in before:
            return
        self._looked += 1
        self._found += contains_phrase(question_of(after) or "", str(answer))

    def warnings(self) -> list[str]:
        """Say what a person should look at."""
        name = self._prompt.name
        found = [
            f"{name} shows {{{field}}} to the agent, and {self._environment}'s rows hold the answer there. "
            "Take it out of the template unless that is meant."
            for field in self._prompt.answer_fields
        ]
        if not found and self._looked and self._found > _CHANCE * self._looked:
            found.append(f"The answer stands in the prompt of {self._found} of {self._looked} rows made with {name}.")
        return found
