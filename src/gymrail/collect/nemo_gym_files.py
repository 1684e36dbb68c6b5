"""A run as the files of a NeMo Gym collection, which its own tools read.

X.jsonl                       verify responses: the rollouts that were judged; the verdict's metrics are fields too
X_failures.jsonl              those that failed, with `_ng_failure_class`
X_materialized_inputs.jsonl   a task row for each rollout of either, with the rollout's numbers and its agent
X_aggregate_metrics.json      what NeMo Gym's servers would say of X.jsonl, by agent

NeMo Gym tells tasks apart by `_ng_task_index` alone. Where a run's rollouts are not told apart so (of several
environments, or of a dataset that changed), tasks are numbered anew. Rows that NeMo Gym wrote itself stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from gymrail.collect.journal import encode_row
from gymrail.collect.nemo_gym_metrics import aggregate_metrics
from gymrail.collect.run_config import replace_file
from gymrail.data.jsonl import write_jsonl
from gymrail.errors import InputError
from gymrail.rollout import AGENT_REF, Rollout, agent_ref, task_row_of

TASK_INDEX, ROLLOUT_INDEX = "_ng_task_index", "_ng_rollout_index"
_SHORTENED = ("response", "responses_create_params")
"""What NeMo Gym leaves out of the rows that it measures, but for the usage."""

_TaskKey = tuple[str, int, str]


class Written(NamedTuple):
    """How many rows each file has."""

    rollouts: int
    failures: int
    inputs: int


def write_files(rollouts: Callable[[], Iterable[Rollout]], output: Path) -> Written:
    """Write the files of a collection.

    Args:
        rollouts: reads them anew with every call.
        output: X.jsonl; the others stand beside it.

    Raises:
        InputError: there are no rollouts, or `output` is no `.jsonl`.
    """
    if output.suffix != ".jsonl":
        raise InputError(f"'{output}' is no name of a JSONL file; give one that ends in '.jsonl'.")
    numbers = _numbers(rollouts())
    measured: dict[str, list[dict[str, Any]]] = {}

    def judged() -> Iterator[dict[str, Any]]:
        for rollout in rollouts():
            if rollout.reward is not None:
                row = _response_row(rollout, numbers)
                measured.setdefault(_agent_of(row), []).append(_shortened(row))
                yield row

    failed = (_response_row(rollout, numbers) for rollout in rollouts() if rollout.reward is None)
    written = Written(
        write_jsonl(judged(), output),
        write_jsonl(failed, _beside(output, "_failures.jsonl")),
        write_jsonl(_inputs(rollouts(), numbers), _beside(output, "_materialized_inputs.jsonl")),
    )
    metrics = [
        {AGENT_REF: {"name": name}, **aggregate_metrics(responses)} for name, responses in sorted(measured.items())
    ]
    replace_file(_beside(output, "_aggregate_metrics.json"), orjson.dumps(metrics, option=orjson.OPT_INDENT_2))
    return written


def _numbers(rollouts: Iterable[Rollout]) -> dict[_TaskKey, int]:
    """Each task's place; its own where all of them differ."""
    tasks = sorted({rollout.task_key for rollout in rollouts})
    if not tasks:
        raise InputError("There are no rollouts to write.")
    own = [index for _, index, _ in tasks]
    places = own if len(set(own)) == len(own) else range(len(tasks))
    return dict(zip(tasks, places, strict=True))


def _response_row(rollout: Rollout, numbers: Mapping[_TaskKey, int]) -> dict[str, Any]:
    if rollout.source is not None:
        return dict(rollout.source)
    row = rollout.to_row()
    metrics = {name: value for name, value in rollout.metrics.items() if name not in row}
    # As the journal has it: an author's metrics may hold what JSON cannot say.
    return orjson.loads(encode_row({**row, **metrics, TASK_INDEX: numbers[rollout.task_key]}))


def _inputs(rollouts: Iterable[Rollout], numbers: Mapping[_TaskKey, int]) -> Iterator[dict[str, Any]]:
    for rollout in rollouts:
        source = rollout.source
        if source is None:
            place = {TASK_INDEX: numbers[rollout.task_key], ROLLOUT_INDEX: rollout.repeat}
            yield {AGENT_REF: agent_ref(rollout.environment), **rollout.task.row, **place}
        elif TASK_INDEX in source and ROLLOUT_INDEX in source:  # without them, no tool of NeMo Gym's can pair the two
            yield task_row_of(source) | {name: source[name] for name in (TASK_INDEX, ROLLOUT_INDEX)}


def _agent_of(row: Mapping[str, Any]) -> str:
    agent = row.get(AGENT_REF)
    return str(agent.get("name", "")) if isinstance(agent, Mapping) else ""


def _shortened(row: Mapping[str, Any]) -> dict[str, Any]:
    usage = (row.get("response") or {}).get("usage")
    kept = {name: value for name, value in row.items() if name not in _SHORTENED}
    return {**kept, "response": {"usage": usage}} if usage else kept


def _beside(output: Path, ending: str) -> Path:
    return output.with_name(f"{output.stem}{ending}")
