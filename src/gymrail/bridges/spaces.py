"""Gymnasium's spaces in words: what actions there are, which one a text names, what an observation shows.

    parse_action("left", env.action_space, ("left", "right"))      0
    as_text({"hand": [3, 9], "dealer": 5})                         hand: [3, 9]
                                                                   dealer: 5

It asks objects for what they have (`n`, `max_length`, `contains`), so that games need not import Gymnasium.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from gymrail.errors import ToolError

_DOCUMENTED_ACTIONS: dict[str, tuple[str, ...]] = {
    "FrozenLake": ("left", "down", "right", "up"),
    "FrozenLake8x8": ("left", "down", "right", "up"),
    "CliffWalking": ("up", "right", "down", "left"),
    "CliffWalkingSlippery": ("up", "right", "down", "left"),
    "Taxi": ("south", "north", "east", "west", "pickup", "dropoff"),
    "Blackjack": ("stick", "hit"),
    "CartPole": ("left", "right"),
    "MountainCar": ("left", "none", "right"),
    "Acrobot": ("negative torque", "no torque", "positive torque"),
}
"""What the numbers mean, as Gymnasium's documentation has it; the environments themselves do not say."""


def parse_action(text: str, space: Any, names: Sequence[str] = ()) -> Any:
    """Return the action that `text` names in an action space: a name or a number of a discrete one, text of a text
    space, a JSON list of numbers of the others.

    Raises:
        ToolError: it names none.
    """
    text = text.strip()
    if hasattr(space, "n") and _is_integer(space.n):
        first = int(getattr(space, "start", 0))
        folded = [name.casefold() for name in names]
        if text.casefold() in folded:
            return first + folded.index(text.casefold())
        if re.fullmatch(r"-?\d{1,9}", text) and first <= int(text) < first + int(space.n):
            return int(text)
        raise ToolError(f"{text[:100]!r} is no action. {describe_actions(space, names)}")
    if hasattr(space, "max_length"):
        action: Any = text
    else:
        action = _from_json(text, space)
    if not space.contains(action):
        raise ToolError(f"{text[:100]!r} is no action. {describe_actions(space, names)}")
    return action


def describe_actions(space: Any, names: Sequence[str] = ()) -> str:
    """Say what actions there are."""
    if hasattr(space, "n") and _is_integer(space.n):
        first = int(getattr(space, "start", 0))
        if names:
            return "Actions: " + ", ".join(f"{name} ({first + index})" for index, name in enumerate(names)) + "."
        return f"Actions: the whole numbers from {first} to {first + int(space.n) - 1}."
    if hasattr(space, "max_length"):
        return f"An action is a text of at most {space.max_length} characters."
    return f"An action is JSON that fits {space}."


def names_of(game: Any) -> tuple[str, ...]:
    """Return the names of an environment's actions: its own enumeration or list of meanings, or Gymnasium's
    documentation."""
    plain = getattr(game, "unwrapped", game)
    count = getattr(getattr(game, "action_space", None), "n", None)
    actions = getattr(plain, "actions", None)
    names: tuple[str, ...] = ()
    if isinstance(actions, type) and issubclass(actions, Enum):
        names = tuple(str(member.name) for member in actions)
    elif callable(getattr(plain, "get_action_meanings", None)):
        names = tuple(str(name).lower() for name in plain.get_action_meanings())
    elif spec := getattr(game, "spec", None):
        names = _DOCUMENTED_ACTIONS.get(str(spec.name), ())
    return names if len(names) == count else ()


def as_text(observation: Any) -> str:
    """Return an observation as text: text as it is, a grid as lines, a record as `name: value` lines, the rest as
    JSON."""
    value = _plain(observation)
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "\n".join(f"{name}: {_indented(as_text(part))}" for name, part in value.items())
    if isinstance(value, list) and value and all(isinstance(row, list) for row in value):
        flat = all(not isinstance(cell, list) for row in value for cell in row)
        return "\n".join((" ".join(map(str, row)) if flat else json.dumps(row)) for row in value)
    return json.dumps(value, default=str, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy's arrays and numbers
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _indented(text: str) -> str:
    return f"\n{text}" if "\n" in text else text


def _is_integer(value: Any) -> bool:
    return hasattr(value, "__index__")


def _from_json(text: str, space: Any) -> Any:
    import numpy

    try:
        value = json.loads(text)
    except ValueError:
        raise ToolError(f"{text[:100]!r} is no JSON. {describe_actions(space)}") from None
    numbers = value if isinstance(value, list) else [value]
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
        raise ToolError(f"{text[:100]!r} is no list of numbers. {describe_actions(space)}")
    return numpy.asarray(numbers, dtype=getattr(space, "dtype", None))
