"""workplace_assistant: the final state is judged, and nothing else."""

import asyncio
import json
from collections import Counter
from typing import Any

import orjson
import pytest

from gymrail import Rollout, call
from gymrail.collect.replay import replay
from gymrail.collect.state import state_of
from gymrail.environment import Call, Turn
from gymrail.episode import Episode
from gymrail.models.scripted import Oracle, ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail_environments.workplace_assistant.environment import MAX_CALLS, OFFICES, WorkplaceTask
from gymrail_environments.workplace_assistant.plan import changes_state, follow
from gymrail_mcp_servers.workplace.generated import PEOPLE, generated_office
from tests.mcp_servers.test_workplace import write_tables

SPEC = find("workplace_assistant")
OFFICE = generated_office(0)
FIRST, SECOND = (OFFICE.customers.entries[index].row["customer_id"] for index in (3, 4))
UPDATE, SEND = "customer_relationship_manager_update_customer", "email_send_email"
WON = call(UPDATE, customer_id=FIRST, field="status", new_value="Won")
NOTED = call(UPDATE, customer_id=SECOND, field="notes", new_value="Call back")
MAIL = call(SEND, recipient=PEOPLE["Esme"], subject="Hello", body="There.")
OTHER_MAIL = call(SEND, recipient=PEOPLE["Greta"], subject="Hello", body="You.")
READ = call("email_search_emails", query="hello")


def truth(*calls: Call) -> list[dict[str, str]]:
    return [{"name": one.name, "arguments": json.dumps(dict(one.arguments))} for one in calls]


def task(*calls: Call, **fields: Any) -> WorkplaceTask:
    return WorkplaceTask.ask("Do it.", ground_truth=truth(*calls), **{"office_seed": 0, **fields})


def played(asked: WorkplaceTask, *turns: Turn, **config: Any) -> Rollout:
    spec = SPEC.with_config(config) if config else SPEC
    return asyncio.run(play(spec, asked, ScriptedModel([*turns, "Done."])))


def test_the_ground_truths_state_earns_one_whatever_was_read_on_the_way() -> None:
    assert played(task(WON, MAIL), READ, WON, READ, MAIL).reward == 1.0


def test_the_order_of_calls_does_not_count() -> None:
    assert played(task(MAIL, OTHER_MAIL, WON), WON, OTHER_MAIL, MAIL).reward == 1.0


def test_another_way_to_the_same_state_is_as_good() -> None:
    detour = call(UPDATE, customer_id=FIRST, field="status", new_value="Lost")
    assert played(task(WON), detour, WON).reward == 1.0


def test_letters_count_in_any_case_but_for_choices() -> None:
    loud = call(SEND, recipient=PEOPLE["Esme"].upper(), subject="HELLO", body="there.")
    assert played(task(MAIL), loud).reward == 1.0


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], "status 'Won' is missing"),
        ([NOTED], "status 'Won' is missing"),
        ([WON, NOTED], "was not expected"),
        ([WON, MAIL], "emails, new row: {"),
        ([call(UPDATE, customer_id=FIRST, field="status", new_value="won")], "status 'Won' is missing"),
        ([call("customer_relationship_manager_delete_customer", customer_id=FIRST)], "its deletion was not expected"),
    ],
)
def test_a_missing_change_or_a_side_effect_earns_nothing_and_is_named(turns: list[Turn], reason: str) -> None:
    base = OFFICE.customers.entries[3].row["status"]
    rollout = played(task(call(UPDATE, customer_id=FIRST, field="status", new_value="Won")), *turns)
    assert base != "Won"
    assert rollout.reward == 0.0
    assert reason in (rollout.verdict_reason or "")


def test_an_email_sent_twice_is_a_side_effect() -> None:
    assert played(task(MAIL), MAIL, MAIL).reward == 0.0


def test_partial_credit_is_reported_always_and_paid_when_asked_for() -> None:
    rollout = played(task(WON, MAIL), WON)
    assert (rollout.reward, rollout.metrics["partial"], rollout.metrics["missing"]) == (0.0, 0.5, 1)
    assert played(task(WON, MAIL), WON, partial_credit=True).reward == 0.5


def test_null_arguments_grade_alike_in_live_calls_ground_truths_and_replays() -> None:
    name = "customer_relationship_manager_add_customer"
    plain = {"customer_name": "Ada Quill", "assigned_to_email": PEOPLE["Esme"], "status": "Lead"}
    nulls = {**plain, "notes": None, "customer_phone": None}
    for asked, done in ((plain, nulls), (nulls, plain)):
        rollout = played(task(call(name, **asked)), call(name, **done))
        assert rollout.reward == 1.0
        assert asyncio.run(replay(SPEC, rollout)).differences == ()


def test_a_ground_truth_call_that_cannot_run_changes_nothing_as_in_an_episode() -> None:
    broken = [{"name": "no_such_tool", "arguments": "{}"}, {"name": SEND, "arguments": '{"recipient"'}]
    asked = WorkplaceTask.ask("Do it.", ground_truth=[*broken, *truth(WON)], office_seed=0)
    assert played(asked, WON).reward == 1.0


def test_ground_truth_arguments_may_be_objects_too() -> None:
    rows = [{"name": WON.name, "arguments": dict(WON.arguments)}]
    assert played(WorkplaceTask.ask("Do it.", ground_truth=rows, office_seed=0), WON).reward == 1.0


def test_episodes_of_one_task_do_not_see_each_other() -> None:
    async def both() -> list[float]:
        episodes = [await Episode.open(SPEC, task(WON)) for _ in range(2)]
        await episodes[0].call(WON.name, dict(WON.arguments))
        return [(await episode.verify()).reward for episode in episodes]

    assert asyncio.run(both()) == [1.0, 0.0]


def test_calls_of_one_turn_run_one_at_a_time() -> None:
    sample = SPEC.generate("train", 0)
    assert not sample.allows_parallel_calls
    system, user = sample.responses_create_params["input"]
    assert (system["role"], user["role"]) == ("system", "user")
    assert "2023-11-30" in system["content"]


def test_rows_about_other_tables_than_the_settings_have_are_a_failure_and_no_reward(tmp_path: Any) -> None:
    write_tables(tmp_path)
    public = played(task(WON, office_seed=None), WON)
    assert public.reward is None
    assert "data_dir" in str(public.failure)
    generated = played(task(WON), WON, data_dir=str(tmp_path))
    assert generated.reward is None
    assert "leave data_dir out" in str(generated.failure)


def test_a_row_without_a_seed_is_played_on_the_tables_of_data_dir(tmp_path: Any) -> None:
    write_tables(tmp_path)
    row = {
        "id": 7, "ground_truth": truth(WON), "category": "workplace_assistant_customer_relationship_manager",
        "environment_name": "workplace_assistant", "responses_create_params": {"input": "Do it."},
    }  # fmt: skip
    asked = WorkplaceTask.from_row(row)
    assert played(asked, WON, data_dir=str(tmp_path)).reward == 1.0
    assert played(asked, NOTED, data_dir=str(tmp_path)).reward == 0.0


def test_the_oracle_solves_tasks_with_and_without_a_plan_and_looks_up_every_id() -> None:
    async def rewards(tasks: list[Any]) -> list[Rollout]:
        return [await play(SPEC, one, Oracle(), task_index=index) for index, one in enumerate(tasks)]

    tasks = list(SPEC.tasks("train", limit=120))
    for rollout in asyncio.run(rewards(tasks)):
        assert (rollout.reward, rollout.outcome and rollout.outcome.status) == (1.0, "scored")
        assert len(rollout.calls) <= MAX_CALLS
        heard = orjson.dumps(rollout.task.responses_create_params["input"]).decode()
        for done in rollout.calls:
            known = {name: value for name, value in done.parsed.items() if name.endswith("_id") or "@" in str(value)}
            assert all(str(value) in heard for value in known.values()), (done, heard)
            heard += str(done.output)
    (bare,) = asyncio.run(rewards([task(WON, MAIL)]))
    assert bare.reward == 1.0


def test_thousands_of_tasks_differ_and_ask_for_everything_that_there_is() -> None:
    tasks: list[Any] = [SPEC.generate("train", index) for index in range(1000)]
    assert len({one.id for one in tasks}) > 980
    prompts = {one.responses_create_params["input"][-1]["content"] for one in tasks}
    assert len(prompts) > 950
    assert not any("{" in prompt or "$" in prompt for prompt in prompts)
    parts = ("email", "calendar", "project_management", "customer_relationship_manager", "analytics", "multi_domain")
    assert set(Counter(one.category for one in tasks)) == {f"workplace_assistant_{part}" for part in parts}
    used = {one.name for row in tasks for one in row.ground_truth}
    assert used == {name for name in SPEC.tools if changes_state(name)}
    assert {one.office_seed for one in tasks} == set(range(OFFICES))


def test_a_plan_that_finds_nothing_says_so() -> None:
    steps = follow([{"name": "x", "arguments": {}}, {"name": "y", "arguments": {"id": "$0.email_id"}}])
    next(steps)
    with pytest.raises(LookupError, match="step 0 found nothing"):
        steps.send('{"output": "No emails found."}')


def test_an_episodes_state_shows_its_changes_and_not_the_tables() -> None:
    async def seen() -> Any:
        episode = await Episode.open(SPEC, task(WON))
        await episode.call(WON.name, dict(WON.arguments))
        return state_of(episode.environment)

    text = orjson.dumps(asyncio.run(seen())).decode()
    assert len(text) < 3000
    assert '"status":"Won"' in text
