"""Properties: known values pass, others are named with the nearest, however they are spelled."""

from pathlib import Path

import pytest

from gymrail.properties import CAPABILITIES, KNOWN, nearest, plain, property_problems
from gymrail.spec import Properties


def test_the_defaults_are_in_the_vocabulary() -> None:
    assert property_problems(Properties().model_dump()) == []


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"capabilities": ["memory", "tool usage"]}, "capabilities: 'tool usage' is not in the vocabulary; did you"),
        ({"capabilities": ["tool usage"]}, "did you mean 'tool use'?"),
        ({"capabilities": ["Proactive-Asking"]}, "did you mean 'proactive asking'?"),
        ({"rollout_structure": "multi turn"}, "rollout structure: 'multi turn' is not in the vocabulary; did you mean"),
        ({"task_type": "zzz"}, "task type: 'zzz' is not in the vocabulary; known: natural, synthetic"),
        ({"verification": "cod"}, "did you mean 'code'?"),
    ],
)  # fmt: skip
def test_an_unknown_value_is_named_with_the_nearest_known_one(given: dict[str, str | list[str]], problem: str) -> None:
    (found,) = property_problems(given)
    assert problem in found


def test_no_two_known_values_differ_in_spelling_alone() -> None:
    for known in KNOWN.values():
        assert len({plain(value) for value in known}) == len(known)
        assert all(nearest(value, known) == value for value in known)


def test_the_reader_of_the_docs_finds_every_known_value() -> None:
    text = (Path(__file__).parents[2] / "docs/environments.md").read_text(encoding="utf-8")
    assert [value for known in KNOWN.values() for value in known if value not in text] == []
    assert len(CAPABILITIES) >= 7
