r"""Finding the answer in what a model said, and comparing it. Pure functions; linear in the length of the text.

last_boxed(r"so \boxed{4}, no: \boxed{\frac{1}{2}}")   \frac{1}{2}
after_label("Answer: B.")                              B.
choice("(b)", {"A": "Oslo", "B": "Rome"})              B
says("It is 25 now.", "5")                             False
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping

_BOX_OR_BRACE = re.compile(r"\\boxed\s*\{|\\[\\{}]|[{}]")
_LETTER_AND_TEXT = re.compile(r"\W*(\w+)\s*[:.)\]]\s*(.+)", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])[-+\u2212]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w%]|\\%|\.\d)")
_WRAPPER = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_EDGES = " \t\r\n.,;:!?\"'`*_()[]$\u201c\u201d\u2018\u2019"


def last_boxed(text: str) -> str | None:
    r"""Return the content of the last `\boxed{...}` whose braces balance; None where there is none."""
    opened: list[int | None] = []
    best: tuple[int, int] | None = None
    for mark in _BOX_OR_BRACE.finditer(text):
        kind = mark.group()
        if kind.startswith("\\boxed"):
            opened.append(mark.end())
        elif kind == "{":
            opened.append(None)
        elif kind == "}" and opened:
            start = opened.pop()
            if start is not None and (best is None or start > best[0]):
                best = (start, mark.start())
    return None if best is None else text[best[0] : best[1]].strip()


def after_label(text: str, label: str = "answer") -> str | None:
    """Return what follows the last "Answer:" up to the line's end; upper or lower case, Markdown or none."""
    found = re.findall(rf"\b{re.escape(label)}[ \t*_]*:[ \t*_]*(\S.*)", text, re.IGNORECASE)
    return found[-1].strip() if found else None


def in_tag(text: str, tag: str = "answer") -> str | None:
    """Return what stands in the last `<answer>...</answer>`, upper or lower case; None where there is none."""
    opened: int | None = None
    found: str | None = None
    for mark in re.finditer(rf"<(/?){re.escape(tag)}>", text, re.IGNORECASE):
        if not mark[1]:
            opened = mark.end()
        elif opened is not None:
            found, opened = text[opened : mark.start()], None
    return None if found is None else found.strip()


def last_match(pattern: str | re.Pattern[str], text: str) -> str | None:
    """Return the last match of a regular expression: its first group that took part, or the whole match."""
    matches = deque(re.finditer(pattern, text), maxlen=1)
    if not matches:
        return None
    last = matches[0]
    return next((group for group in last.groups() if group is not None), last.group())


def last_answer(pattern: str, text: str) -> str | None:
    """Return what the last match of a regular expression finds: its first group that is not blank, or the whole match;
    `^` and `$` hold at every line, and a dot takes line ends, as NeMo Gym's judge environments have it."""
    matches = deque(re.finditer(pattern, text, re.MULTILINE | re.DOTALL), maxlen=1)
    if not matches:
        return None
    last = matches[0]
    return next((group for group in last.groups() if group and group.strip()), last.group()).strip()


def single_letter(text: str) -> str | None:
    """Return the one letter A-Z that a text consists of, "(B)" and "B." included; None where it holds any other
    letter or digit."""
    found = re.findall(r"\w", text)
    return found[0] if len(found) == 1 and "A" <= found[0] <= "Z" else None


def choice(text: str, options: Mapping[str, str]) -> str | None:
    """Return the letter of the option that a short answer names: by letter in any case ("b", "B: Rome"), or by the
    option's own text."""
    said = normalise(text)
    by_letter = {normalise(letter): letter for letter in options}
    if said in by_letter:
        return by_letter[said]
    by_text = [letter for letter, option in options.items() if normalise(option) == said]
    if len(by_text) == 1:
        return by_text[0]
    found = _LETTER_AND_TEXT.match(_unwrap(text))
    letter = by_letter.get(normalise(found[1])) if found else None
    return letter if found and letter is not None and normalise(found[2]) == normalise(options[letter]) else None


def normalise(text: str) -> str:
    r"""Reduce an answer to what counts: case, runs of blanks, LaTeX text wrappers and punctuation around it do not."""
    return re.sub(r"\s+", " ", _unwrap(text)).strip(_EDGES).casefold()


def numbers_in(text: str) -> list[float]:
    """Return the numbers of a text, "1,000" as 1000; parts of words, percentages and dotted versions are not
    numbers."""
    return [float(found.replace(",", "").replace("\u2212", "-")) for found in _NUMBER.findall(text)]


def contains_phrase(text: str, phrase: str) -> bool:
    """Tell whether a phrase stands in a text as whole words: "5" is not in "25", "-5" or "5.1"."""
    words = r"\s+".join(re.escape(word) for word in phrase.split())
    return (
        bool(words)
        and re.search(rf"(?<![\w\u2212-])(?<!\d[.,]){words}(?!\w|%|[.,]\d)", text, re.IGNORECASE) is not None
    )


def says(text: str, expected: str) -> bool:
    r"""Tell whether an answer says what is expected, and nothing else: hedging does not pay.

    Looks in the last `\boxed{}`, else behind the last "Answer:", else at the whole text. A number must be the only
    number there; any other answer must be all that is said.
    """
    part = last_boxed(text)
    if part is None:
        part = after_label(text)
    return is_same(text if part is None else part, expected)


def is_same(part: str, expected: str) -> bool:
    """Tell whether an extracted answer is what is expected: a number as the only number there, anything else as all
    that is said."""
    wanted = numbers_in(expected)
    if len(wanted) == 1 and not re.search(r"[^\W\d]", expected):
        return set(numbers_in(_unwrap(part))) == set(wanted)
    return normalise(part) == normalise(expected)


def _unwrap(text: str) -> str:
    return _WRAPPER.sub(r"\1", text)
