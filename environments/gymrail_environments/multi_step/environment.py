"""Look up a value for each of several words, then hand in the list: the last call depends on all before it.

One row:

    {"responses_create_params": {"input": "Collect the values of these synonyms of 'big': large, huge."},
     "expected_synonyms": ["large", "huge"], "expected_synonym_values": [523, 425]}
"""

from __future__ import annotations

from collections.abc import Generator
from random import Random

from pydantic import model_validator

from gymrail import Environment, Rollout, Task, Verdict, call, tool
from gymrail.environment import Call, Turn

SYNONYMS = {
    "angry": ("cross", "furious", "irate", "livid", "mad"),
    "big": ("giant", "great", "huge", "large", "vast"),
    "brave": ("bold", "daring", "fearless", "gallant", "plucky"),
    "calm": ("cool", "placid", "quiet", "serene", "still"),
    "clever": ("astute", "bright", "sharp", "smart", "witty"),
    "cold": ("chilly", "freezing", "frosty", "icy", "wintry"),
    "fast": ("brisk", "fleet", "quick", "rapid", "swift"),
    "funny": ("amusing", "comic", "droll", "hilarious", "jolly"),
    "glad": ("cheerful", "content", "happy", "merry", "pleased"),
    "hard": ("firm", "rigid", "solid", "stiff", "tough"),
    "old": ("aged", "ancient", "antique", "elderly", "vintage"),
    "pretty": ("beautiful", "charming", "comely", "fair", "lovely"),
    "rich": ("affluent", "loaded", "moneyed", "prosperous", "wealthy"),
    "sad": ("blue", "gloomy", "mournful", "sorrowful", "unhappy"),
    "small": ("little", "mini", "petite", "tiny", "wee"),
    "strange": ("curious", "odd", "peculiar", "queer", "weird"),
    "tired": ("drowsy", "exhausted", "sleepy", "weary", "worn"),
    "wet": ("damp", "drenched", "moist", "soaked", "soggy"),
}


class MultiStepTask(Task):
    expected_synonyms: list[str]
    expected_synonym_values: list[int]

    @model_validator(mode="after")
    def _values_belong_to_synonyms(self) -> MultiStepTask:
        if len(self.expected_synonyms) != len(self.expected_synonym_values):
            counts = f"{len(self.expected_synonyms)} synonyms and {len(self.expected_synonym_values)} values"
            raise ValueError(f"there are {counts}; each synonym has one value")
        return self


class MultiStep(Environment[MultiStepTask]):
    """The last `extract_synonym_values` call must hold the expected values in the asked order."""

    @classmethod
    def generate(cls, rng: Random) -> MultiStepTask:
        word = rng.choice(list(SYNONYMS))
        synonyms = rng.sample(SYNONYMS[word], rng.randint(1, 4))
        return MultiStepTask.ask(
            f"Collect the values of these synonyms of '{word}', in this order: {', '.join(synonyms)}. "
            "Look each one up, then hand in all values at once.",
            expected_synonyms=synonyms,
            expected_synonym_values=[value_of(synonym) for synonym in synonyms],
        )

    @tool(read_only=True)
    def get_synonym_value(self, synonym: str) -> int:
        """Look up the value of one synonym.

        Args:
            synonym: A single word.
        """
        return value_of(synonym)

    @tool
    def extract_synonym_values(self, synonym_values: list[int]) -> str:
        """Hand in the values of all synonyms, in the asked order.

        Args:
            synonym_values: One value per synonym.
        """
        return "Received."

    def verify(self, rollout: Rollout) -> Verdict:
        expected = self.task.expected_synonym_values
        calls = rollout.calls_of("extract_synonym_values")
        if not calls:
            return _verdict(False, 0.0, "extract_synonym_values was never called")
        if calls[-1].is_error:
            return _verdict(False, 0.0, f"the last extract_synonym_values call was refused: {calls[-1].output}")
        # Parsed by the tool's own schema, what the model wrote counts here as it did in the call: "3" is 3.
        values = type(self).tools["extract_synonym_values"].parse(calls[-1].arguments)["synonym_values"]
        overlap = len(set(values) & set(expected)) / len(set(expected)) if expected else float(not values)
        return _verdict(values == expected, overlap, None if values == expected else f"got {values}, not {expected}")

    def solve(self) -> Generator[Turn, str, None]:
        values = []
        for synonym in self.task.expected_synonyms:
            values.append(int((yield call("get_synonym_value", synonym=synonym))))
        yield call("extract_synonym_values", synonym_values=values)
        yield "All values are handed in."

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Lose one value on the way."""
        if isinstance(turn, Call) and turn.name == "extract_synonym_values" and turn.arguments["synonym_values"]:
            values = list(turn.arguments["synonym_values"])
            del values[rng.randrange(len(values))]
            return call("extract_synonym_values", synonym_values=values)
        return turn


def value_of(synonym: str) -> int:
    """A word's value: the sum of its code points."""
    return sum(map(ord, synonym))


def _verdict(is_right: bool, overlap: float, reason: str | None) -> Verdict:
    return Verdict(float(is_right), metrics={"accuracy": is_right, "set_overlap": overlap}, reason=reason)
