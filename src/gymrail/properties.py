"""The vocabulary of the five properties that an environment is described by: the values that are known, each with what
it says. Other values are allowed; `gymrail check` names the nearest known one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

STRUCTURES: dict[str, str] = {
    "single-step": "one request, answered at once or after one round of calls",
    "multi-step": "calls that build on one another, without a user in between",
    "multi-turn": "a talk: a user, or a game, answers what the agent says",
    "multi-modal": "the request holds more than text",
    "long context": "the request is long, and little of it matters",
}
CAPABILITIES: dict[str, str] = {
    "information dependency": "what a tool or a user answers changes what has to be done next",
    "proactive asking": "a fact is missing; the agent has to notice and ask for it",
    "schema adherence": "several pieces of information, delivered in a given format",
    "metadata instruction following": "instructions about the answer itself: its length, its casing, its form",
    "counterintuitive instruction following": "instructions that go against habit and hold nevertheless",
    "information relevance": "much is given, and most of it does not matter",
    "multiple intent synthesis": "one request asks for several things, and all have to be done",
    "instruction following": "what the user asks for beside the task itself",
    "tool use": "the right tool with the right arguments",
    "question answering": "a fact, recalled",
    "format following": "the answer in the asked form",
    "memory": "what was said turns ago",
    "multi-turn talk": "several turns with a user",
    "state tracking": "what the calls so far have changed",
    "multi-step planning": "several calls in the right order",
    "reading tool outputs": "what a call returned goes into the next one",
    "mathematical reasoning": "calculation and proof",
    "logical reasoning": "deduction, puzzles, algorithms by hand",
    "code generation": "programs that run",
    "policy following": "the rules of whoever the agent works for",
    "user modelling": "what this user wants and knows",
    "visual perception": "what a picture shows",
    "open-ended writing": "texts that are better or worse, not right or wrong",
}
TASK_TYPES: dict[str, str] = {
    "natural": "as people ask it",
    "synthetic": "made to exercise a capability",
}
VERIFICATIONS: dict[str, str] = {
    "code": "a program compares the answer or the calls with what is expected",
    "state": "a program compares what the episode left behind with what it should have",
    "execution": "what the agent wrote is run",
    "judge": "a language model judges",
    "reward model": "a learned model scores or compares",
}
KNOWN: dict[str, Mapping[str, str]] = {
    "rollout_structure": STRUCTURES,
    "capabilities": CAPABILITIES,
    "task_type": TASK_TYPES,
    "verification": VERIFICATIONS,
}
"""By the property's name; a knowledge domain is free text."""


def plain(value: str) -> str:
    """Reduce a value to what tells it from others: capitals, spaces, hyphens and underscores make no difference."""
    return re.sub(r"[\s_-]+", " ", value).strip().casefold()


def nearest(value: str, known: Iterable[str]) -> str | None:
    """Return the known value that a person most likely means, or None."""
    by_plain = {plain(name): name for name in known}
    found = difflib.get_close_matches(plain(value), sorted(by_plain), n=1, cutoff=0.6)
    return by_plain[found[0]] if found else None


def property_problems(properties: Mapping[str, str | list[str]]) -> list[str]:
    """Return what is unknown in an environment's properties, each with the nearest known value."""
    problems = []
    for name, known in KNOWN.items():
        given = properties.get(name, [])
        for value in [given] if isinstance(given, str) else given:
            if value not in known:
                near = nearest(value, known)
                meant = f"did you mean {near!r}?" if near else f"known: {', '.join(known)}"
                problems.append(f"{name.replace('_', ' ')}: {value!r} is not in the vocabulary; {meant}")
    return problems
