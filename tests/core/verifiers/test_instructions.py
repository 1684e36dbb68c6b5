"""Verifiable instructions: one followed and one broken answer for each id, and the traps."""

import asyncio
from typing import Any

import pytest

from gymrail.errors import InputError
from gymrail.verifiers.instructions import INSTRUCTIONS, InstructionFollowing, follows
from gymrail.verifiers.instructions.language import language_of
from gymrail.verifiers.instructions.text import bare, sentences, words

ENGLISH = "The lamp stands near the harbor, and the people walk along the water."
AT_LEAST, LESS = {"relation": "at least"}, {"relation": "less than"}
RULES: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["lamp", "C++"]}, "A Lamp for c++", "A lamp for c"),
    ("keywords:frequency", {"keyword": "lamp", "frequency": 2, **AT_LEAST}, "lamp lamps", "lamp"),
    ("keywords:forbidden_words", {"forbidden_words": ["lamp"]}, "lamps", "The Lamp."),
    ("keywords:letter_frequency", {"letter": "z", "let_frequency": 2, "let_relation": "less than"}, "Zoo", "zigzag"),
    ("letters:letter_counting2", {"letter": "#", "let_frequency": 1, "let_relation": "at least"}, "a #", "a b"),
    ("language:response_language", {"language": "de"}, "Die Katze schläft im Garten.", ENGLISH),
    ("length_constraints:number_sentences", {"num_sentences": 2, **AT_LEAST}, "One. Two!", "Dr. Roe came at 5.30"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
    ("length_constraints:number_words", {"num_words": 3, **LESS}, "one two", "one two three"),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "so"},
     "a\n\n\"So, b", "so a\n\nb"),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] and [b]", "[a] and [b"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "a\np. s. b", "a PS b"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "a\nP.P.S b", "a\nP.S. b"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b\n---\n**bold**", "* a"),
    ("detectable_format:constrained_response", {}, "My answer is no.", "My answer is no. My answer is yes."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b**", "** ** *a*"),
    ("detectable_format:multiple_sections", {"section_spliter": "Part", "num_sections": 2}, "Part 1 Part 2", "Part"),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{a: 1}"),
    ("detectable_format:title", {}, "<<a title>>\ntext", "<< >>"),
    ("combination:two_responses", {}, "a\n******\nb", "a\n******\na"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "say it. It.", "It. Say it."),
    ("startend:end_checker", {"end_phrase": "The end."}, 'a. the end."', "The end. a"),
    ("startend:quotation", {}, '"a"', '"'),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}, "A UN", "Un A"),
    ("change_case:english_capital", {}, ENGLISH.upper(), ENGLISH),
    ("change_case:english_lowercase", {}, ENGLISH.lower(), "die katze schläft im garten."),
    ("punctuation:no_comma", {}, "a b", "a, b"),
    ("paragraphs:paragraphs", {}, "a\n***\nb", "a"),
    ("paragraphs:paragraphs2", {}, "a\n\nb\n\n", "a\n\nb\n\nc"),
    ("first_word:first_word_sent", {"first_word": "so"}, "So, it is. So be it.", "So it is. Be it."),
    ("first_word:first_word_answer", {"first_word": "so"}, "So, it is.", "It is so"),
    ("last_word:last_word_sent", {"last_word": "so"}, "It is so. Be it so!", "It is so. Be it."),
    ("last_word:last_word_answer", {"last_word": "don't"}, "I don't!", "I do"),
    ("copy:copy", {"prompt_to_repeat": "Say it."}, " say it. ", "Say it. Yes."),
    ("copy:copying_simple", {"prompt_to_repeat": "Say it."}, "Say it.", "it"),
    ("copy:copying_multiple", {"prompt_to_repeat": "Say it.", "N": 2}, "Say it.\n******\nsay it.", "Say it."),
    ("new:copy_span_idx", {"prompt_to_repeat": "Write of rain", "n_start": 6, "n_end": 7}, "of", "rain"),
    ("copy:repeat_phrase", {"phrase": "time flies when asleep", "small_n": 2},
     "Time flies if asleep. Time flows when asleep.", "Time flies when asleep. Time flies if asleep."),
    ("detectable_format:sentence_hyphens", {}, "A well-known man came.-He left.", "He came. He left."),
    ("detectable_format:square_brackets", {}, "[a] [b.]", "[a] b"),
    ("detectable_format:bigram_wrapping", {}, "<<I am>> <<at home>>", "<<I am>> at home"),
    ("keywords:no_adjacent_consecutive", {}, "a cat 1 2", "a bee"),
    ("keywords:word_once", {"keyword": "rain"}, "Rain.", "rain rain"),
    ("keywords:word_count_different_numbers", {"keyword": "rain", "frequency": 2}, "rain rain", "rain rain rain"),
    ("count:count_increment_word", {"keyword1": "sun", "keyword2": "rain"}, "sun rain rain", "sun rain"),
    ("keywords:exclude_word_harder", {"keyword": "rain"}, "rains", "I like Rain."),
    ("keywords:palindrome", {}, "A Level, road", "It is a dog"),
    ("keywords:keyword_specific_position", {"keyword": "rain", "n": 2, "m": 2}, "So. The rain falls.", "The rain."),
    ("keywords:start_end", {}, "Rain is rain", "Rain is rain."),
    ("punctuation:punctuation_dot", {}, "a!", "a."),
    ("punctuation:punctuation_exclamation", {}, "a.", "a!"),
    ("count:lowercase_counting", {"N": 2}, "It rains ALL day", "it rains all"),
    ("letters:letter_counting", {"N": 3, **AT_LEAST}, "a1b2c", "12 ab"),
    ("count:counting_composition", {"n_sent": 1, "n_words": 2}, "It rains.\n***\nIt snows.\n***\nIt hails.", "It is."),
    ("count:count_unique", {}, "One dog. Two cats.", "One dog met one cat"),
    ("counterintuitive:exact_words", {"num_words": 5}, "Light scatters off tiny molecules.", "Because light scatters."),
    ("counterintuitive:reversed_letters", {"expected_answer": "honey"}, "Yenoh.", "honey"),
    ("counterintuitive:reversed_words", {"sentence": "It rains today."}, "today rains it", "It rains today"),
    ("counterintuitive:opposite", {"expected_answer": "yes"}, "No.", "no, that is, yes"),
    ("counterintuitive:wrong_option", {"options": ["3", "4"], "expected_answer": "4"}, "3", "3 or 4"),
    ("counterintuitive:phrase_instead", {"phrase": "My cat sleeps"}, "My cat sleeps.", "My cat sleeps. It is blue."),
    ("counterintuitive:without_letter", {"letter": "e", "min_words": 3}, "A warm day", "The warm day"),
    ("counterintuitive:name_unsaid", {"name": "violin", "min_words": 3}, "It has four strings", "A violin has four"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "kwargs", "good", "bad"), RULES)
def test_an_instruction_is_followed_or_broken(name: str, kwargs: dict[str, Any], good: str, bad: str) -> None:
    assert follows(good, name, kwargs)
    assert not follows(bad, name, kwargs)
    assert not follows("", name, kwargs)
    assert not follows(" \n ", name, kwargs)


def test_every_instruction_has_a_test_and_ifeval_is_whole() -> None:
    assert {name for name, *_ in RULES} == set(INSTRUCTIONS)
    ours = [name for name in INSTRUCTIONS if name.startswith("counterintuitive:")]
    assert (len(INSTRUCTIONS), len(ours)) == (62, 8)


@pytest.mark.parametrize(
    "text",
    [
        "." * 80_000 + "x", "[" * 80_000, "<" * 80_000, "*" * 80_000, "a" + "!" * 80_000 + "b", " " * 80_000 + "x",
        "P. " * 30_000, "a-" * 40_000, '"' * 80_000, "Section " * 10_000, "1. " * 30_000,
    ],
)  # fmt: skip
def test_hostile_answers_take_linear_time(text: str) -> None:
    # Quadratic checks would take minutes here, past the time limit of a test.
    for name, kwargs, *_ in RULES:
        follows(text, name, kwargs)


def test_binary_asks_for_all_and_fraction_pays_the_share() -> None:
    ids, kwargs = ["punctuation:no_comma", "keywords:existence"], [None, {"keywords": ["rain"], "frequency": None}]
    judge = InstructionFollowing()
    whole = asyncio.run(judge("sun", instruction_id_list=ids, kwargs=kwargs))
    part = asyncio.run(judge("sun", instruction_id_list=ids, kwargs=kwargs, grading_mode="fraction", prompt="?"))
    assert (whole.reward, part.reward) == (0.0, 0.5)
    assert whole.reason == part.reason == "not followed: keywords:existence"
    assert part.metrics == {"follow_all_instructions": False, "followed_share": 0.5}


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("keywords:existance", {}, "Did you mean 'keywords:existence'"),
        ("keywords:existence", {}, "'keywords' is missing"),
        ("keywords:existence", {"keywords": []}, "'keywords' is"),
        ("keywords:existence", {"keyword": "a"}, "there is no 'keyword'. Did you mean 'keywords'"),
        ("length_constraints:number_words", {"num_words": 3, "relation": "more"}, "'relation' is 'more'"),
        ("length_constraints:number_words", {"num_words": -1, "relation": "at least"}, "'num_words' is -1"),
        ("counterintuitive:opposite", {"expected_answer": "maybe"}, "'expected_answer' is 'maybe'"),
    ],
)
def test_an_unknown_id_and_wrong_kwargs_are_errors(name: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        follows("text", name, kwargs)
    assert message in str(error.value)


def test_there_is_one_kwargs_for_each_instruction() -> None:
    with pytest.raises(InputError, match="2 instructions and 1 kwargs"):
        InstructionFollowing().judge("a", ["punctuation:no_comma"] * 2, [{}])
    with pytest.raises(InputError, match="at least one instruction"):
        InstructionFollowing().judge("a", [], [])


def test_languages_are_told_apart_whatever_the_case() -> None:
    texts = (ENGLISH.upper(), "Je ne sais pas où il est.", "これは本です。", "12 + 3")
    assert [language_of(text) for text in texts] == ["en", "fr", "ja", None]
    with pytest.raises(InputError, match="The language is 'klingon'"):
        follows("text", "language:response_language", {"language": "klingon"})
    assert follows("这是一本书。", "language:response_language", {"language": "zh-cn"})


def test_sentences_end_where_a_reader_ends_them() -> None:
    assert sentences("Dr. Roe came at 5.30. He left!") == ["Dr. Roe came at 5.30.", "He left!"]
    assert sentences("1. One thing.\n2. Two things.") == ["1. One thing.", "2. Two things."]
    assert sentences('He said "yes." See J. Smith... Then? No.') == [
        'He said "yes."',
        "See J. Smith...",
        "Then?",
        "No.",
    ]
    assert sentences("One line\nno end") == ["One line\nno end"]
    assert sentences("?! ***") == []
    assert words("It's a well-known fact.") == ["It's", "a", "well-known", "fact"]
    assert (bare('"Well,"'), bare("!!")) == ("well", "")
