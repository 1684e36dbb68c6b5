r"""Where an answer stands, and whether it hedges.

extract_answer("so <answer> 4 </answer>")    4
extract_answer(r"so it is \boxed{4}")        4
is_hedged("4 or 5", "4", score=0.17)         True
"""

from __future__ import annotations

import re

from gymrail.verifiers.answer import last_boxed, numbers_in

_OPEN, _CLOSE = "<answer>", "</answer>"
_DIGIT = re.compile(r"\d")
_ANOTHER_WORD = re.compile(r"[\s,;/][^\W\d]|[^\W\d][\s,;/]")


def extract_answer(text: str) -> str:
    r"""Return what stands in the last `<answer>`, else in the last balanced `\boxed{}`, else the whole text."""
    end = text.rfind(_CLOSE)
    while end >= 0:
        start = text.rfind(_OPEN, 0, end)
        if start < 0:
            break
        earlier = text.rfind(_CLOSE, 0, end)
        if earlier < start:
            return text[start + len(_OPEN) : end].strip()
        end = earlier  # a closing tag too many
    boxed = last_boxed(text)
    return text.strip() if boxed is None else boxed


def is_hedged(answer: str, oracle: str | None, score: float) -> bool:
    """Tell whether an answer was paid because it contains the oracle's among other things.

    The library pays a part, `len(oracle) / len(answer)`, so that "0 or 1" and a number with the right digit in it are
    worth something; some of its scorers read the first number alone and pay "4 or 5" in full. A full score for the
    oracle's answer with a unit or a few words around it stands.
    """
    wanted = (oracle or "").strip()
    if score <= 0.0 or not wanted or wanted == answer or wanted not in answer:
        return False
    if score < 1.0:
        return True
    if _DIGIT.search(wanted):
        return set(numbers_in(answer)) != set(numbers_in(wanted))
    return _ANOTHER_WORD.search(answer.replace(wanted, "", 1)) is not None
