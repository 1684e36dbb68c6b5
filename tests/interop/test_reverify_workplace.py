"""workplace_assistant beside the original, on the original's tables: equal rewards, equal outputs, equal final tables.

What differs is named in `FAULTS` and in the tests of rewards below, each with why it is a fault of the original.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from gymrail import ToolError
from gymrail.cli import app
from gymrail.environment import Call
from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail_environments.workplace_assistant.environment import WorkplaceTask
from gymrail_mcp_servers.workplace.server import Workplace
from gymrail_mcp_servers.workplace.tables import Office, load_office
from tests.interop import nemo_gym
from tests.interop.office_calls import random_calls

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SEQUENCES = 240
Calls = list[dict[str, str]]
"""As ground truths have them: `name`, and `arguments` as JSON text."""


def calls(*pairs: tuple[str, dict[str, Any]]) -> Calls:
    return [{"name": name, "arguments": json.dumps(arguments)} for name, arguments in pairs]


PLOT = {"time_min": "2023-11-30", "time_max": "2023-11-30", "value_to_plot": "total_visits", "plot_type": "bar"}
NEW_LEAD = {"customer_name": "Dakota Thomas", "assigned_to_email": "nadia.moreau@atlas.com", "status": "Lead"}
GROUND_TRUTHS: dict[str, Calls] = {
    "Create a bar chart of total visits since November 30": calls(("analytics_create_plot", PLOT)),
    # Nobody fits: the last contact of every customer with such a proposal is later than three weeks ago.
    "We need to move all customers that haven't responded to a proposal for the consulting product in 3 weeks to lost. "
    "Can you update the CRM?": [],
    "Delete Casey Wilson from the crm": calls(
        ("customer_relationship_manager_delete_customer", {"customer_id": "00000014"})
    ),
    "Add Dakota Thomas as a new lead in the crm and assign them to Nadia": calls(
        ("customer_relationship_manager_add_customer", NEW_LEAD)
    ),
    "Delete my last email from kofi": calls(("email_delete_email", {"email_id": "00000259"})),
}
"""The example rollouts that the package ships are not of the example tasks that it ships: none of the five was asked
the same, and none has its task's ground truth. These are read off the prompts and the tables; the original's own
verifier gives the recorded rewards with them too."""


def _tie(call: dict[str, str], ours: Any, theirs: Any) -> bool:
    def known(output: Any) -> Any:
        return sorted(email["sent_datetime"] for email in output["emails"]) if "emails" in output else None

    return call["name"] == "email_search_emails" and isinstance(theirs, dict) and known(ours) == known(theirs)


FAULTS: dict[str, Callable[[dict[str, str], Any, Any], bool]] = {
    "an unknown argument is told in the words of Python, with its class": lambda call, ours, theirs: (
        "unexpected keyword argument" in str(theirs) and "Invalid arguments" in str(ours)
    ),
    "a broken regular expression is told in the words of the library that runs it": lambda call, ours, theirs: (
        "Invalid regular expression" in str(theirs) and str(ours).startswith("Error executing tool")
    ),
    "emails sent in one minute come in the arbitrary order of an unstable sort": _tie,
    "a number without a date, such as -5, is taken for one": lambda call, ours, theirs: (
        '"-5"' in call["arguments"] and str(ours).startswith("Invalid event_start")
    ),
    "searching customers breaks once one was added with an empty field": lambda call, ours, theirs: (
        "Cannot mask with non-boolean" in str(theirs) or "not supported between instances of" in str(theirs)
    ),
    "asking for averages changes the visits that are read afterwards": lambda call, ours, theirs: (
        call["name"] == "analytics_get_visitor_information_by_id"
        and [{**row, "session_duration_seconds": float(row["session_duration_seconds"])} for row in ours] == theirs
    ),
}
"""Why an output of ours is another one, and how such a case is known: by the call, our output and theirs."""


@pytest.fixture(scope="module")
def tables() -> Path:
    nemo_gym.install()
    (folder,) = nemo_gym.HOME.glob("lib/python*/site-packages/resources_servers/workplace_assistant/csv_data")
    return folder


@pytest.fixture(scope="module")
def office(tables: Path) -> Office:
    return load_office(tables)


def original(sequences: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the original answers: `outputs`, final `tables`, and the `reward` where a sequence has a ground truth."""
    done = subprocess.run(
        [nemo_gym.HOME / "bin/python", "-P", "-W", "ignore", Path(__file__).with_name("office_of_nemo_gym.py")],
        input=b"".join(orjson.dumps(sequence) + b"\n" for sequence in sequences),
        capture_output=True, timeout=600, check=False, env=nemo_gym.variables(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    return [orjson.loads(line) for line in done.stdout.splitlines()]


def ours(office: Office, sequence: Calls) -> tuple[Workplace, list[Any]]:
    workplace, outputs = Workplace(), []
    workplace.seed(office)
    for call in sequence:
        tool = Workplace.tools[call["name"]]
        try:
            output = getattr(workplace, tool.method)(**tool.parse(call["arguments"]))
        except ToolError as error:
            output = str(error)
        outputs.append(orjson.loads(output))
    return workplace, outputs


def content(rows: Any) -> list[str]:
    """Rows in any order. An empty text is as none: the original's own files cannot tell them apart."""
    return sorted(json.dumps({name: value or None for name, value in row.items()}, sort_keys=True) for row in rows)


def reward(tables: Path, sequence: Calls, ground_truth: Calls) -> float | None:
    spec = find("workplace_assistant").with_config({"data_dir": str(tables)})
    task = WorkplaceTask.ask("-", ground_truth=ground_truth, parameters={"parallel_tool_calls": False})
    turns = [Call(call["name"], orjson.loads(call["arguments"])) for call in sequence]
    rollout = asyncio.run(play(spec, task, ScriptedModel([turns, "Done."] if turns else ["Done."])))
    assert rollout.failure is None
    return rollout.reward


def test_their_example_rollouts_are_of_other_tasks_than_their_example_tasks(tables: Path) -> None:
    asked = [
        {row["responses_create_params"]["input"][-1]["content"] for row in nemo_gym.data("workplace_assistant", name)}
        for name in ("example_rollouts.jsonl", "example.jsonl")
    ]
    assert asked[0] == GROUND_TRUTHS.keys()
    assert not asked[0] & asked[1]


def test_their_example_rollouts_earn_the_recorded_rewards_row_by_row(tables: Path, tmp_path: Path) -> None:
    rollouts = nemo_gym.data("workplace_assistant", "example_rollouts.jsonl")
    tasks = tmp_path / "tasks.jsonl"
    with tasks.open("wb") as file:
        for row in rollouts:
            truth = GROUND_TRUTHS[row["responses_create_params"]["input"][-1]["content"]]
            parameters = {"input": row["responses_create_params"]["input"]}
            file.write(orjson.dumps({"responses_create_params": parameters, "ground_truth": truth}) + b"\n")
    path = tables.parent / "data/example_rollouts.jsonl"
    words = ["reverify", str(path), "--env", "workplace_assistant", "--tasks", str(tasks), "--json"]
    done = CliRunner().invoke(app, [*words, "--config", f"data_dir={tables}", "-o", str(tmp_path / "again")])
    found = orjson.loads(done.stdout)
    # Unchanged means more than the reward: replayed, every output was the recorded one, character by character.
    assert (done.exit_code, found["rollouts"], found["unchanged"], found["changes"]) == (0, 5, 5, [])
    again = [orjson.loads(line) for line in (tmp_path / "again/rollouts.jsonl").read_bytes().splitlines()]
    assert [row["reward"] for row in again] == [row["reward"] for row in rollouts] == [0.0, 1.0, 1.0, 1.0, 1.0]


def test_the_originals_verifier_agrees_with_the_ground_truths_read_off_the_prompts(tables: Path) -> None:
    rollouts = nemo_gym.data("workplace_assistant", "example_rollouts.jsonl")
    sequences = [
        {
            "calls": [item for item in row["response"]["output"] if item["type"] == "function_call"],
            "ground_truth": GROUND_TRUTHS[row["responses_create_params"]["input"][-1]["content"]],
        }
        for row in rollouts
    ]
    assert [found["reward"] for found in original(sequences)] == [row["reward"] for row in rollouts]


def test_their_example_tasks_are_solved_by_their_ground_truths_and_by_nothing_less(tables: Path) -> None:
    for row in nemo_gym.data("workplace_assistant", "example.jsonl"):
        truth = row["ground_truth"]
        assert reward(tables, truth, truth) == 1.0
        assert reward(tables, truth[1:], truth) == 0.0
        assert reward(tables, [*truth, *calls(("analytics_create_plot", PLOT))], truth) == 0.0


def test_their_rows_are_read_unchanged_and_offer_all_27_tools(tables: Path) -> None:
    spec = find("workplace_assistant")
    for row in nemo_gym.data("workplace_assistant", "example.jsonl"):
        task = WorkplaceTask.from_row(row)
        assert task.row == row
        assert spec.offered(task).keys() == spec.tools.keys()
        for theirs in row["responses_create_params"]["tools"]:
            mine = spec.tools[theirs["name"]].parameters
            assert set(mine["required"]) == set(theirs["parameters"]["required"])
            assert {name: part["type"] for name, part in mine["properties"].items()} == {
                name: part["type"] for name, part in theirs["parameters"]["properties"].items()
            }


def test_random_calls_have_the_originals_outputs_and_final_tables(office: Office) -> None:
    sequences: list[Calls] = [random_calls(office, Random(f"office:{index}")) for index in range(SEQUENCES)]
    compared = 0
    for sequence, theirs in zip(sequences, original([{"calls": one} for one in sequences]), strict=True):
        workplace, outputs = ours(office, sequence)
        strange_date = False
        for call, mine, their in zip(sequence, outputs, theirs["outputs"], strict=True):
            if mine != their:
                why = [text for text, fits in FAULTS.items() if fits(call, mine["output"], their["output"])]
                assert why, (call, mine, their)
                strange_date = strange_date or '"-5"' in call["arguments"]
            compared += 1
        for name, rows in theirs["tables"].items():
            if name != "calendar" or not strange_date:
                mine = workplace.plots if name == "plots" else getattr(workplace, name).rows
                assert content(mine) == content(rows), (name, sequence)
    assert compared > 4 * SEQUENCES


def test_random_states_earn_what_the_original_gives(office: Office, tables: Path) -> None:
    """Ground truths are the sequence itself, a part of it, or another one; reads are added, which change nothing."""
    sequences = []
    for index in range(SEQUENCES // 4):
        rng = Random(f"rewards:{index}")
        done = [call for call in random_calls(office, rng) if "no_such_argument" not in call["arguments"]]
        read = calls(("email_search_emails", {"query": "update"}))
        truth = (done, done[1:], [], [*read, *done, *read])[index % 4]
        if '"-5"' not in json.dumps([done, truth]):
            sequences.append({"calls": done, "ground_truth": truth})
    theirs = [found["reward"] for found in original(sequences)]
    assert [reward(tables, one["calls"], one["ground_truth"]) for one in sequences] == theirs
    assert {0.0, 1.0} == set(theirs)


SEND = calls(
    ("email_send_email", {"recipient": "raj.patel@atlas.com", "subject": "One", "body": "First."}),
    ("email_send_email", {"recipient": "raj.patel@atlas.com", "subject": "Two", "body": "Second."}),
)
DELETE = calls(("email_delete_email", {"email_id": "00000057"}))
ADD = calls(("customer_relationship_manager_add_customer", NEW_LEAD))
ADD_WITH_NULLS = calls(("customer_relationship_manager_add_customer", {**NEW_LEAD, "notes": None}))
ADD_WITH_BLANKS = calls(("customer_relationship_manager_add_customer", {**NEW_LEAD, "customer_phone": ""}))
REWARD_FAULTS: dict[str, tuple[Calls, Calls]] = {
    "two emails sent in the other order have each other's numbers": (SEND[::-1], SEND),
    "an email deleted after another was sent leaves the rows numbered otherwise": ([*SEND, *DELETE], [*DELETE, *SEND]),
    "a null argument is dropped in the live call and kept in the judged one": (ADD_WITH_NULLS, ADD),
    "an empty text is another state than none, though files cannot tell them apart": (ADD_WITH_BLANKS, ADD),
}
"""Where the original pays 0 for the state that was asked for, which we pay: what was done, and the ground truth."""


@pytest.mark.parametrize("fault", REWARD_FAULTS)
def test_the_state_that_was_asked_for_earns_one_where_the_original_is_at_fault(fault: str, tables: Path) -> None:
    done, truth = REWARD_FAULTS[fault]
    assert original([{"calls": done, "ground_truth": truth}])[0]["reward"] == 0.0
    assert reward(tables, done, truth) == 1.0
