"""What nemo-gym's own environments pay, ours pay: for its example rollouts row by row, and for answers that both judge.

Where rewards differ the difference has a name here, a reason, and a row in docs/differences.md.
"""

import asyncio
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from gymrail.cli import app
from gymrail.collect.reverify import rejudge
from gymrail.registry import find
from gymrail.rollout import Rollout
from gymrail.verifiers.schema import strict
from gymrail_environments.structured_outputs.writing import write
from tests.interop import nemo_gym
from tests.interop.answers import Case, calls, example_of, generated_cases, message
from tests.interop.differences import DIFFERENCES, ODD_INSTRUCTIONS, ODD_STRUCTURES

EXAMPLES = {
    "mcqa": ("mcqa", "example_rollouts.jsonl", "example.jsonl"),
    "mcqa, with template metadata": (
        "mcqa", "example_rollouts_with_template_metadata.jsonl", "example_with_template_metadata.jsonl",
    ),
    "example_multi_step": ("multi_step", "example_rollouts.jsonl", "example.jsonl"),
    "example_session_state_mgmt": ("session_counter", "example_rollouts.jsonl", "example.jsonl"),
    "calendar": ("calendar", "example_rollouts.jsonl", "example.jsonl"),
    "instruction_following": ("instruction_following", "example_rollouts.jsonl", "example.jsonl"),
    "reasoning_gym": ("reasoning_gym", "example_rollouts.jsonl", "example.jsonl"),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    nemo_gym.install_judges()


@pytest.mark.parametrize("example", EXAMPLES)
def test_their_example_rollouts_earn_the_same_with_us(example: str, tmp_path: Path) -> None:
    environment, rollouts, tasks = EXAMPLES[example]
    server = example.partition(",")[0]
    (folder,) = nemo_gym.HOME.glob(f"lib/python*/site-packages/resources_servers/{server}/data")
    words = ["reverify", str(folder / rollouts), "--env", environment, "--tasks", str(folder / tasks)]
    done = CliRunner().invoke(app, [*words, "--any-outputs", "-o", str(tmp_path / "again"), "--json"])
    found = orjson.loads(done.stdout)
    rows = nemo_gym.data(server, rollouts)
    assert (found["rollouts"], found["unchanged"], found["changes"]) == (len(rows), len(rows), [])


def test_their_structured_outputs_rollouts_earn_the_same_with_us() -> None:
    """The tasks of these rollouts are in no file of the package; their schemas' properties stand in the prompts."""
    for row in nemo_gym.data("structured_outputs", "example_rollouts.jsonl"):
        prompt = "\n".join(item["content"] for item in row["responses_create_params"]["input"])
        schema_str = json.dumps({"type": "object", "properties": longest_object(prompt)})
        output = row["response"]["output"]
        assert judged_by_us("structured_outputs", {**row, "schema_str": schema_str}, output) == row["reward"]


@pytest.mark.parametrize(
    "name", ["example.jsonl", "structured_outputs_v3_example.jsonl", "structured_outputs_v4_example.jsonl"]
)
def test_their_structured_outputs_tasks_are_judged_alike(name: str) -> None:
    cases = [case for row in nemo_gym.data("structured_outputs", name) for case in answers_to_their(row)]
    assert_alike(cases, "structured_outputs", is_whole=False)


def test_generated_structured_outputs_are_judged_alike() -> None:
    cases = generated_cases("structured_outputs", 60, expected_values=None)
    rooted = [
        with_schema(case, {"type": "object", "properties": {"record": json.loads(case.task["schema_str"])}}, "xml")
        for case in cases
        if case.task["schema_type"] == "xml"
    ]
    blank = Case("structured_outputs", "odd", {**cases[0].task, "response_mode": "text"}, [])
    odd = [with_schema(blank._replace(output=message(text)), schema, kind) for kind, schema, text in ODD_STRUCTURES]
    assert_alike([*cases, *rooted, *odd], "structured_outputs")


def test_generated_calendars_are_judged_alike() -> None:
    cases = generated_cases("calendar", 40, follow_ups=None)
    first = next(case for case in cases if case.kind == "gold: whole")
    events = json.loads(first.text.split("\n", 1)[1])
    odd = [
        "thinking <think>" + first.text,
        f"First draft: {json.dumps(events[:1])}\nNow all: {json.dumps(events)}",
        json.dumps([{**event, "event_name": "seats [4]"} for event in events]),
        json.dumps([*events, events[0]]),
        json.dumps([{**event, "start_time": re.sub("^0", "", event["start_time"])} for event in events]),
        json.dumps([{**event, "duration": str(event["duration"])} for event in events]),
        json.dumps([{**event, "event_id": str(event["event_id"])} for event in events]),
        json.dumps([{**event, "start_time": "13:00 pm"} for event in events]),
    ]
    free = {**first.task, "exp_cal_state": {}}
    more = [Case("calendar", "odd", first.task, message(text)) for text in odd]
    more += [Case("calendar", "free", free, message(text)) for text in ("A free day.", first.text, "")]
    assert_alike([*cases, *more], "calendar")


def test_generated_choices_are_judged_alike() -> None:
    cases = generated_cases("mcqa", 50)
    task = cases[0].task | {"grading_mode": "strict_single_letter_boxed"}
    right = task["expected_answer"]
    wrong = "A" if right != "A" else "B"
    texts = [f"\\boxed{{{wrong}}} no: \\boxed{{{right}}}", f"\\boxed{{{{{right}}}}}", f"\\boxed{{{right}, {wrong}}}"]
    texts += [f"\\boxed{{ ({right}) }}", f"\\boxed{{\\text{{{right}}}}}", f"Answer: {right.lower()}"]
    assert_alike([*cases, *(Case("mcqa", "odd", task, message(text)) for text in texts)], "mcqa")


def test_generated_instructions_are_judged_alike() -> None:
    made = generated_cases("instruction_following", 140)
    known = [case for case in made if not case.task["instruction_id_list"][0].startswith("counterintuitive:")]
    cases = [case._replace(task={**case.task, "id": 0, "prompt": ""}) for case in known]
    task = cases[0].task | {"grading_mode": "binary"}
    odd = [
        Case("instruction_following", "odd", {**task, "instruction_id_list": [name], "kwargs": [kwargs]}, message(text))
        for name, kwargs, text in ODD_INSTRUCTIONS
    ]
    assert_alike([*cases, *odd], "instruction_following")


def assert_alike(cases: list[Case], server: str, *, is_whole: bool = True) -> None:
    """Judge every case twice; the rewards are equal, or differ for a reason that is listed."""
    theirs = nemo_gym.judged([case.row() for case in cases])
    ours = [judged_by_us(case.server, case.task, case.output) for case in cases]
    unlike = [(case, one, two) for case, one, two in zip(cases, ours, theirs, strict=True) if abs(one - two) > 1e-9]
    used: Counter[str] = Counter()
    for case, one, two in unlike:
        names = [name for name, explains in DIFFERENCES[server].items() if explains(case, one, two)]
        assert names, f"{case.kind}: {one} by us, {two} by nemo-gym, for {case.text or case.output!r} to {case.task}"
        used.update(names)
    if is_whole:
        assert len(cases) > 200
        assert used.keys() == DIFFERENCES[server].keys(), "a difference that no answer shows"
        assert len(unlike) < len(cases) / 2
        assert 0.1 < sum(ours) / len(ours) < 0.9


def judged_by_us(environment: str, row: dict[str, Any], output: list[dict[str, Any]]) -> float:
    spec = find(environment)
    rollout = Rollout.from_row({**row, "response": {"id": "resp_0", "output": output}}, spec.cls.task_type)
    again = asyncio.run(rejudge(spec, rollout, any_outputs=True))
    assert again.reward is not None, again.failure
    return again.reward


def longest_object(text: str) -> dict[str, Any]:
    """Return the longest JSON object of a text."""
    best: tuple[int, dict[str, Any]] = (0, {})
    decoder, start = json.JSONDecoder(), text.find("{")
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except ValueError:
            end = start + 1
        else:
            best = max(best, (end - start, value), key=lambda found: found[0])
        start = text.find("{", end)
    return best[1]


def with_schema(case: Case, schema: dict[str, Any], kind: str) -> Case:
    return case._replace(task={**case.task, "schema_type": kind, "schema_str": json.dumps(schema)})


def answers_to_their(row: dict[str, Any]) -> list[Case]:
    """Answers to a task of nemo-gym's: one that fits its schema, in its form, and broken ones."""
    schema = strict(json.loads(row["schema_str"]))
    value = example_of(schema)
    if row.get("response_mode") != "tool_call":
        kind = row["schema_type"]
        text = json.dumps(value) if kind in ("json", "yaml") else write(kind, value)
        texts = {"fits": text, "fenced": f"```\n{text}\n```", "cut off": text[:-2], "empty": "", "object": '{"a": 1}'}
        return [Case("structured_outputs", name, row, message(said)) for name, said in texts.items()]
    key, tool = row.get("tool_payload_key"), row["tool_name"]
    right = json.dumps(value if key is None else {key: value})
    return [
        Case("structured_outputs", name, row, output)
        for name, output in {
            "fits": calls((tool, right)),
            "twice": calls((tool, right), (tool, right)),
            "another tool": calls(("other", right)),
            "not wrapped": calls((tool, json.dumps(value))),
            "nothing": calls((tool, "{}")),
            "no JSON": calls((tool, right[:-1])),
            "words": message(right),
        }.items()
    ]
