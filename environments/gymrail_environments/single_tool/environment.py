"""One tool, one question: ask for the weather of the right city and report what the tool said.

One row:

    {"responses_create_params": {"input": "What is the weather in Oslo?"}}
"""

from __future__ import annotations

import re
from collections.abc import Generator
from random import Random

from pydantic import Field

from gymrail import Config, Environment, Rollout, Task, Verdict, call
from gymrail.environment import Call, Turn
from gymrail.errors import InputError
from gymrail.verifiers.answer import contains_phrase
from gymrail_mcp_servers.weather.server import SKIES, Report, Weather, report, same_name

CITIES = (
    "Accra", "Athens", "Baku", "Bergen", "Bogota", "Brisbane", "Cairo", "Cape Town", "Cusco", "Dakar", "Delhi",
    "Dublin", "Fez",
    "Geneva", "Hanoi", "Havana", "Helsinki", "Istanbul", "Jakarta", "Kyoto", "Lagos", "Lima", "Lisbon", "Madrid",
    "Manila", "Montreal",
    "Mumbai", "Nairobi", "New York", "Oslo", "Paris", "Porto", "Prague", "Quito", "Reykjavik", "Rome",
    "San Francisco", "Seoul", "Sydney",
    "Tallinn", "Tunis", "Vienna", "Warsaw", "Zurich",
)  # fmt: skip
QUESTIONS = (
    "What is the weather in {city}?",
    "I leave {other} tonight and land in {city} tomorrow. What is the weather in {city}?",
    "My sister says that it never rains in {other}. But how is it in {city}?",
    "Not for {other}, please: tell me the weather in {city}.",
    "Should I take an umbrella in {city}? Give me the full report.",
)
_ASKED = re.compile(
    r".*\bin ([^\W\d_a-z][\w'-]*(?: [^\W\d_a-z][\w'-]*){0,3})"  # words with a capital
    r",?(?: (?:right now|now|today|tonight|tomorrow))?\s*[?.!]?\s*",
    re.DOTALL,
)
_DEGREES = re.compile(r"(?<![\w.])([-\u2212]?\d+(?:\.\d+)?)\s*(?:\u00b0|degrees?\b)", re.IGNORECASE)


class SingleToolConfig(Config):
    cities: int = Field(default=len(CITIES), ge=2, le=len(CITIES))
    """Generated tasks ask for the first so many cities."""


DEFAULTS = SingleToolConfig()


class SingleToolTask(Task):
    city: str | None = None
    """The asked city, for questions that do not end with "in <city>?"."""


class SingleTool(Environment[SingleToolTask]):
    """Right when the tool was called with the asked city and the answer repeats its report, and no other."""

    Config = SingleToolConfig
    config: SingleToolConfig
    weather: Weather

    @classmethod
    def generate(cls, rng: Random, config: SingleToolConfig = DEFAULTS) -> SingleToolTask:
        city, other = rng.sample(CITIES[: config.cities], 2)
        return SingleToolTask.ask(rng.choice(QUESTIONS).format(city=city, other=other), city=city)

    def seed(self) -> None:
        self.city = asked_city(self.task)

    def verify(self, rollout: Rollout) -> Verdict:
        calls = [call for call in rollout.calls_of("get_weather") if not call.is_error]
        if not any(same_name(call.parsed["city"]) == same_name(self.city) for call in calls):
            return Verdict(0.0, reason=f"get_weather was not called with {self.city!r}")
        is_repeated = repeats(rollout.final_text, report(self.city))
        return Verdict(
            float(is_repeated), reason=None if is_repeated else "the answer does not repeat the report alone"
        )

    def solve(self) -> Generator[Turn, str, None]:
        weather = yield call("get_weather", city=self.city)
        yield f"In {self.city} it is {weather}."

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Ask for another city, or report other weather."""
        city = rng.choice([city for city in CITIES[: self.config.cities] if city != self.city])
        if isinstance(turn, Call):
            return call("get_weather", city=city)
        wrong = report(city)
        return f"In {self.city} it is {wrong.sky} and {wrong.degrees + (wrong == report(self.city))} degrees."


def asked_city(task: SingleToolTask) -> str:
    """Return the city that a task asks for: its field, or what the question ends with.

    Raises:
        InputError: the question does not say it in a form that is understood; a guess could give a wrong reward.
    """
    if task.city is not None:
        return task.city
    turns = [item.get("content") for item in task.input_items if item.get("role") == "user"]
    found = _ASKED.fullmatch(turns[-1]) if turns and isinstance(turns[-1], str) else None
    if found is None:
        raise InputError(f"Task {task.id} does not end with 'in <city>?'; add the field 'city' to the row.")
    return found[1]


def repeats(answer: str, wanted: Report) -> bool:
    """Tell whether an answer gives the sky and the degrees of a report, and no other sky or degrees beside it."""
    skies = [sky for sky in SKIES if contains_phrase(answer, sky)]
    degrees = {float(number.replace("\u2212", "-")) for number in _DEGREES.findall(answer)}
    if not degrees and contains_phrase(answer, str(wanted.degrees)):
        degrees = {float(wanted.degrees)}
    return skies == [wanted.sky] and degrees == {float(wanted.degrees)}
