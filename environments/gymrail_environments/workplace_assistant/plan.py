"""Plans: how a task is solved by looking things up, and the calls that come of it.

A plan is a list of steps. A step calls a tool; `"$0.email_id"` in its arguments is that column of what step 0 found.
`pick` says which of the found rows is meant (`first`, `last`, `only`, all by default), `where` what they must hold,
`each` repeats a step for every row that another one found, `when` makes it depend on a count.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import orjson

from gymrail import ToolError, call
from gymrail.environment import Call
from gymrail_mcp_servers.workplace.server import Workplace
from gymrail_mcp_servers.workplace.tables import Office

Step = dict[str, Any]
"""`name`, `arguments`, and what else is said above."""


def follow(plan: Sequence[Step]) -> Generator[Call, str, None]:
    """Yield a plan's calls one by one; each takes the tool's output.

    Raises:
        LookupError: a step refers to something that was not found.
    """
    found: list[list[Any]] = []
    for step in plan:
        rows = []
        for current in found[step["each"]] if "each" in step else [None]:
            if _is_due(step, found):
                known = [[current] if index == step.get("each") else before for index, before in enumerate(found)]
                arguments = {name: _resolve(value, known) for name, value in step["arguments"].items()}
                output = yield call(step["name"], **arguments)
                rows = _picked(orjson.loads(output)["output"], step)
        found.append(rows)


def calls_of(plan: Sequence[Step], office: Office) -> list[Call]:
    """Return the calls that a plan makes in an office.

    Raises:
        LookupError: something that it looks for is not there.
    """
    return list(_played(plan, office))


def play(calls: Sequence[Mapping[str, Any]], office: Office) -> Workplace:
    """Run calls on a fresh copy of an office; what cannot be run changes nothing."""
    workplace = Workplace()
    workplace.seed(office)
    for one in calls:
        _run(workplace, one["name"], one["arguments"])
    return workplace


def changes_state(tool: str) -> bool:
    return tool in Workplace.tools and not Workplace.tools[tool].options.read_only


def _played(plan: Sequence[Step], office: Office) -> Iterator[Call]:
    workplace = Workplace()
    workplace.seed(office)
    steps = follow(plan)
    turn = next(steps, None)
    while turn is not None:
        yield turn
        try:
            turn = steps.send(_run(workplace, turn.name, dict(turn.arguments)))
        except StopIteration:
            return


def _run(workplace: Workplace, name: str, arguments: Any) -> str:
    spec = Workplace.tools.get(name)
    if spec is None:
        return ""
    try:
        return getattr(workplace, spec.method)(**spec.parse(arguments))
    except ToolError as error:
        return str(error)


def _is_due(step: Step, found: list[list[Any]]) -> bool:
    if "when" not in step:
        return True
    counted, limit, wanted = step["when"]
    return (found[counted][0] > limit) is wanted


def _resolve(value: Any, found: list[list[Any]]) -> Any:
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    index, _, column = value[1:].partition(".")
    rows = found[int(index)]
    if not rows or (column and not isinstance(rows[0], dict)):
        raise LookupError(f"step {index} found nothing")
    return rows[0][column] if column else rows[0]


def _picked(output: Any, step: Step) -> list[Any]:
    """The rows of an output that a step means."""
    rows = output if isinstance(output, list) else [output]
    if isinstance(output, dict):
        listed = [value for value in output.values() if isinstance(value, list)]
        rows = listed[0] if listed else [sum(output.values())]
    if "where" in step:
        rows = [row for row in rows if isinstance(row, dict) and step["where"].items() <= row.items()]
    if step.get("pick") == "only" and (len(rows) != 1 or not isinstance(rows[0], dict)):
        return []
    return {"first": rows[:1], "last": rows[-1:]}.get(step.get("pick", ""), rows)
