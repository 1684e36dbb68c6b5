"""Instructions that go against habit: a model that answers as it always does breaks them.

Right and wrong are told by whole words, so that a refusal, an explanation or the usual answer beside the asked one does
not pay.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gymrail.verifiers.answer import normalise
from gymrail.verifiers.instructions.registry import Count, Word, Words, instruction, pattern_of
from gymrail.verifiers.instructions.text import words

_OPPOSITE = {"yes": "no", "no": "yes", "true": "false", "false": "true"}


@instruction("counterintuitive:exact_words")
def exact_words(text: str, *, num_words: Count) -> bool:
    """Answer in exactly so many words, whatever the question would need."""
    return len(words(text)) == num_words


@instruction("counterintuitive:reversed_letters")
def reversed_letters(text: str, *, expected_answer: Word) -> bool:
    """Write the answer backwards, letter by letter."""
    return normalise(text) == normalise(expected_answer)[::-1]


@instruction("counterintuitive:reversed_words")
def reversed_words(text: str, *, sentence: Word) -> bool:
    """Give a sentence's words in the opposite order."""
    return [word.casefold() for word in words(text)] == [word.casefold() for word in words(sentence)][::-1]


@instruction("counterintuitive:opposite")
def opposite(text: str, *, expected_answer: Annotated[str, Field(pattern="^(yes|no|true|false)$")]) -> bool:
    """Say the opposite of what is right: "no" where it is yes."""
    return normalise(text) == _OPPOSITE[expected_answer]


@instruction("counterintuitive:wrong_option")
def wrong_option(text: str, *, options: Words, expected_answer: Word) -> bool:
    """Choose one of the options that are wrong."""
    said = normalise(text)
    return said != normalise(expected_answer) and said in {normalise(option) for option in options}


@instruction("counterintuitive:phrase_instead")
def phrase_instead(text: str, *, phrase: Word) -> bool:
    """Say a phrase and nothing else, instead of answering."""
    return normalise(text) == normalise(phrase)


@instruction("counterintuitive:without_letter")
def without_letter(text: str, *, letter: Annotated[str, Field(min_length=1, max_length=1)], min_words: Count) -> bool:
    """Answer in at least so many words that do not have a letter."""
    return letter.casefold() not in text.casefold() and len(words(text)) >= min_words


@instruction("counterintuitive:name_unsaid")
def name_unsaid(text: str, *, name: Word, min_words: Count) -> bool:
    """Describe a thing in at least so many words without naming it."""
    return pattern_of(name).search(text) is None and len(words(text)) >= min_words
