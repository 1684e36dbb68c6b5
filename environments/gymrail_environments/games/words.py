"""A word of five letters, found in six guesses by marks on the letters."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from gymrail_environments.games.boards import Step, Text

_MOST_GUESSES = 6


@functools.cache
def known_words() -> tuple[str, ...]:
    """The words there are."""
    file = Path(__file__).with_name("data") / "words.txt"
    return tuple(file.read_text(encoding="utf-8").split())


class Words:
    """Half of the reward is paid for letters in their place, the most so far; finding the word pays the rest."""

    rules = (
        "Find my word of five letters in six guesses. After each guess every letter is marked: "
        "+ it stands there, ? it stands elsewhere in the word, - it does not occur again."
    )
    action_names = ()
    action_space = Text(12)

    def reset(self, *, seed: int) -> tuple[str, dict[str, Any]]:
        self.secret = Random(f"words:{seed}").choice(known_words())
        self.guesses, self.paid = 0, 0.0
        return f"{_MOST_GUESSES} guesses left. The words are everyday English nouns and adjectives.", {}

    def step(self, action: str) -> Step:
        self.guesses += 1
        left = _MOST_GUESSES - self.guesses
        word = action.strip().casefold()
        if len(word) != 5 or not word.isalpha():
            return f"That is no word of five letters. {left} guesses left.", 0.0, left == 0, False, {}
        found = marks(word, self.secret)
        value = 1.0 if word == self.secret else 0.1 * found.count("+")
        reward, self.paid = max(0.0, value - self.paid), max(self.paid, value)
        said = "Right." if word == self.secret else f"{left} guesses left."
        return f"{word}\n{found}\n{said}", reward, word == self.secret or left == 0, False, {}

    def solution(self) -> str:
        """The word: a gold policy may know what an agent must find."""
        return self.secret

    def mistakes(self) -> list[str]:
        """Words that a player who reads no marks may say."""
        return [word for word in known_words() if word != self.secret]


def marks(guess: str, secret: str) -> str:
    """Return the marks of a guess: a letter is marked as often as the word has it."""
    spare = Counter(letter for letter, right in zip(secret, guess, strict=True) if letter != right)
    found = []
    for letter, right in zip(guess, secret, strict=True):
        if letter == right:
            found.append("+")
        elif spare[letter] > 0:
            spare[letter] -= 1
            found.append("?")
        else:
            found.append("-")
    return "".join(found)
