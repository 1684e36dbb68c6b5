"""The 25 instructions of IFEval (Zhou et al., 2023, "Instruction-Following Evaluation for Large Language Models"): ids,
kwargs and rules as published. Keywords are text here, not regular expressions."""

from __future__ import annotations

import json
import re

from gymrail.verifiers.instructions.language import language_code, language_of
from gymrail.verifiers.instructions.registry import Count, Relation, Word, Words, compares, instruction, pattern_of
from gymrail.verifiers.instructions.text import divided, sentences

OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
"""What `detectable_format:constrained_response` lets one choose from."""
_QUOTES = "\"'"


@instruction("keywords:existence")
def existence(text: str, *, keywords: Words) -> bool:
    lowered = text.lower()
    return all(keyword.lower() in lowered for keyword in keywords)


@instruction("keywords:frequency")
def frequency(text: str, *, keyword: Word, frequency: Count, relation: Relation) -> bool:
    return compares(occurrences(text, keyword), relation, frequency)


@instruction("keywords:forbidden_words")
def forbidden_words(text: str, *, forbidden_words: Words) -> bool:
    return not any(pattern_of(word).search(text) for word in forbidden_words)


@instruction("keywords:letter_frequency", "letters:letter_counting2")
def letter_frequency(text: str, *, letter: Word, let_frequency: Count, let_relation: Relation) -> bool:
    return compares(text.lower().count(letter.strip().lower()), let_relation, let_frequency)


@instruction("language:response_language")
def response_language(text: str, *, language: Word) -> bool:
    return language_of(text) == language_code(language)


@instruction("length_constraints:number_sentences")
def number_sentences(text: str, *, num_sentences: Count, relation: Relation) -> bool:
    return compares(len(sentences(text)), relation, num_sentences)


@instruction("length_constraints:number_paragraphs")
def number_paragraphs(text: str, *, num_paragraphs: Count) -> bool:
    parts = divided(text)
    return parts is not None and len(parts) == num_paragraphs


@instruction("length_constraints:number_words")
def number_words(text: str, *, num_words: Count, relation: Relation) -> bool:
    return compares(len(re.findall(r"\w+", text)), relation, num_words)


@instruction("length_constraints:nth_paragraph_first_word")
def nth_paragraph_first_word(text: str, *, num_paragraphs: Count, nth_paragraph: Count, first_word: Word) -> bool:
    parts = [part.strip() for part in text.split("\n\n")]
    count = sum(bool(part) for part in parts)
    if count != num_paragraphs or not 1 <= nth_paragraph <= count or not parts[nth_paragraph - 1]:
        return False
    first = parts[nth_paragraph - 1].split()[0].lstrip(_QUOTES).lower()
    return re.split(r"[.,?!'\"]", first, maxsplit=1)[0] == first_word.lower()


@instruction("detectable_content:number_placeholders")
def number_placeholders(text: str, *, num_placeholders: Count) -> bool:
    return len(re.findall(r"\[[^\[\]\n]*\]", text)) >= num_placeholders


@instruction("detectable_content:postscript")
def postscript(text: str, *, postscript_marker: Word) -> bool:
    marker = postscript_marker.strip()
    patterns = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return re.search(patterns.get(marker, re.escape(marker.lower())), text.lower()) is not None


@instruction("detectable_format:number_bullet_lists")
def number_bullet_lists(text: str, *, num_bullets: Count) -> bool:
    return sum(map(_is_bullet, text.split("\n"))) == num_bullets


def _is_bullet(line: str) -> bool:
    line = line.strip()
    if line.startswith("-"):
        return bool(line.strip("- "))  # a line of dashes divides
    return line.startswith("*") and not line.startswith("**") and len(line) > 1


@instruction("detectable_format:constrained_response")
def constrained_response(text: str) -> bool:
    return sum(option in text for option in OPTIONS) == 1


@instruction("detectable_format:number_highlighted_sections")
def number_highlighted_sections(text: str, *, num_highlights: Count) -> bool:
    once = re.findall(r"\*[^\n*]*\*", text)
    twice = re.findall(r"\*\*[^\n*]*\*\*", text)
    return sum(bool(part.strip("*").strip()) for part in [*once, *twice]) >= num_highlights


@instruction("detectable_format:multiple_sections")
def multiple_sections(text: str, *, section_spliter: Word, num_sections: Count) -> bool:
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", text)) >= num_sections


@instruction("detectable_format:json_format")
def json_format(text: str) -> bool:
    inside = text.strip()
    for opening in ("```json", "```Json", "```JSON", "```"):
        inside = inside.removeprefix(opening)
    try:
        json.loads(inside.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


@instruction("detectable_format:title")
def title(text: str) -> bool:
    return any(map(_has_title, text.split("\n")))


def _has_title(line: str) -> bool:
    start, end = line.find("<<"), line.rfind(">>")
    return 0 <= start < end - 2 and bool(line[start : end + 2].lstrip("<").rstrip(">").strip())


@instruction("combination:two_responses")
def two_responses(text: str) -> bool:
    parts = [part.strip() for part in text.split("******")]
    answers = [part for part in parts if part]
    return all(parts[1:-1]) and len(answers) == 2 and answers[0] != answers[1]


@instruction("combination:repeat_prompt")
def repeat_prompt(text: str, *, prompt_to_repeat: Word) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


@instruction("startend:end_checker")
def end_checker(text: str, *, end_phrase: Word) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


@instruction("startend:quotation")
def quotation(text: str) -> bool:
    text = text.strip()
    return len(text) > 1 and text.startswith('"') and text.endswith('"')


@instruction("change_case:capital_word_frequency")
def capital_word_frequency(text: str, *, capital_frequency: Count, capital_relation: Relation) -> bool:
    found = re.findall(r"\w+(?:-\w+)*", text)
    return compares(sum(word.isupper() for word in found), capital_relation, capital_frequency)


@instruction("change_case:english_capital")
def english_capital(text: str) -> bool:
    return text.isupper() and language_of(text) == "en"


@instruction("change_case:english_lowercase")
def english_lowercase(text: str) -> bool:
    return text.islower() and language_of(text) == "en"


@instruction("punctuation:no_comma")
def no_comma(text: str) -> bool:
    return "," not in text


def occurrences(text: str, keyword: str) -> int:
    """Count a keyword in a text, inside of longer words too, as IFEval does."""
    return text.lower().count(keyword.strip().lower())
