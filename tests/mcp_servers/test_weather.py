"""The weather server: an invented world that is the same everywhere and always."""

import pytest

from gymrail import ToolError
from gymrail_mcp_servers.weather.server import SKIES, Report, Weather, report


def test_a_city_has_one_weather_however_it_is_spelt() -> None:
    assert Weather().get_weather(" new  YORK ") == Weather().get_weather("New York") == report("New York").text


def test_the_weather_is_the_same_on_every_machine() -> None:
    assert (report("Oslo"), report("San Francisco")) == (Report("snowy", -11), Report("clear", -15))


def test_the_cities_differ_in_sky_and_degrees() -> None:
    reports = [report(f"City {number}") for number in range(500)]
    assert {found.sky for found in reports} == set(SKIES)
    assert {found.degrees for found in reports} == set(range(-15, 41))


@pytest.mark.parametrize(("city", "message"), [("  ", "empty"), ("x" * 101, "at most 100")])
def test_a_name_that_is_no_city_is_a_tool_error(city: str, message: str) -> None:
    with pytest.raises(ToolError, match=message):
        Weather().get_weather(city)
