"""Where our rewards are others than nemo-gym's, and answers that show it. Each has its row in docs/differences.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.interop.answers import Case

Difference = Callable[[Case, float, float], bool]
"""Of a case, our reward and theirs: whether this is why they differ."""

_NUMBER = {"type": "object", "properties": {"a": {"type": "integer"}}}
_ROOTED = {"type": "object", "properties": {"r": _NUMBER}}
_ANYTHING = {"type": "object", "properties": {"a": {}}}
_NESTED = {"type": "object", "properties": {"properties": _NUMBER}}
_OPTIONAL = {
    "type": "object",
    "properties": {"r": {"type": "object", "properties": {"a": {"type": ["integer", "null"]}}}},
}
_ALIASES = "a: &a x\n" + "\n".join(f"b{number}: *a" for number in range(12))
_MANY = {"type": "object", "properties": {name: {} for name in ("a", *(f"b{number}" for number in range(12)))}}

ODD_STRUCTURES: list[tuple[str, dict[str, Any], str]] = [
    ("xml", _NUMBER, "<r><a>1</a></r>"),
    ("xml", _ROOTED, "<r><a>1</a></r>"),
    ("xml", _ROOTED, "<r><a>1_000</a></r>"),
    ("xml", _OPTIONAL, "<r><a>5</a></r>"),
    ("xml", _ROOTED, "<!DOCTYPE r [<!ENTITY e '1'>]><r><a>&e;</a></r>"),
    ("csv", _NUMBER, "a\n1\n"),
    ("csv", _NUMBER, "a\n1\n2\n"),
    ("csv", {"type": "array", "items": _NUMBER}, "a\n1\n2\n"),
    ("csv", {"type": "array", "items": _NUMBER}, "a\n1,2\n"),
    ("json", _ANYTHING, '{"a": NaN}'),
    ("json", _ANYTHING, '{"a": 1}'),
    ("json", _NESTED, '{"properties": {"a": 1}}'),
    ("json", _NUMBER, "[" * 100_000),
    ("yaml", _ANYTHING, "a: 2024-01-01"),
    ("yaml", _NUMBER, "a: 2024-01-01"),
    ("yaml", _MANY, _ALIASES),
    ("yaml", _ANYTHING, "!!python/object/apply:os.getcwd []"),
    ("toml", _ANYTHING, "a = 2024-01-01"),
]
ODD_INSTRUCTIONS: list[tuple[str, dict[str, Any], str]] = [
    ("punctuation:no_comma", {}, " "),
    ("language:response_language", {"language": "de"}, "12 + 30 = 42"),
    ("keywords:existence", {"keywords": ["(draft"]}, "See it (draft 2)."),
    ("detectable_format:constrained_response", {}, "My answer is yes. My answer is no. My answer is maybe."),
    ("detectable_format:constrained_response", {}, "My answer is no."),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n---\n* two"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n- two"),
    ("first_word:first_word_answer", {"first_word": "well"}, "Well, it rains."),
    ("last_word:last_word_answer", {"last_word": "don't"}, "I really don't."),
    ("last_word:last_word_sent", {"last_word": "rain"}, "I like rain. We like rain!"),
    ("keywords:palindrome", {}, "It is a dog."),
    ("keywords:palindrome", {}, "A level road."),
    ("keywords:exclude_word_harder", {"keyword": "rain"}, "I like rain."),
    ("keywords:exclude_word_harder", {"keyword": "rain"}, "I like snow."),
    ("keywords:no_adjacent_consecutive", {}, "Rooms 1 2 are free"),
    ("keywords:no_adjacent_consecutive", {}, "all blue cars"),
    ("new:copy_span_idx", {"prompt_to_repeat": "Write of rain", "n_start": 6, "n_end": 7}, "of"),
    ("detectable_format:sentence_hyphens", {}, "A well-known man came.-He left."),
    ("detectable_format:sentence_hyphens", {}, "He came.-He left."),
    ("detectable_format:bigram_wrapping", {}, "alone"),
    ("detectable_format:bigram_wrapping", {}, "<<I am>> <<at home>>"),
    ("copy:repeat_phrase", {"phrase": "time flies when having fun", "small_n": 2},
     "Time flies while having fun. Time flies if having fun."),
    ("count:count_unique", {}, "One dog. Two cats."),
    ("count:count_unique", {}, "One dog met the one cat"),
    ("keywords:start_end", {}, "Rain is always rain"),
    ("keywords:keyword_specific_position", {"keyword": "Rain", "n": 1, "m": 2}, "The rain falls."),
    ("count:counting_composition", {"n_sent": 1, "n_words": 2}, "It rains.\n***\nIt snows.\n***\nIt hails."),
    ("letters:letter_counting", {"N": 3, "relation": "at least"}, "abc"),
    ("count:lowercase_counting", {"N": 2}, "It rains all day"),
    ("copy:copying_multiple", {"prompt_to_repeat": "Say it", "N": 2}, "Say it ****** say it"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it"}, "Say it. It."),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```'),
    ("keywords:word_count_different_numbers", {"keyword": "rain", "frequency": 1, "relation": "at least"}, "rain"),
    ("count:count_increment_word", {"keyword1": "sun", "keyword2": "rain"}, "sun, rain, rain"),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, "See Mr. Roe"),
]  # fmt: skip
_LANGUAGE = {"language:response_language", "change_case:english_capital", "change_case:english_lowercase"}
_SENTENCES = {"length_constraints:number_sentences", "last_word:last_word_sent", "first_word:first_word_sent"}
_TOKENS = {
    "count:count_unique", "keywords:start_end", "keywords:keyword_specific_position", "count:counting_composition",
    "change_case:capital_word_frequency",
}  # fmt: skip


def _schema(case: Case) -> dict[str, Any]:
    return json.loads(case.task["schema_str"])


def _has_other_root(case: Case) -> bool:
    return not any(case.text.startswith(f"<{name}>") for name in _schema(case)["properties"])


def _has_odd_property(case: Case) -> bool:
    return "properties" in _schema(case)["properties"]


def _of(*ids: str) -> Difference:
    return lambda case, ours, theirs: not set(ids).isdisjoint(case.task["instruction_id_list"])


def _is(kind: str, *, ours: float, when: Callable[[Case], bool]) -> Difference:
    return lambda case, mine, theirs: case.task["schema_type"] == kind and mine == ours and when(case)


DIFFERENCES: dict[str, dict[str, Difference]] = {
    "structured_outputs": {
        "xml root": _is("xml", ours=1.0, when=_has_other_root),
        "xml optional numbers": _is("xml", ours=1.0, when=lambda case: '"null"' in case.task["schema_str"]),
        "csv of one row": _is("csv", ours=1.0, when=lambda case: _schema(case)["type"] == "object"),
        "digits with underscores": _is("xml", ours=0.0, when=lambda case: "1_000" in case.text),
        "NaN": _is("json", ours=0.0, when=lambda case: "NaN" in case.text),
        "dates in JSON's place": lambda case, ours, theirs: ours == 0.0 and "2024-01-01" in case.text,
        "YAML aliases": _is("yaml", ours=0.0, when=lambda case: case.text.count("*a") > 10),
        "a property named properties": _is("json", ours=1.0, when=_has_odd_property),
    },
    "calendar": {
        "last list": lambda case, ours, theirs: ours == 1.0 and "First draft" in case.text,
        "brackets in names": lambda case, ours, theirs: ours == 1.0 and "[4]" in case.text,
        "an event twice": lambda case, ours, theirs: ours == 0.0 and case.kind == "odd",
        "events where none are expected": lambda case, ours, theirs: ours == 0.0 and not case.task["exp_cal_state"],
    },
    "mcqa": {
        "last box": lambda case, ours, theirs: case.text.count("\\boxed") == 2,
    },
    "instruction_following": {
        "empty answers": lambda case, ours, theirs: not case.text.strip() and ours < theirs,
        "text without letters": lambda case, ours, theirs: (
            _of(*_LANGUAGE)(case, ours, theirs) and not any(map(str.isalpha, case.text)) and ours < theirs
        ),
        "language of short texts": lambda case, ours, theirs: (
            _of(*_LANGUAGE)(case, ours, theirs) and 0 < len(case.text.strip()) < 120
        ),
        "keywords as text": lambda case, ours, theirs: "(draft" in json.dumps(case.task["kwargs"]),
        "one of the options": _of("detectable_format:constrained_response"),
        "a divider is no bullet": lambda case, ours, theirs: "\n---" in case.text,
        "punctuation beside a word": _of("first_word:first_word_answer", "last_word:last_word_answer"),
        "ends of sentences": _of(*_SENTENCES),
        "punctuation is no word": _of(*_TOKENS),
        "a letter is no palindrome": _of("keywords:palindrome"),
        "excluded words everywhere": _of("keywords:exclude_word_harder"),
        "digits are no letters": _of("keywords:no_adjacent_consecutive"),
        "a span with its end": _of("new:copy_span_idx"),
        "hyphens inside of words": _of("detectable_format:sentence_hyphens"),
        "one word is no bigram": _of("detectable_format:bigram_wrapping"),
        "phrases in any case": _of("copy:repeat_phrase"),
    },
}  # fmt: skip
