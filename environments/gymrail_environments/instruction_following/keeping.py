"""The gold policy: an answer that keeps the instructions of a generated task."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from gymrail_environments.instruction_following.rules import FILLER

COUNTER = "counterintuitive:"
PLAIN = "tiny bright lamps warm cold old walls whilst soft winds sing among dusty pillars and dogs nap on mats by doors"
"""Words to write with; for each letter some lack it."""
_Rules = Mapping[str, Mapping[str, Any]]


def keep_all(ids: Sequence[str], kwargs: Sequence[Mapping[str, Any] | None]) -> str:
    """Return an answer that keeps instructions which `draw_rules` or `draw_counter` drew."""
    rules = {name: dict(arguments or {}) for name, arguments in zip(ids, kwargs, strict=True)}
    if ids[0].startswith(COUNTER):
        return _keep_counter(ids[0].removeprefix(COUNTER), rules[ids[0]])
    text = _arrange(rules, [*_contents(rules), *_body(rules)])
    if "detectable_format:title" in rules:
        text = f"<<a plain note>>\n{text}"
    if "detectable_content:postscript" in rules:
        text += "\nP.S. see you soon"
    if "change_case:english_capital" in rules:
        text = text.upper()
    if "change_case:english_lowercase" in rules:
        text = text.lower()
    if "startend:end_checker" in rules:
        text += f" {rules['startend:end_checker']['end_phrase']}"
    if "last_word:last_word_answer" in rules:
        text += f" Here is the {rules['last_word:last_word_answer']['last_word']}."
    edge = "\n" if "detectable_format:number_bullet_lists" in rules else ""
    return f'"{edge}{text}{edge}"' if "startend:quotation" in rules else text


def _keep_counter(name: str, kwargs: Mapping[str, Any]) -> str:
    if name == "reversed_letters":
        return kwargs["expected_answer"][::-1]
    if name == "reversed_words":
        return " ".join(kwargs["sentence"].strip(".").split()[::-1])
    if name == "opposite":
        return {"yes": "no", "no": "yes"}[kwargs["expected_answer"]]
    if name == "wrong_option":
        return next(option for option in kwargs["options"] if option != kwargs["expected_answer"])
    if name == "phrase_instead":
        return kwargs["phrase"]
    words = itertools.cycle(word for word in PLAIN.split() if kwargs.get("letter", "#") not in word)
    return " ".join(itertools.islice(words, kwargs.get("min_words") or kwargs["num_words"]))


def _contents(rules: _Rules) -> list[str]:
    said = [f"Somebody speaks of the {word}." for word in rules.get("keywords:existence", {}).get("keywords", ())]
    if (often := rules.get("keywords:frequency")) is not None:
        said += [f"There is the {often['keyword']}."] * often["frequency"]
    for name, key, form in (
        ("detectable_content:number_placeholders", "num_placeholders", "[name {}]"),
        ("detectable_format:number_highlighted_sections", "num_highlights", "*point {}*"),
        ("change_case:capital_word_frequency", "capital_frequency", "NOTE {}"),
    ):
        if name in rules:
            said.append(f"See {' and '.join(form.format(number + 1) for number in range(rules[name][key]))}.")
    return said


def _body(rules: _Rules) -> list[str]:
    words = rules.get("length_constraints:number_words", {"num_words": 0, "relation": "at least"})
    wanted = words["num_words"] if words["relation"] == "at least" else 0
    least = max(5, rules.get("length_constraints:number_sentences", {}).get("num_sentences", 0))
    body: list[str] = []
    for sentence in itertools.cycle(FILLER):
        if len(body) >= least and sum(len(one.split()) for one in body) >= wanted:
            break
        body.append(sentence)
    return body


def _arrange(rules: _Rules, said: list[str]) -> str:
    """Lay the sentences out in as many parts as an instruction asks for."""
    if (rule := rules.get("length_constraints:number_paragraphs")) is not None:
        return "\n***\n".join(_spread(said, rule["num_paragraphs"]))
    if (rule := rules.get("length_constraints:nth_paragraph_first_word")) is not None:
        parts = _spread(said, rule["num_paragraphs"])
        nth = rule["nth_paragraph"] - 1
        parts[nth] = f"{rule['first_word']} and sky. {parts[nth]}"
        return "\n\n".join(parts)
    if "paragraphs:paragraphs2" in rules:
        return "\n\n".join(_spread(said, 2))
    if "combination:two_responses" in rules:
        return "\n******\n".join(_spread(said, 2))
    if (rule := rules.get("detectable_format:number_bullet_lists")) is not None:
        return "\n".join(f"* {part}" for part in _spread(said, rule["num_bullets"]))
    if (rule := rules.get("detectable_format:multiple_sections")) is not None:
        parts = enumerate(_spread(said, rule["num_sections"]), 1)
        return "\n".join(f"Section {number}\n{part}" for number, part in parts)
    return " ".join(said)


def _spread(said: list[str], count: int) -> list[str]:
    return [" ".join(said[number::count]) for number in range(count)]
