"""The process that runs the library's scorers: one JSON request a line, one JSON result a line.

The library hands what a model wrote to `eval` in four scorers and to sympy's `parse_expr`, which evaluates too, in
five; here the first read Python literals alone, and the second take arithmetic with known functions.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import io
import re
import resource
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from gymrail.errors import attempt, did_you_mean
from gymrail.verifiers.reasoning_gym.library import make_dataset

_EVALUATE = (
    "algorithmic.binary_matrix", "algorithmic.spiral_matrix", "algorithmic.string_insertion", "games.n_queens",
)  # fmt: skip
_PARSE = (
    "algebra.intermediate_integration", "algebra.polynomial_multiplication", "algebra.simple_integration",
    "games.countdown", "games.puzzle24",
)  # fmt: skip
_MEMORY_BYTES = 4 << 30
_NAME = re.compile(r"[^\W\d]\w*")
_ARITHMETIC = re.compile(r"[\w\s+\-*/^().,!=]*")
_ATTRIBUTE = re.compile(r"\.\s*[^\W\d]|__")
_FUNCTIONS = frozenset(
    {
        "Abs", "Ci", "Ei", "Float", "Integer", "Rational", "Si", "acos", "acosh", "acot", "acoth", "acsc", "asec",
        "asin", "asinh", "atan", "atan2", "atanh", "cos", "cosh", "cot", "coth", "csc", "csch", "erf", "erfi", "exp",
        "fresnelc", "fresnels", "li", "ln", "log", "pi", "sec", "sech", "sin", "sinc", "sinh", "sqrt", "tan", "tanh",
    }
)  # fmt: skip
_EXACT = frozenset({"game_of_life_halting"})
"""The library's scorer asks for the truth value of the text, and any text is true: graded by equality instead."""
_NO_FORMULA = re.compile(r"[a-z,;\n]")
"""What no formula of propositional_logic holds; the library's scorer reads past it, and takes the first of several."""
_TUPLES = frozenset({"arc_agi", "rearc"})
"""Their scorers compare boards with tuples, which JSON turned into lists."""


def main() -> None:
    """Score until stdin ends."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    disarm()
    out = sys.stdout.buffer
    out.write(b"ready\n")
    out.flush()
    for line in sys.stdin.buffer:
        with contextlib.redirect_stdout(io.StringIO()):
            result, error = attempt(score, orjson.loads(line))
        found = result if error is None else {"error": f"{type(error).__name__}: {error}"[:500]}
        out.write(orjson.dumps(found) + b"\n")
        out.flush()


def score(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return `score`, or `error`; `unknown` beside it where the library has no such dataset."""
    from reasoning_gym.factory import DATASETS

    name, answer, entry = request["dataset"], request["answer"], request["entry"]
    if name not in DATASETS:
        said = f"reasoning-gym has no dataset {name!r}. {did_you_mean(name, DATASETS)}"
        return {"error": said, "unknown": True}
    if name in _EXACT:
        return {"score": float(answer.strip().casefold() == str(entry["answer"]).strip().casefold())}
    if name == "propositional_logic" and _NO_FORMULA.search(answer.strip()):
        return {"score": 0.0}
    if name in _TUPLES:
        boards = {key: _as_tuples(entry["metadata"][key]) for key in ("input", "output") if key in entry["metadata"]}
        entry = {**entry, "metadata": {**entry["metadata"], **boards}}
    scorer = _dataset(name, orjson.dumps(request.get("parameters") or {}))
    return {"score": min(1.0, max(0.0, float(scorer.score_answer(answer=answer, entry=entry))))}


def disarm() -> None:
    """Put what reads into the place of what runs, in every module of the library that evaluates what a model wrote."""
    import sympy
    from sympy.parsing import sympy_parser

    safe = _guarded(sympy_parser.parse_expr)
    sympy.__dict__["parse_expr"] = safe
    for name in _EVALUATE:
        importlib.import_module(f"reasoning_gym.{name}").__dict__["eval"] = ast.literal_eval
    for name in _PARSE:
        module = importlib.import_module(f"reasoning_gym.{name}")
        if "parse_expr" in vars(module):
            module.__dict__["parse_expr"] = safe


def check_arithmetic(text: str) -> None:
    """Refuse what is more than arithmetic.

    Raises:
        ValueError: a name, an attribute or a sign that arithmetic does not have.
    """
    names = [name for name in _NAME.findall(text) if len(name) > 1 and name not in _FUNCTIONS]
    if names or not _ARITHMETIC.fullmatch(text) or _ATTRIBUTE.search(text):
        raise ValueError(f"not an arithmetic expression: {text[:80]!r}")


def _guarded(parse: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(parse)
    def read(text: str, *arguments: Any, **options: Any) -> Any:
        check_arithmetic(text)
        return parse(text, *arguments, **options)

    return read


@functools.lru_cache(maxsize=256)
def _dataset(name: str, parameters: bytes) -> Any:
    return make_dataset(name, None, orjson.loads(parameters))


def _as_tuples(board: Any) -> Any:
    return tuple(tuple(row) for row in board) if isinstance(board, list) else board


if __name__ == "__main__":
    main()
