"""The 29 further instructions of the public training sets (Open Instruct's IF-RLVR, NeMo Gym's
`instruction_following`): ids and kwargs as published. Where the published checks stray from what their instruction
says, these do what it says; docs/differences.md lists it."""

from __future__ import annotations

import itertools
import re

from gymrail.verifiers.instructions.ifeval import occurrences
from gymrail.verifiers.instructions.registry import Count, Relation, Word, compares, instruction, pattern_of
from gymrail.verifiers.instructions.text import bare, divided, paragraphs, sentences, words

_DIVIDER = "******"


@instruction("paragraphs:paragraphs")
def two_divided(text: str) -> bool:
    parts = divided(text)
    return parts is not None and len(parts) == 2


@instruction("paragraphs:paragraphs2")
def two_paragraphs(text: str) -> bool:
    parts = paragraphs(text)
    return parts is not None and len(parts) == 2


@instruction("first_word:first_word_sent")
def first_word_of_sentences(text: str, *, first_word: Word) -> bool:
    found = sentences(text)
    return bool(found) and all(bare(sentence.split()[0]) == bare(first_word) for sentence in found)


@instruction("first_word:first_word_answer")
def first_word(text: str, *, first_word: Word) -> bool:
    return bare(text.split()[0]) == bare(first_word)


@instruction("last_word:last_word_sent")
def last_word_of_sentences(text: str, *, last_word: Word) -> bool:
    found = sentences(text)
    return bool(found) and all(bare(sentence.split()[-1]) == bare(last_word) for sentence in found)


@instruction("last_word:last_word_answer")
def last_word(text: str, *, last_word: Word) -> bool:
    return bare(text.split()[-1]) == bare(last_word)


@instruction("copy:copy", "copy:copying_simple")
def copied(text: str, *, prompt_to_repeat: Word) -> bool:
    return _is_same(text, prompt_to_repeat)


@instruction("copy:copying_multiple")
def copied_often(text: str, *, prompt_to_repeat: Word, N: Count) -> bool:
    parts = text.split(_DIVIDER)
    return len(parts) == N and all(_is_same(part, prompt_to_repeat) for part in parts)


@instruction("new:copy_span_idx")
def copied_span(text: str, *, prompt_to_repeat: Word, n_start: Count, n_end: Count) -> bool:
    # The instruction says "including" its end, and the published check leaves it out: both are right.
    return any(_is_same(text, prompt_to_repeat[n_start:end]) for end in (n_end, n_end + 1))


@instruction("copy:repeat_phrase")
def repeated_phrase(text: str, *, phrase: Word, small_n: Count) -> bool:
    wanted = [bare(word) for word in phrase.split()]
    said = [bare(word) for word in text.split()]
    size = len(wanted)
    changed = 0
    for start in range(len(said) - size + 1):
        if said[start] != wanted[0] or said[start + size - 1] != wanted[-1]:
            continue
        changed += sum(one != two for one, two in zip(said[start : start + size], wanted, strict=True)) == 1
    return changed == small_n


@instruction("detectable_format:sentence_hyphens")
def joined_by_hyphens(text: str) -> bool:
    return len(sentences(text)) == 1


@instruction("detectable_format:square_brackets")
def in_square_brackets(text: str) -> bool:
    return all(word.startswith("[") and word.endswith("]") for word in text.split())


@instruction("detectable_format:bigram_wrapping")
def wrapped_bigrams(text: str) -> bool:
    found = text.split()
    pairs = zip(found[::2], found[1::2], strict=False)
    return len(found) > 1 and all(one.startswith("<<") and two.endswith(">>") for one, two in pairs)


@instruction("keywords:no_adjacent_consecutive")
def no_consecutive_letters(text: str) -> bool:
    letters = [word[0] for word in map(bare, text.split()) if word]
    pairs = itertools.pairwise(letters)
    return not any("a" <= one < two <= "z" and ord(two) - ord(one) == 1 for one, two in pairs)


@instruction("keywords:word_once")
def word_once(text: str, *, keyword: Word) -> bool:
    return occurrences(text, keyword) == 1


@instruction("keywords:word_count_different_numbers")
def word_count(text: str, *, keyword: Word, frequency: Count, relation: Relation | None = None) -> bool:
    count = occurrences(text, keyword)
    return count == frequency if relation is None else compares(count, relation, frequency)


@instruction("count:count_increment_word")
def one_and_two(text: str, *, keyword1: Word, keyword2: Word) -> bool:
    return occurrences(text, keyword1) == 1 and occurrences(text, keyword2) == 2


@instruction("keywords:exclude_word_harder")
def excluded_word(text: str, *, keyword: Word, instruction: str | None = None) -> bool:
    return pattern_of(keyword).search(text) is None


@instruction("keywords:palindrome")
def palindrome(text: str) -> bool:
    return any(len(word) > 1 and word == word[::-1] for word in map(bare, text.split()))


@instruction("keywords:keyword_specific_position")
def keyword_at(text: str, *, keyword: Word, n: Count, m: Count) -> bool:
    found = sentences(text)
    if not 1 <= n <= len(found):
        return False
    said = words(found[n - 1])
    return 1 <= m <= len(said) and said[m - 1].casefold() == keyword.strip().casefold()


@instruction("keywords:start_end")
def same_ends(text: str) -> bool:
    found = words(text)
    return len(found) > 1 and found[0].casefold() == found[-1].casefold() and text.strip().endswith(found[-1])


@instruction("punctuation:punctuation_dot")
def no_dot(text: str) -> bool:
    return "." not in text


@instruction("punctuation:punctuation_exclamation")
def no_exclamation(text: str) -> bool:
    return "!" not in text


@instruction("count:lowercase_counting")
def few_lowercase(text: str, *, N: Count) -> bool:
    return len(re.findall(r"\b[a-z]+\b", text)) <= N


@instruction("letters:letter_counting")
def letter_count(text: str, *, N: Count, relation: Relation) -> bool:
    return compares(len(re.findall(r"[a-zA-Z]", text)), relation, N)


@instruction("count:counting_composition")
def composition(text: str, *, n_sent: Count, n_words: Count) -> bool:
    parts = divided(text)
    if parts is None or len(parts) != 3:
        return False
    counted = [[len(words(sentence)) for sentence in sentences(part)] for part in parts]
    return all(counts == [n_words] * n_sent for counts in counted)


@instruction("count:count_unique")
def unique_words(text: str) -> bool:
    found = [word.casefold() for word in words(text)]
    return len(found) == len(set(found))


def _is_same(text: str, wanted: str) -> bool:
    return text.strip().lower() == wanted.strip().lower()
