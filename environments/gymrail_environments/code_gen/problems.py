"""Small programming problems: each is a function, the words that ask for it, and a way to draw its arguments.

The first parameters of a function are the problem's constants, drawn once per task and told in words; the last ones are
the arguments of each test. The function's own source is the reference solution.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple


class Problem(NamedTuple):
    statement: str
    solution: str
    unit_tests: dict[str, Any]


class Family(NamedTuple):
    solve: Callable[..., Any]
    words: str
    """What is asked, with the constants in braces."""
    constants: Callable[[Random], tuple[int, ...]]
    arguments: Callable[[Random], tuple[Any, ...]]
    reads: str
    """How the input is laid out: L a line of whole numbers, N one number, S a line of text."""


_READERS = {"L": "list(map(int, input().split()))", "N": "int(input())", "S": "input()"}
_LAID_OUT = {"L": "a line of whole numbers", "N": "a line with one whole number", "S": "a line of text"}
_TYPES = {"L": "a list of whole numbers", "N": "a whole number", "S": "a text"}
_TESTS = 5


def make_problem(rng: Random) -> Problem:
    """Draw a family, its constants, its tests, and whether the program is a function or reads its input."""
    family = rng.choice(_FAMILIES)
    constants = family.constants(rng)
    cases: list[tuple[tuple[Any, ...], Any]] = []
    while len({json.dumps(result) for _, result in cases}) < 3:  # nobody passes by one answer for all
        drawn = [family.arguments(rng) for _ in range(_TESTS)]
        cases = [(arguments, family.solve(*constants, *arguments)) for arguments in drawn]
    name = family.solve.__name__
    source = inspect.getsource(family.solve)
    given = "".join(f"{constant}, " for constant in constants)
    if rng.random() < 0.5:
        wrapper = f"def answer(*arguments):\n    return {name}({given}*arguments)\n"
        tests = {
            "inputs": ["\n".join(map(json.dumps, arguments)) for arguments, _ in cases],
            "outputs": [json.dumps(result) for _, result in cases],
            "fn_name": "answer",
        }
        takes = " and ".join(_TYPES[kind] for kind in family.reads)
        form = f"Write a Python function `answer` that takes {takes} and returns the result."
    else:
        readers = ", ".join(_READERS[kind] for kind in family.reads)
        wrapper = f"result = {name}({given}{readers})\nprint(*result if isinstance(result, list) else [result])\n"
        tests = {
            "inputs": ["\n".join(map(_line, arguments)) + "\n" for arguments, _ in cases],
            "outputs": [_line(result) + "\n" for _, result in cases],
        }
        laid_out = ", then ".join(_LAID_OUT[kind] for kind in family.reads)
        form = f"Write a Python program. It reads {laid_out}; it prints the result, numbers of a list apart by blanks."
    example = f"Example:\nInput\n{tests['inputs'][0].rstrip()}\nOutput\n{tests['outputs'][0].rstrip()}"
    statement = f"{family.words.format(*constants)}\n\n{form}\n\n{example}"
    return Problem(statement, f"{source}\n\n{wrapper}", tests)


def _line(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)


def best_window(size: int, numbers: list[int]) -> int:
    return max(sum(numbers[start : start + size]) for start in range(max(1, len(numbers) - size + 1)))


def divisible_pairs(divisor: int, numbers: list[int]) -> int:
    rests = [number % divisor for number in numbers]
    return sum((one + two) % divisor == 0 for index, one in enumerate(rests) for two in rests[:index])


def calm_stretch(step: int, numbers: list[int]) -> int:
    best = length = 1
    for index in range(1, len(numbers)):
        length = length + 1 if abs(numbers[index] - numbers[index - 1]) <= step else 1
        best = max(best, length)
    return best


def shift_letters(shift: int, text: str) -> str:
    letters = [chr((ord(sign) - 97 + shift) % 26 + 97) if "a" <= sign <= "z" else sign for sign in text]
    return "".join(letters)


def digit_product(base: int, number: int) -> int:
    product = 1
    while number:
        number, digit = divmod(number, base)
        product *= digit or 1
    return product


def last_one_standing(step: int, count: int) -> int:
    place = 0
    for size in range(2, count + 1):
        place = (place + step) % size
    return place + 1


def ways_to_climb(one: int, two: int, height: int) -> int:
    ways = [1] + [0] * height
    for step in range(1, height + 1):
        ways[step] = sum(ways[step - stride] for stride in (1, one, two) if stride <= step)
    return ways[height]


def pack_runs(least: int, text: str) -> str:
    packed, index = "", 0
    while index < len(text):
        end = index
        while end < len(text) and text[end] == text[index]:
            end += 1
        packed += f"{text[index]}{end - index}" if end - index >= least else text[index:end]
        index = end
    return packed


def sort_by_rest(divisor: int, numbers: list[int]) -> list[int]:
    return sorted(numbers, key=lambda number: (number % divisor, number))


def cap_changes(limit: int, numbers: list[int], start: int) -> int:
    level = start
    for number in numbers:
        level = max(0, min(limit, level + number))
    return level


def _numbers(low: int, high: int, shortest: int = 2) -> Callable[[Random], list[int]]:
    return lambda rng: [rng.randint(low, high) for _ in range(rng.randint(shortest, 30))]


def _text(signs: str, longest: int = 24) -> Callable[[Random], str]:
    return lambda rng: "".join(rng.choice(signs) for _ in range(rng.randint(1, longest))).strip() or signs[0]


_FAMILIES = (
    Family(best_window, "What is the greatest sum of {0} neighbours in a list? A shorter list is summed as a whole.",
           lambda rng: (rng.randint(2, 9),), lambda rng: (_numbers(-50, 50)(rng),), "L"),
    Family(divisible_pairs, "How many pairs of places in a list hold numbers whose sum is divisible by {0}?",
           lambda rng: (rng.randint(2, 17),), lambda rng: (_numbers(1, 200)(rng),), "L"),
    Family(calm_stretch, "How long is the longest stretch of a list in which neighbours differ by {0} at most?",
           lambda rng: (rng.randint(1, 40),), lambda rng: (_numbers(0, 60)(rng),), "L"),
    Family(shift_letters, "Move every letter from a to z of a text {0} places on in the alphabet, from z on to a. "
           "Everything else stays.",
           lambda rng: (rng.randint(2, 25),), lambda rng: (_text("abcxyzmno 7-Q")(rng),), "S"),
    Family(digit_product, "What is the product of the digits of a number written in base {0}, zeros left out?",
           lambda rng: (rng.randint(3, 36),), lambda rng: (rng.randint(1, 10**9),), "N"),
    Family(last_one_standing, "People stand in a circle, numbered from 1. Counting begins at 1; every one on whom {0} "
           "falls leaves, and counting begins again at the next. Who is left, given how many they are?",
           lambda rng: (rng.randint(2, 40),), lambda rng: (rng.randint(1, 400),), "N"),
    Family(ways_to_climb, "In how many ways can one climb a stair in strides of 1, {0} or {1} steps, given its steps? "
           "The order counts.",
           lambda rng: (rng.randint(2, 4), rng.randint(5, 9)), lambda rng: (rng.randint(1, 60),), "N"),
    Family(pack_runs, "Write every run of {0} or more equal signs of a text as the sign and the run's length. Shorter "
           "runs stay.", lambda rng: (rng.randint(2, 6),), lambda rng: (_text("aab", 30)(rng),), "S"),
    Family(sort_by_rest, "Sort a list by the remainder of division by {0}, and numbers of equal remainder by size.",
           lambda rng: (rng.randint(3, 29),), lambda rng: (_numbers(1, 300)(rng),), "L"),
    Family(cap_changes, "A tank holds {0} at most and 0 at least; what does not fit is lost. Given the changes and "
           "then the level at the beginning, what is the level in the end?",
           lambda rng: (rng.randint(20, 90),),
           lambda rng: (_numbers(-30, 30)(rng), rng.randint(0, 20)), "LN"),
)  # fmt: skip
