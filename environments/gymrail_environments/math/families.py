"""Procedural problems: each family makes a question and its answer, as LaTeX, from a source of chance and a level.

Every answer is one number, a fraction or a multiple of pi, never 0.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from random import Random

Problem = tuple[str, str]
LEVELS = range(1, 6)

_NAMES = ("Ada", "Bo", "Chen", "Dara", "Emil", "Farah", "Gita", "Hugo", "Ines", "Jon")
_GOODS = ("apples", "books", "candles", "lamps", "pens", "pots", "stamps", "tickets")
_WORDS = ("LETTER", "BANANA", "COFFEE", "BALLOON", "SUMMER", "PEPPER", "TOMATO", "MAMMAL", "SUCCESS", "COMMITTEE")


def _size(rng: Random, level: int, low: int = 2) -> int:
    """A number that grows with the level: up to 12, 40, 130, 400, 1300."""
    return rng.randint(low, int(4 * 3.2**level) + low)


def _latex(value: Fraction | int) -> str:
    value = Fraction(value)
    if value.denominator == 1:
        return str(value.numerator)
    return f"{'-' if value < 0 else ''}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def _sum(*terms: tuple[int, str]) -> str:
    """Write a polynomial: 2x^2 - x + 3."""
    text = ""
    for factor, power in terms:
        size = "" if abs(factor) == 1 and power else str(abs(factor))
        text += f" {'-' if factor < 0 else '+'} {size}{power}" if factor else ""
    return f"-{text[3:]}" if text.startswith(" -") else text[3:]


def _x(power: int) -> str:
    return "x" if power == 1 else f"x^{power}"


def sums(rng: Random, level: int) -> Problem:
    numbers = [_size(rng, level) for _ in range(level + 1)]
    signs = ["+" if rng.random() < 0.6 else "-" for _ in numbers[1:]]
    text = str(numbers[0]) + "".join(f" {sign} {number}" for sign, number in zip(signs, numbers[1:], strict=True))
    value = numbers[0] + sum(
        number if sign == "+" else -number for sign, number in zip(signs, numbers[1:], strict=True)
    )
    return f"What is {text}?", str(value)


def products(rng: Random, level: int) -> Problem:
    a, b, c = (_size(rng, level) for _ in range(3))
    return (f"What is {a} * {b}?", str(a * b)) if level < 3 else (f"What is {a} * {b} - {c}?", str(a * b - c))


def remainders(rng: Random, level: int) -> Problem:
    divisor = _size(rng, level, 3)
    rest = rng.randint(1, divisor - 1)
    number = divisor * _size(rng, level) + rest
    return f"What is the remainder when {number} is divided by {divisor}?", str(rest)


def fractions(rng: Random, level: int) -> Problem:
    one, other = (Fraction(_size(rng, level, 1), rng.randint(2, 5 + 3 * level)) for _ in range(2))
    sign = rng.choice("+-*")
    value = {"+": one + other, "-": one - other, "*": one * other}[sign]
    return f"What is {_latex(one)} {sign} {_latex(other)}? Give a fraction in lowest terms.", _latex(value)


def percentages(rng: Random, level: int) -> Problem:
    rate, price = rng.choice(range(5, 96, 5)), 20 * _size(rng, level)
    return f"A price of {price} coins falls by {rate}%. How many coins is it now?", str(price * (100 - rate) // 100)


def linear_equations(rng: Random, level: int) -> Problem:
    a, b = rng.randint(2, 3 + 4 * level), _size(rng, level)
    x = rng.choice((-1, 1)) * _size(rng, level, 1) if level > 1 else _size(rng, level, 1)
    return f"Solve {_sum((a, 'x'), (b, ''))} = {a * x + b} for x.", str(x)


def linear_systems(rng: Random, level: int) -> Problem:
    x, y = (_size(rng, level, 1) for _ in range(2))
    while True:
        a, b, c, d = (rng.randint(1, 2 + 2 * level) for _ in range(4))
        if a * d != b * c:
            break
    one, other = (_sum((left, "x"), (right, "y")) for left, right in ((a, b), (c, d)))
    return f"If {one} = {a * x + b * y} and {other} = {c * x + d * y}, what is x + y?", str(x + y)


def quadratics(rng: Random, level: int) -> Problem:
    small, large = sorted(rng.sample([n for n in range(-4 * level, 4 * level + 5) if n], 2))
    b, c = -(small + large), small * large
    return f"What is the larger root of {_sum((1, 'x^2'), (b, 'x'), (c, ''))} = 0?", str(large)


def coefficients(rng: Random, level: int) -> Problem:
    n, a, k = level + 2, rng.randint(1, 2 * level), rng.randint(1, level + 1)
    return f"What is the coefficient of {_x(k)} in the expansion of (x + {a})^{n}?", str(math.comb(n, k) * a ** (n - k))


def arithmetic_series(rng: Random, level: int) -> Problem:
    first, step, count = _size(rng, level), rng.randint(2, 4 * level), rng.randint(5, 10 * level)
    text = f"{first}, {first + step}, {first + 2 * step}, ..."
    total = count * (2 * first + (count - 1) * step) // 2
    return f"What is the sum of the first {count} terms of the arithmetic sequence {text}?", str(total)


def common_divisors(rng: Random, level: int) -> Problem:
    shared, one, other = rng.randint(2, 6 * level), _size(rng, level), _size(rng, level)
    a, b = shared * one, shared * other
    if rng.random() < 0.5:
        return f"What is the greatest common divisor of {a} and {b}?", str(math.gcd(a, b))
    return f"What is the least common multiple of {a} and {b}?", str(math.lcm(a, b))


def modular_powers(rng: Random, level: int) -> Problem:
    while True:
        base, exponent, modulus = rng.randint(2, 9), rng.randint(3, 8 * level), rng.randint(5, 6 + 6 * level)
        if rest := pow(base, exponent, modulus):
            return f"What is the remainder when {base}^{{{exponent}}} is divided by {modulus}?", str(rest)


def divisor_counts(rng: Random, level: int) -> Problem:
    number = math.prod(prime ** rng.randint(0, 1 + level // 2) for prime in (2, 3, 5, 7)[: level + 1]) * _size(rng, 1)
    return f"How many positive divisors does {number} have?", str(_divisors(number))


def bases(rng: Random, level: int) -> Problem:
    base, number = rng.randint(2, 9), _size(rng, level, 10)
    digits, rest = "", number
    while rest:
        digits, rest = str(rest % base) + digits, rest // base
    return f"The number {digits} is written in base {base}. What is it in base ten?", str(number)


def rectangles(rng: Random, level: int) -> Problem:
    a, b = _size(rng, level, 3), _size(rng, level, 3)
    return f"A rectangle has the area {a * b} and one side of length {a}. What is its perimeter?", str(2 * (a + b))


def triangles(rng: Random, level: int) -> Problem:
    most = 3 + 3 * level
    while True:
        (a, b), (c, d), (e, f) = ((rng.randint(-most, most), rng.randint(-most, most)) for _ in range(3))
        if double := abs((c - a) * (f - b) - (e - a) * (d - b)):
            text = f"({a}, {b}), ({c}, {d}) and ({e}, {f})"
            return f"What is the area of the triangle with the corners {text}?", _latex(Fraction(double, 2))


def hypotenuses(rng: Random, level: int) -> Problem:
    n = rng.randint(1, 1 + level)
    m, k = n + rng.randint(1, 1 + level), rng.randint(1, 3 * level)
    legs = f"{k * (m * m - n * n)} and {k * 2 * m * n}"
    return f"A right triangle has legs of length {legs}. How long is its hypotenuse?", str(k * (m * m + n * n))


def circles(rng: Random, level: int) -> Problem:
    r = _size(rng, level)
    if rng.random() < 0.5:
        return f"What is the area of a circle with diameter {2 * r}? Give a multiple of pi.", f"{r * r}\\pi"
    return f"What is the circumference of a circle with radius {r}? Give a multiple of pi.", f"{2 * r}\\pi"


def urns(rng: Random, level: int) -> Problem:
    red, blue, drawn = (
        rng.randint(2, 3 + 2 * level),
        rng.randint(2, 3 + 2 * level),
        rng.randint(1, 1 + (level + 1) // 2),
    )
    drawn = min(drawn, red)
    chance = Fraction(math.comb(red, drawn), math.comb(red + blue, drawn))
    what = "it is red" if drawn == 1 else "all are red"
    balls = "one ball is" if drawn == 1 else f"{drawn} balls are"
    text = f"A bag holds {red} red and {blue} blue balls, and {balls} drawn without putting any back."
    return f"{text} What is the probability that {what}? Give a fraction in lowest terms.", _latex(chance)


def dice(rng: Random, level: int) -> Problem:
    count, sides = (2, rng.randint(4, 12)) if level < 3 else (3, rng.randint(4, 8))
    total = rng.randint(count, count * sides)
    ways = sum(sum(thrown) == total for thrown in product(range(1, sides + 1), repeat=count))
    text = f"{count} fair dice with the sides 1 to {sides} are thrown. What is the probability of the sum {total}?"
    return f"{text} Give a fraction in lowest terms.", _latex(Fraction(ways, sides**count))


def committees(rng: Random, level: int) -> Problem:
    people, seats = rng.randint(5, 7 + 2 * level), rng.randint(2, 2 + level // 2 + 1)
    text = f"In how many ways can {seats} of {people} people be chosen for a committee"
    if level > 2:
        return f"{text} that has one of its members as chair?", str(math.comb(people, seats) * seats)
    return f"{text}?", str(math.comb(people, seats))


def arrangements(rng: Random, level: int) -> Problem:
    word = "".join(rng.sample(rng.choice(_WORDS), 5 if level < 4 else 6)) if level > 1 else rng.choice(_WORDS)[:4]
    ways = math.factorial(len(word)) // math.prod(math.factorial(count) for count in Counter(word).values())
    return f"In how many different orders can the letters of {word} be written?", str(ways)


def purchases(rng: Random, level: int) -> Problem:
    name, (one, other) = rng.choice(_NAMES), rng.sample(_GOODS, 2)
    a, b, p, q, more = (_size(rng, level) for _ in range(5))
    paid = a * p + b * q + more
    text = f"{name} buys {a} {one} for {p} coins each and {b} {other} for {q} coins each, and pays with {paid} coins."
    return f"{text} How many coins does {name} get back?", str(more)


def journeys(rng: Random, level: int) -> Problem:
    speed, other, hours = 5 * rng.randint(4, 20), 5 * rng.randint(4, 20), rng.randint(1, 2 + level)
    text = f"Two trains leave towns that are {(speed + other) * hours} km apart at the same time towards each other,"
    return f"{text} at {speed} and {other} km per hour. After how many hours do they meet?", str(hours)


def integrals(rng: Random, level: int) -> Problem:
    a, power, end = rng.randint(1, 3 * level), rng.randint(1, level), rng.randint(1, 3)
    value = Fraction(a * end ** (power + 1), power + 1)
    return f"What is the integral of {_sum((a, _x(power)))} from 0 to {end}?", _latex(value)


def derivatives(rng: Random, level: int) -> Problem:
    a, b, power, x = rng.randint(1, 3 * level), _size(rng, level), rng.randint(2, level + 1), rng.randint(1, 3)
    return f"What is the derivative of {_sum((a, _x(power)), (b, 'x'))} at x = {x}?", str(
        a * power * x ** (power - 1) + b
    )


def _divisors(number: int) -> int:
    root = math.isqrt(number)
    return 2 * sum(number % divisor == 0 for divisor in range(1, root + 1)) - (root * root == number)


TOPICS: dict[str, tuple[Callable[[Random, int], Problem], ...]] = {
    "arithmetic": (sums, products, remainders, fractions, percentages),
    "algebra": (linear_equations, linear_systems, quadratics, coefficients, arithmetic_series),
    "number theory": (common_divisors, modular_powers, divisor_counts, bases),
    "geometry": (rectangles, triangles, hypotenuses, circles),
    "probability": (urns, dice),
    "combinatorics": (committees, arrangements),
    "word problems": (purchases, journeys),
    "calculus": (integrals, derivatives),
}
