"""What a talk is held against: the calls and words that the row expects, or a judge that reads the policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from gymrail.errors import ToolError
from gymrail.rollout import Rollout, text_of
from gymrail.task import Item
from gymrail.verifiers.answer import contains_phrase
from gymrail.verifiers.judge_prompt import JudgePrompt

POLICY_KEPT = JudgePrompt(
    system=(
        "You check the work of a support agent. Read the policy, what the customer's case asks for, and the whole talk "
        "with the agent's tool calls. The agent passes when it kept the policy in every step, made the calls that the "
        "case needs and no others, told the customer nothing untrue, and settled or rightly refused every request. "
        "Reason briefly, then end with [[pass]] or [[fail]]."
    ),
    user="The policy:{policy}The case:{task}The talk:{answer}Did the agent pass?",
    labels={"[[pass]]": 1.0, "[[fail]]": 0.0},
)


def transcript(items: Sequence[Item]) -> str:
    """Write a talk down, its calls and their outputs included."""
    lines = []
    for item in items:
        if item.get("type") == "function_call":
            lines.append(f"agent calls {item['name']}: {item.get('arguments', '')}")
        elif item.get("type") == "function_call_output":
            lines.append(f"tool answers: {item.get('output', '')}")
        elif item.get("role") in ("assistant", "user"):
            lines.append(f"{'agent' if item['role'] == 'assistant' else 'customer'}: {text_of(item)}")
    return "\n".join(lines)


def faults_of(
    rollout: Rollout,
    expected_calls: Sequence[Mapping[str, Any]],
    free_tools: Sequence[str],
    must_tell: Sequence[str],
    must_not_tell: Sequence[str],
) -> Iterator[str]:
    """Yield what is wrong with the calls, in any order, and with what the customer was told."""
    said = " ".join(rollout.answers)
    done = [each for each in rollout.calls if not each.is_error and each.name not in free_tools]
    made = Counter(_written(each.name, each.parsed) for each in done)
    expected = Counter(_written(each["name"], each["arguments"]) for each in expected_calls)
    for what, calls in (("was not made", expected - made), ("was not expected", made - expected)):
        yield from (f"the call {each} {what}" for each in sorted(calls))
    yield from (f"the customer was not told {each!r}" for each in must_tell if not contains_phrase(said, each))
    yield from (f"the customer was told {each!r}" for each in must_not_tell if contains_phrase(said, each))


def check_arguments(tool: str, arguments: Mapping[str, Any], tools: Sequence[Mapping[str, Any]]) -> None:
    """Hold a call's argument names against its row's schema.

    Raises:
        ToolError: one is missing, or unknown.
    """
    described = (row.get("function") or row for row in tools)
    parameters = next((row.get("parameters") or {} for row in described if row.get("name") == tool), {})
    known = parameters.get("properties", {})
    wrong = [name for name in arguments if name not in known]
    missing = [name for name in parameters.get("required", ()) if name not in arguments]
    if wrong or missing:
        problem = f"unknown {', '.join(wrong)}" if wrong else f"missing {', '.join(missing)}"
        raise ToolError(f"Invalid arguments for tool {tool!r}: {problem}. Expected: {', '.join(known) or 'none'}.")


def _written(name: str, arguments: Mapping[str, Any]) -> str:
    """A call as text; blanks and case do not count."""
    plain = {
        key: " ".join(value.casefold().split()) if isinstance(value, str) else value for key, value in arguments.items()
    }
    return f"{name}({orjson.dumps(plain, option=orjson.OPT_SORT_KEYS).decode()})"
