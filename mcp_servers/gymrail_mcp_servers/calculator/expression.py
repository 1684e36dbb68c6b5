"""Arithmetic, evaluated without `eval`: numbers, operators, known functions; and nothing that grows without end.

    evaluate("2 * (3 + 4) ^ 2")       98
    evaluate("sqrt(2) + sin(pi / 6)")  1.9142135623730951

Covers: names, attributes, calls and literals of any other kind; powers, factorials and binomials of any size; deep
nesting; results that are not finite or not real.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

from gymrail import ToolError
from gymrail.errors import did_you_mean

Number = int | float
MAX_CHARACTERS = 1000
MAX_BITS = 10_000
"""Of a whole number: three thousand digits."""
_MAX_DEPTH = 60
_MAX_COUNT = 1000
"""Of what factorials and binomials are taken."""

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_CONSTANTS: dict[str, Number] = {"pi": math.pi, "e": math.e, "tau": math.tau}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(math, name)
    for name in (
        "acos", "asin", "atan", "atan2", "cbrt", "ceil", "cos", "cosh", "degrees", "exp", "floor", "gcd", "hypot",
        "lcm", "log", "log10", "log2", "radians", "sin", "sinh", "sqrt", "tan", "tanh", "trunc",
    )
} | {"abs": abs, "ln": math.log, "max": max, "min": min, "round": round}  # fmt: skip
_COUNTED: dict[str, Callable[..., int]] = {"factorial": math.factorial, "comb": math.comb, "perm": math.perm}


def evaluate(expression: str) -> Number:
    """Return the value of an expression.

    Raises:
        ToolError: it is no arithmetic, has no finite real value, or one that is too large.
    """
    if len(expression) > MAX_CHARACTERS:
        raise ToolError(f"An expression has at most {MAX_CHARACTERS} characters; this one has {len(expression)}.")
    try:
        # Calculators write a power as ^; as ** it has the rank of a power too.
        text = expression.replace("^", "**").replace("\u2212", "-").replace("\u00d7", "*").strip()
        tree = ast.parse(text, mode="eval")
        value = _bounded(_value(tree.body, 0))
    except (SyntaxError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "too deeply nested"
        raise ToolError(f"Not an expression: {reason}. Write arithmetic, such as 2 * (3 + 4) ^ 2.") from None
    except ZeroDivisionError:
        raise ToolError("Division by zero.") from None
    except OverflowError:
        raise ToolError("The result is too large.") from None
    except (ValueError, TypeError) as error:
        raise ToolError(f"Cannot be computed: {error}.") from None
    return value


def _value(node: ast.expr, depth: int) -> Number:
    if depth > _MAX_DEPTH:
        raise ToolError(f"Not an expression: nested more than {_MAX_DEPTH} times.")
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return _bounded(node.value)
    if isinstance(node, ast.Name):
        if node.id not in _CONSTANTS:
            raise ToolError(f"Unknown name {node.id!r}. {did_you_mean(node.id, _CONSTANTS)}")
        return _CONSTANTS[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        operand = _value(node.operand, depth + 1)
        return -operand if isinstance(node.op, ast.USub) else operand
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, depth + 1), _value(node.right, depth + 1)
        if isinstance(node.op, ast.Pow):
            return _power(left, right)
        if type(node.op) in _BINARY:
            return _bounded(_BINARY[type(node.op)](left, right))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _call(node.func.id, [_value(argument, depth + 1) for argument in node.args])
    raise ToolError(
        f"Not arithmetic: {type(node).__name__}. Use numbers, + - * / // % ^ and functions such as sqrt(2)."
    )


def _call(name: str, arguments: list[Number]) -> Number:
    if name in _COUNTED:
        if any(not isinstance(number, int) or abs(number) > _MAX_COUNT for number in arguments):
            raise ToolError(f"{name} takes whole numbers up to {_MAX_COUNT}.")
        return _bounded(_COUNTED[name](*arguments))
    if name not in _FUNCTIONS:
        raise ToolError(f"Unknown function {name!r}. {did_you_mean(name, [*_FUNCTIONS, *_COUNTED])}")
    return _bounded(_FUNCTIONS[name](*arguments))


def _power(base: Number, exponent: Number) -> Number:
    is_whole = isinstance(base, int) and isinstance(exponent, int) and abs(base) > 1
    if is_whole and abs(exponent) * int(base).bit_length() > MAX_BITS:
        raise ToolError("The result is too large.")
    return _bounded(base**exponent)


def _bounded(value: Any) -> Number:
    if type(value) not in (int, float):
        raise ToolError("The result is no real number.")
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ToolError("The result is too large.")
    if isinstance(value, float) and not math.isfinite(value):
        raise ToolError("The result is too large, or not defined.")
    return value
