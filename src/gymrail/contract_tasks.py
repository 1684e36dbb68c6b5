"""What the contract asks of tasks: equal from equal seeds, splits apart, none twice, none that tells its answer."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from gymrail.contract_report import Check, check_of, place_of
from gymrail.errors import GymrailError
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task
from gymrail.verifiers.answer import contains_phrase

_SPLIT_SAMPLE = 64
"""Tasks of each split that are compared where they are generated; a generator that mixes its splits repeats itself much
sooner."""
_ROWS = 2000
"""Rows of each dataset that are compared."""
_CHANCE = 0.75
"""Share of prompts that may hold their answer by chance."""
_DISTINCT = 0.05
"""Share of a generator's first tasks that must differ: it draws with replacement, and small spaces repeat."""


def splits_of(spec: EnvironmentSpec) -> list[str]:
    """Return the splits that an environment has tasks for."""
    listed = [entry.split for entry in spec.manifest.datasets]
    return list(dict.fromkeys([*listed, *(("train", "validation") if spec.is_generated else ())]))


def sample_of(spec: EnvironmentSpec, count: int, seed: int) -> list[Task]:
    """Return tasks to check with: half of them example rows where there are any."""
    splits = splits_of(spec)
    main = next(
        (split for split in ("train", "validation", "test", "benchmark", "example") if split in splits), "train"
    )
    examples = (
        list(spec.tasks("example", limit=count // 2, seed=seed)) if "example" in splits and main != "example" else []
    )
    found = [*spec.tasks(main, limit=max(1, count - len(examples)), seed=seed), *examples]
    if not found:
        raise GymrailError(f"{spec.name} has no tasks in split {main!r}; add rows, or define generate(cls, rng).")
    return found


def check_same_tasks(spec: EnvironmentSpec, count: int, seed: int) -> Check:
    """Read every split twice."""
    problems = []
    for split in splits_of(spec):
        first, second = ([task.row for task in spec.tasks(split, limit=count, seed=seed)] for _ in range(2))
        differing = [index for index, (one, two) in enumerate(itertools.zip_longest(first, second)) if one != two]
        if differing:
            problems.append(
                f"split {split!r}: task {differing[0]} differs when read again with equal seed; draw from `rng` alone"
            )
    return check_of("same seed", problems)


def check_splits(spec: EnvironmentSpec, count: int, seed: int) -> Check:
    """Compare what is trained on with what is held out: equal rows, and equal questions with equal answers."""
    splits = splits_of(spec)
    held_out = [split for split in ("validation", "test") if split in splits]
    if "train" not in splits or not held_out:
        return Check("splits", True, f"has {' and '.join(splits)}: nothing to overlap")
    train = _listed(spec, "train", count, seed)
    ids, questions = {task.id for task in train}, {_question(task) for task in train}
    problems = []
    for split in held_out:
        tasks = _listed(spec, split, count, seed)
        shared = {task.id for task in tasks} & ids
        again = [task for task in tasks if task.id not in shared and _question(task) in questions]
        if shared:
            problems.append(f"{len(shared)} tasks stand in train and in {split}")
        if again and _answer(again[0]) is not None:
            problems.append(
                f"{len(again)} tasks of {split} ask what a task of train asks, with the same answer, such as "
                f"task {again[0].id}; their rows differ elsewhere alone"
            )
    return check_of("splits", problems)


def check_duplicates(spec: EnvironmentSpec, count: int, seed: int) -> Check:
    """Look for rows that stand twice in a dataset, and generators that make one task over and over."""
    problems, seen = [], 0
    for split in splits_of(spec):
        tasks = _listed(spec, split, count, seed)
        seen += len(tasks)
        numbers = Counter(task.id for task in tasks)
        twice = [id for id, number in numbers.items() if number > 1]
        if _is_made(spec, split):
            if len(tasks) > 1 and len(numbers) < _DISTINCT * len(tasks):
                problems.append(f"split {split!r}: only {len(numbers)} of {len(tasks)} generated tasks differ")
        elif twice:
            problems.append(f"split {split!r}: {len(twice)} rows stand there more than once, such as task {twice[0]}")
    return check_of("duplicates", problems, f"{seen} tasks")


def check_leaks(spec: EnvironmentSpec, sample: Sequence[Task], unearned: Sequence[Rollout]) -> Check:
    """Look for the expected answer where an agent sees it without having earned it.

    A short answer stands in some prompts by chance, and a choice in all of them; a leak stands where nothing offers it.

    Args:
        unearned: rollouts of policies that know nothing; what they hear in answer to nonsense tells nobody anything.
    """
    answers = {task.id: answer for task in sample if (answer := _answer(task)) is not None and not _is_choice(task)}
    shown = [task for task in sample if task.id in answers and _stands_in_view(spec, task, answers[task.id])]
    problems = []
    count = sum(task.id in answers for task in sample)
    if shown and len(shown) > _CHANCE * count:
        problems.append(
            f"the expected answer stands in the prompt or the tools of {len(shown)} of {count} tasks, "
            f"such as task {shown[0].id}; where it is an offered choice, list the choices in the field 'options'"
        )
    hearing = {rollout.task.id for rollout in unearned if rollout.task.id in answers and _heard_anything(rollout)}
    told: dict[str, str] = {}
    for rollout in unearned:
        if rollout.task.id in answers and (where := _told(rollout, answers[rollout.task.id])):
            told.setdefault(rollout.task.id, f"{where} of {place_of(rollout)}")
    if told and len(told) > _CHANCE * len(hearing):
        problems.append(
            f"the expected answer is told before it was earned in {len(told)} of {len(hearing)} tasks: "
            f"{next(iter(told.values()))}"
        )
    return check_of("leak", problems, f"{len(shown)} of {count} by chance" if shown else "")


def _listed(spec: EnvironmentSpec, split: str, count: int, seed: int) -> list[Task]:
    size = max(count, _SPLIT_SAMPLE) if _is_made(spec, split) else _ROWS
    return list(spec.tasks(split, limit=size, seed=seed))


def _is_made(spec: EnvironmentSpec, split: str) -> bool:
    entry = next((entry for entry in spec.manifest.datasets if entry.split == split), None)
    return entry is None or entry.source == "generator"


def _question(task: Task) -> str:
    """The prompt and the answer, whatever the spaces and the capitals."""
    prompt = orjson.dumps(task.responses_create_params.get("input", "")).decode()
    return f"{' '.join(prompt.casefold().split())}\n{_answer(task)}"


def _answer(task: Task) -> str | None:
    expected = task.row.get("expected_answer", getattr(task, "expected_answer", None))
    return None if expected in (None, "") or isinstance(expected, dict | list) else str(expected)


def _is_choice(task: Task) -> bool:
    answer = _answer(task)
    return "options" in task.row or (answer is not None and len(answer.strip()) < 2 and not answer.strip().isdigit())


def _stands_in_view(spec: EnvironmentSpec, task: Task, answer: str) -> bool:
    shown = [*_texts(task.responses_create_params), *_texts(spec.tool_schemas(task))]
    return any(contains_phrase(text, answer) for text in shown)


def _heard_anything(rollout: Rollout) -> bool:
    return bool(rollout.calls) or any(item.get("role") == "user" for item in rollout.items)


def _told(rollout: Rollout, answer: str) -> str | None:
    """Where the answer was given away: by a refusal, by a user turn, or as all that a tool says of something else.

    A document that holds the answer among other things is no leak: finding it there is the work.
    """
    for call in rollout.calls:
        output = call.output if isinstance(call.output, str) else ""
        if contains_phrase(call.arguments, answer):
            continue
        if call.is_error and contains_phrase(output, answer):
            return f"a refused call of {call.name!r}"
        if output.strip() == answer.strip():
            return f"a call of {call.name!r}"
    prompt = " ".join(_texts(rollout.task.responses_create_params))
    for item in rollout.items:
        is_turn = item.get("role") == "user" and not contains_phrase(prompt, answer)
        if is_turn and any(contains_phrase(text, answer) for text in _texts(item.get("content"))):
            return "a user turn"
    return None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, Sequence):
        for part in value:
            yield from _texts(part)
