"""Several rewards for one tool call: is it the right one, does it fit the schema, is the answer in the asked form.

One row:

    {"responses_create_params": {"input": "What is the weather in Oslo?"},
     "expected_call": {"name": "get_weather", "arguments": {"city": "Oslo"}}}
"""

from __future__ import annotations

import re
from collections.abc import Generator
from random import Random
from typing import Any

from pydantic import BaseModel, Field

from gymrail import Config, Environment, Rollout, Task, Verdict, call
from gymrail.environment import Call, Turn
from gymrail.rollout import ToolCall
from gymrail_mcp_servers.weather.server import Weather

FORM = "Use the tool once. Then answer in one line of this form: Weather in <city>: <report>"
PLACES = (
    "Aarhus", "Adelaide", "Amman", "Antwerp", "Bamako", "Basel", "Belfast", "Bremen", "Calgary", "Casablanca",
    "Cordoba", "Dallas",
    "Durban", "Florence", "Gdansk", "Ghent", "Hamburg", "Houston", "Izmir", "Kampala", "Krakow", "La Paz", "Leeds",
    "Lyon", "Malaga",
    "Medellin", "Mexico City", "Nagoya", "Naples", "Odense", "Osaka", "Perth", "Pisa", "Riga", "Salzburg", "Seville",
    "Tampere", "Turin",
    "Utrecht", "Valencia", "Windhoek", "York",
)  # fmt: skip
QUESTIONS = (
    "What is the weather in {city}?",
    "Is it nicer outside in {city} than in {other}? Look up {city} only.",
    "We go from {other} to {city} next. How is the weather there?",
)


class ToolCallConfig(Config):
    cities: int = Field(default=len(PLACES), ge=2, le=len(PLACES))
    """Generated tasks ask for the first so many cities."""


DEFAULTS = ToolCallConfig()


class ExpectedCall(BaseModel):
    name: str
    arguments: dict[str, Any]


class ToolCallTask(Task):
    expected_call: ExpectedCall


class ToolCallMultireward(Environment[ToolCallTask]):
    """`correctness` + `schema_valid` + `format`, one point each."""

    Config = ToolCallConfig
    config: ToolCallConfig
    weather: Weather
    reward_range = (0.0, 3.0)

    @classmethod
    def generate(cls, rng: Random, config: ToolCallConfig = DEFAULTS) -> ToolCallTask:
        city, other = rng.sample(PLACES[: config.cities], 2)
        question = rng.choice(QUESTIONS).format(city=city, other=other)
        expected = ExpectedCall(name="get_weather", arguments={"city": city})
        return ToolCallTask.ask(question, system=FORM, expected_call=expected)

    def verify(self, rollout: Rollout) -> Verdict:
        components = {
            "correctness": float(len(rollout.calls) == 1 and is_expected(rollout.calls[0], self.task.expected_call)),
            "schema_valid": float(bool(rollout.calls) and not any(call.is_error for call in rollout.calls)),
            "format": float(has_form(rollout.final_text)),
        }
        missed = [name for name, value in components.items() if not value]
        return Verdict(reward_components=components, reason=f"missed {', '.join(missed)}" if missed else None)

    def solve(self) -> Generator[Turn, str, None]:
        expected = self.task.expected_call
        weather = yield Call(expected.name, expected.arguments)
        yield f"Weather in {expected.arguments.get('city')}: {weather}"

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Lose one of the three points: another city, arguments that do not fit, or chatter around the answer."""
        if not isinstance(turn, Call):
            return f"Sure! {turn}\nAnything else?"
        places = PLACES[: self.config.cities]
        if rng.random() < 0.5:
            return Call(turn.name, {"place": turn.arguments.get("city", "")})
        return call(turn.name, city=rng.choice([city for city in places if city != turn.arguments.get("city")]))


def is_expected(made: ToolCall, expected: ExpectedCall) -> bool:
    """Compare a call with the expected one; texts without regard to case and surrounding blanks, everything else
    exactly."""
    return made.name == expected.name and _plain(made.parsed) == _plain(expected.arguments)


def has_form(answer: str) -> bool:
    """Tell whether an answer is one line "Weather in <city>: <report>"."""
    return re.fullmatch(r"Weather in [^:\n]*\w[^:\n]*: [^\n]*\w[^\n]*", answer.strip()) is not None


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.strip().casefold()
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    # JSON's 1 and true are different answers, though Python calls them equal.
    return (isinstance(value, bool), value)
