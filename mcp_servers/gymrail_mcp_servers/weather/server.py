"""Weather reports of an invented, unchanging world: equal cities have equal weather, on every machine and day."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

from gymrail import ToolError, ToolServer, tool

SKIES = ("clear", "cloudy", "foggy", "rainy", "snowy", "stormy", "windy")
_MAX_CITY_LENGTH = 100


class Report(NamedTuple):
    """What a city's weather is."""

    sky: str
    degrees: int

    @property
    def text(self) -> str:
        return f"{self.sky} and {self.degrees} degrees"


class Weather(ToolServer):
    """One report per city."""

    @tool(read_only=True)
    def get_weather(self, city: str) -> str:
        """Report the weather of a city.

        Args:
            city: The city's name, such as Oslo.
        """
        if not same_name(city):
            raise ToolError("The city's name is empty; pass one such as 'Oslo'.")
        if len(city) > _MAX_CITY_LENGTH:
            raise ToolError(f"A city's name has at most {_MAX_CITY_LENGTH} characters; this one has {len(city)}.")
        return report(city).text


def report(city: str) -> Report:
    """Return a city's weather; spelling in upper or lower case and extra blanks make no difference."""
    digest = hashlib.blake2b(same_name(city).encode(), digest_size=4).digest()
    number = int.from_bytes(digest)
    return Report(SKIES[number % len(SKIES)], number // len(SKIES) % 56 - 15)


def same_name(city: str) -> str:
    """Reduce a city's name to what tells it from others: "  San  francisco, CA" is still not "San Francisco"."""
    return re.sub(r"\s+", " ", city).strip().casefold()
