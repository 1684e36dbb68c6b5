"""Words, sentences and paragraphs of an answer. Linear in its length.

sentences("Dr. Roe came at 5.30. He left!")      ["Dr. Roe came at 5.30.", "He left!"]
words("It's a well-known fact.")                 ["It's", "a", "well-known", "fact"]
"""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")
_END = re.compile(r"(?<![.!?\u2026])[.!?\u2026]++[\"'\u201d\u2019)\]*_]*+(?=\s|$)|[\u3002\uff01\uff1f]+")
_ABBREVIATIONS = frozenset(
    {
        "mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "vs", "etc", "e.g", "i.e", "cf", "fig", "no", "vol",
        "dept", "inc", "ltd", "co", "capt", "lt", "gen", "approx", "ph.d", "u.s", "u.k", "a.m", "p.m",
    }
)  # fmt: skip
_NEVER_LAST = _ABBREVIATIONS - {"etc", "inc", "ltd", "co", "no", "ph.d", "u.s", "u.k", "a.m", "p.m", "jr", "sr"}
"""Abbreviations that no sentence ends with; after the others a capital begins the next sentence."""
_LABEL = re.compile(r"[ \t]*(?:\d{1,3}|[A-Za-z])")
_LABEL_WIDTH = 12


def words(text: str) -> list[str]:
    """Return the words, hyphened ones and contractions whole; punctuation is none."""
    return _WORD.findall(text)


def bare(word: str) -> str:
    """Return a word without the punctuation around it, in lower case."""
    kept = [index for index, character in enumerate(word) if character.isalnum()]
    return word[kept[0] : kept[-1] + 1].casefold() if kept else ""


def sentences(text: str) -> list[str]:
    """Return the sentences. They end with . ! ? before a blank or the text's end; not after an abbreviation, an initial
    or the number of a list's entry. A line's end ends none."""
    found = []
    start = 0
    for mark in _END.finditer(text):
        if _ends_nothing(text, start, mark.start(), mark.end(), mark.group()):
            continue
        found.append(text[start : mark.end()])
        start = mark.end()
    found.append(text[start:])
    return [sentence.strip() for sentence in found if _WORD.search(sentence)]


def _ends_nothing(text: str, start: int, at: int, end: int, mark: str) -> bool:
    if mark != ".":
        return False
    before = text[max(start, at - _LABEL_WIDTH) : at]
    line_begins = text.rfind("\n", max(0, at - _LABEL_WIDTH - 1), at) + 1
    if at - line_begins <= _LABEL_WIDTH and _LABEL.fullmatch(text, line_begins, at):
        return True
    word = before.split()[-1].lstrip("(\"'").casefold() if before.split() else ""
    follows = text[end : end + 8].lstrip()[:1]
    if word in _ABBREVIATIONS:
        return word in _NEVER_LAST or not follows.isupper()
    return len(word) == 1 and word.isalpha() and word != "i" and follows.isupper()


def divided(text: str) -> list[str] | None:
    """Return the parts of a text that `***` divides; None where one between two dividers is empty."""
    return _parts(re.split(r"\s?\*\*\*\s?", text))


def paragraphs(text: str) -> list[str] | None:
    """Return the parts of a text that an empty line divides; None where one in the middle is empty."""
    return _parts(text.split("\n\n"))


def _parts(parts: list[str]) -> list[str] | None:
    if any(not part.strip() for part in parts[1:-1]):
        return None
    return [part for part in parts if part.strip()]
