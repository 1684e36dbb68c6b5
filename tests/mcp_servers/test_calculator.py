"""The calculator: right results, remembered in order; schemas that cost few tokens."""

import math

import orjson
import pytest

from gymrail import ToolError
from gymrail.registry import find_tool_server
from gymrail_mcp_servers.calculator.server import Calculator, ExpressionCalculator


def test_each_tool_returns_its_result_and_remembers_it_in_order() -> None:
    calculator = Calculator()
    assert [calculator.add(4, 5), calculator.subtract(4, 5), calculator.multiply(4, -5)] == [9, -1, -20]
    assert calculator.results == [9, -1, -20]


def test_two_calculators_share_no_results() -> None:
    one, two = Calculator(), Calculator()
    one.add(1, 1)
    assert two.results == []


def test_the_registry_finds_it_by_name_with_all_its_tools() -> None:
    assert find_tool_server("calculator") is ExpressionCalculator
    assert list(ExpressionCalculator.tools) == ["add", "subtract", "multiply", "calculate"]


def test_the_three_schemas_together_take_less_than_a_kilobyte() -> None:
    assert list(Calculator.tools) == ["add", "subtract", "multiply"]
    assert len(orjson.dumps([tool.schema for tool in Calculator.tools.values()])) < 1000
    assert all(tool.strict for tool in Calculator.tools.values())


@pytest.mark.parametrize("arguments", ['{"a": 1}', '{"a": 1, "b": 2.5}', '{"a": 1, "b": 2, "c": 3}', "[1, 2]", "{"])
def test_arguments_that_are_not_two_whole_numbers_are_refused_with_what_is_expected(arguments: str) -> None:
    with pytest.raises(ToolError, match=r"Expected: a \(integer\), b \(integer\)"):
        Calculator.tools["add"].parse(arguments)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2 * (3 + 4) ^ 2", 98), ("-2 ^ 2", -4), ("2 ^ 3 ^ 2", 512), ("7 // 2 + 7 % 4", 6), ("10 / 4", 2.5),
        ("sqrt(2)", math.sqrt(2)), ("sin(pi / 6) + ln(e)", math.sin(math.pi / 6) + 1), ("max(1, 2, 3)", 3),
        ("factorial(20)", math.factorial(20)), ("comb(10, 3)", 120), ("round(2.567, 2)", 2.57), ("1e3", 1000.0),
        ("3 \u00d7 \u22122", -6), ("2 ** -2", 0.25), (" 1 ", 1), ("gcd(12, 18)", 6),
    ],
)  # fmt: skip
def test_an_expression_has_its_value(expression: str, value: float) -> None:
    assert ExpressionCalculator().calculate(expression) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("9 ^ 9 ^ 9", "too large"), ("10 ^ 10000", "too large"), ("factorial(100000)", "up to 1000"),
        ("factorial(1000) ^ 2", "too large"), ("comb(10^9, 10^8)", "up to 1000"), ("exp(10000)", "too large"),
        ("1e308 * 10", "too large"), ("1 / 0", "Division by zero"), ("0 ^ -1", "Division by zero"),
        ("sqrt(-1)", "Cannot be computed"), ("(-8) ^ 0.5", "no real number"), ("2 +", "Not an expression"),
        ("", "Not an expression"), ("(" * 300 + "1" + ")" * 300, "Not an expression"), ("+".join("1" * 600), "at most"),
        ("-" * 200 + "1", "nested"), ("__import__('os')", "Not arithmetic: Constant|Unknown function"),
        ("x", "Unknown name 'x'"),
        ("sqr(2)", "Did you mean 'sqrt'"), ("(1).real", "Not arithmetic: Attribute"), ("[1]", "Not arithmetic: List"),
        ("'a' * 9", "Not arithmetic: Constant"), ("True + 1", "Not arithmetic"), ("1 if 1 else 2", "Not arithmetic"),
        ("1 < 2", "Not arithmetic"), ("sqrt(1, 2, 3)", "Cannot be computed"), ("lambda: 1", "Not arithmetic"),
        ("max(*(1, 2))", "Not arithmetic"), ("1j", "Not arithmetic"), ("9" * 5000, "at most"),
        ("0 and 1", "Not arithmetic"),
        ("round(1, base=2)", "Not arithmetic"), ("1\0", "Not an expression"), ("max()", "Cannot be computed"),
    ],
)  # fmt: skip
def test_what_is_no_bounded_arithmetic_is_told_to_the_model(expression: str, message: str) -> None:
    with pytest.raises(ToolError, match=message):
        ExpressionCalculator().calculate(expression)
