"""Problems that a program answers in a blink and a person does not: each is a function, and the words that ask for it.

The function's own source, with a call of it, is the gold policy's code.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from random import Random
from typing import NamedTuple

Number = int | float


class Problem(NamedTuple):
    question: str
    code: str
    """A program whose last line is the answer."""
    answer: Number


def make_problem(rng: Random) -> Problem:
    """Draw one of the families and its numbers."""
    function, template, draw = rng.choice(_FAMILIES)
    numbers = draw(rng)
    code = f"{inspect.getsource(function)}\n{function.__name__}({', '.join(map(repr, numbers))})"
    return Problem(template.format(*numbers), code, function(*numbers))


def power_sum(n: int, modulus: int) -> int:
    return sum(pow(k, k, modulus) for k in range(1, n + 1)) % modulus


def recurrence(a: int, b: int, c: int, index: int, modulus: int) -> int:
    x, y = 1, c
    for _ in range(index - 1):
        x, y = y, (a * y + b * x) % modulus
    return y


def primes(limit: int, modulus: int, rest: int) -> int:
    sieve = bytearray([1]) * (limit + 1)
    sieve[:2] = b"\0\0"
    for number in range(2, int(limit**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, limit + 1, number)))
    return sum(sieve[rest::modulus])


def ways_to_pay(amount: int, one: int, two: int, three: int) -> int:
    ways = [1] + [0] * amount
    for coin in (1, one, two, three):
        for total in range(coin, amount + 1):
            ways[total] += ways[total - coin]
    return ways[amount]


def digit_sums(limit: int, divisor: int, multiple: int) -> int:
    return sum(sum(map(int, str(number))) % divisor == 0 for number in range(multiple, limit + 1, multiple))


def longest_collatz(low: int, high: int) -> int:
    best, longest = low, -1
    for start in range(low, high + 1):
        number, steps = start, 0
        while number != 1:
            number = 3 * number + 1 if number % 2 else number // 2
            steps += 1
        if steps > longest:
            best, longest = start, steps
    return best


def cubic_root(a: int, b: int) -> float:
    low, high = 0.0, float(b)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if middle**3 + a * middle < b else (low, middle)
    return low


def paths(width: int, height: int, x: int, y: int) -> int:
    counts = [[0] * (width + 1) for _ in range(height + 1)]
    for row in range(height + 1):
        for column in range(width + 1):
            if (column, row) == (0, 0):
                counts[row][column] = 1
            elif (column, row) != (x, y):
                above = counts[row - 1][column] if row else 0
                left = counts[row][column - 1] if column else 0
                counts[row][column] = above + left
    return counts[height][width]


_FAMILIES: list[tuple[Callable[..., Number], str, Callable[[Random], tuple[int, ...]]]] = [
    (
        power_sum,
        "What is the remainder of 1^1 + 2^2 + 3^3 + ... + {0}^{0} when it is divided by {1}?",
        lambda rng: (rng.randint(200, 2000), rng.randint(1000, 99999)),
    ),
    (
        recurrence,
        "A sequence begins with a(0) = 1 and a(1) = {2}, and a(n) = {0} a(n-1) + {1} a(n-2). What is the remainder of "
        "a({3}) when it is divided by {4}?",
        lambda rng: (
            rng.randint(2, 9), rng.randint(2, 9), rng.randint(2, 9), rng.randint(500, 5000), rng.randint(1000, 99999)
        ),
    ),
    (
        primes,
        "How many primes up to {0} leave the remainder {2} when they are divided by {1}?",
        lambda rng: (rng.randint(1000, 40000), *rng.choice([(4, 1), (4, 3), (6, 5), (8, 3), (10, 7), (12, 5), (5, 2)])),
    ),
    (
        ways_to_pay,
        "In how many ways can an amount of {0} be paid with coins of 1, {1}, {2} and {3}? The order does not count.",
        lambda rng: (rng.randint(100, 900), rng.randint(2, 6), rng.randint(7, 15), rng.randint(16, 60)),
    ),
    (
        digit_sums,
        "How many multiples of {2} from {2} to {0} have a digit sum that is divisible by {1}?",
        lambda rng: (rng.randint(2000, 40000), rng.randint(4, 13), rng.randint(2, 9)),
    ),
    (
        longest_collatz,
        "Halve an even number; of an odd number take three times it and one more; go on until 1. Which start from "
        "{0} to {1} takes the most steps? If several do, give the smallest.",
        lambda rng: (start := rng.randint(1000, 9000), start + rng.randint(200, 900)),
    ),
    (
        cubic_root,
        "What is the real solution of x^3 + {0} x = {1}? Give at least eight significant digits.",
        lambda rng: (rng.randint(2, 400), rng.randint(1000, 99999)),
    ),
    (
        paths,
        "How many ways lead from (0, 0) to ({0}, {1}) in steps of 1 to the right or up that do not go through "
        "({2}, {3})?",
        lambda rng: (
            width := rng.randint(8, 24), height := rng.randint(8, 24),
            rng.randint(1, width - 1), rng.randint(1, height - 1),
        ),
    ),
]  # fmt: skip
