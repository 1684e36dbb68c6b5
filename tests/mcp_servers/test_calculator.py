"""The calculator: right results, remembered in order; schemas that cost few tokens."""

import orjson
import pytest

from gymrail import ToolError
from gymrail.registry import find_tool_server
from gymrail_mcp_servers.calculator.server import Calculator


def test_each_tool_returns_its_result_and_remembers_it_in_order() -> None:
    calculator = Calculator()
    assert [calculator.add(4, 5), calculator.subtract(4, 5), calculator.multiply(4, -5)] == [9, -1, -20]
    assert calculator.results == [9, -1, -20]


def test_two_calculators_share_no_results() -> None:
    one, two = Calculator(), Calculator()
    one.add(1, 1)
    assert two.results == []


def test_the_registry_finds_it_by_name() -> None:
    assert find_tool_server("calculator") is Calculator


def test_the_three_schemas_together_take_less_than_a_kilobyte() -> None:
    assert list(Calculator.tools) == ["add", "subtract", "multiply"]
    assert len(orjson.dumps([tool.schema for tool in Calculator.tools.values()])) < 1000
    assert all(tool.strict for tool in Calculator.tools.values())


@pytest.mark.parametrize("arguments", ['{"a": 1}', '{"a": 1, "b": 2.5}', '{"a": 1, "b": 2, "c": 3}', "[1, 2]", "{"])
def test_arguments_that_are_not_two_whole_numbers_are_refused_with_what_is_expected(arguments: str) -> None:
    with pytest.raises(ToolError, match=r"Expected: a \(integer\), b \(integer\)"):
        Calculator.tools["add"].parse(arguments)
