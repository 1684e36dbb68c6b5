"""calendar: reading a calendar out of an answer, each rule of a right one, the talk, and days that can be scheduled."""

import asyncio
import json
from typing import Any

import pytest

from gymrail import GymrailError, Rollout
from gymrail.models.scripted import Oracle, ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail_environments.calendar.schedule import clock, last_calendar, minutes, schedule, spoken

SPEC = find("calendar")
WINDOW = {"min_time": "10:00", "max_time": "16:00"}
EXPECTED = {
    "0": {"event_id": 0, "duration": 60, "constraint": "between 10am and 11:45am", **WINDOW},
    "1": {"event_id": 1, "duration": 30, "constraint": "after 2pm", **WINDOW},
    "2": {"event_id": 2, "duration": 45, "constraint": None, **WINDOW},
}
RIGHT = {"0": "10:30", "1": "14:00", "2": "11:30"}


def row_of(**fields: Any) -> dict[str, Any]:
    return {"responses_create_params": {"input": "Show the day."}, "exp_cal_state": EXPECTED, **fields}


def listed(starts: dict[str, str], **changes: Any) -> str:
    events = [
        {"event_id": int(name), "start_time": start, "duration": EXPECTED[name]["duration"]}
        for name, start in starts.items()
    ]
    return json.dumps([{**event, **changes} for event in events])


def played(*turns: str, **fields: Any) -> Rollout:
    task = SPEC.cls.task_type.from_row(row_of(**fields))
    rollout = asyncio.run(play(SPEC, task, ScriptedModel(list(turns))))
    assert rollout.failure is None
    return rollout


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (listed(RIGHT), None),
        (f"Draft: {listed({'0': '10:00'})} and all of it: {listed(RIGHT)} [1]", None),
        (listed({**RIGHT, "1": "2pm"}), None),
        (listed(RIGHT, event_name="room [4]"), None),
        ("", "unfinished"),
        ("no idea", "no_calendar"),
        ("[]", "no_calendar"),
        (f"<think>{listed(RIGHT)}", "thinking"),
        (listed({"0": "10:30", "1": "14:00"}), "events"),
        (listed({**RIGHT})[:-1] + ', {"event_id": 7, "start_time": "15:00", "duration": 5}]', "events"),
        (listed(RIGHT)[:-1] + "," + listed(RIGHT)[1:], "events"),
        (listed({**RIGHT, "2": "soon"}), "malformed"),
        (listed(RIGHT, duration="60"), "malformed"),
        (listed({**RIGHT, "2": "11:15"}), "conflict"),
        (listed({**RIGHT, "2": "14:15"}), "conflict"),
        (listed(RIGHT, duration=15), "duration"),
        (listed({**RIGHT, "0": "11:00", "2": "12:00"}), "constraint"),
        (listed({**RIGHT, "1": "13:30"}), "constraint"),
        (listed({**RIGHT, "1": "15:45"}), "constraint"),
    ],
)
def test_the_last_list_must_be_right_in_every_respect(answer: str, problem: str | None) -> None:
    rollout = played(answer)
    assert (rollout.metrics["problem"], rollout.reward) == (problem, float(problem is None))


def test_where_no_event_is_expected_an_answer_without_one_is_right() -> None:
    assert played("A free day.", exp_cal_state={}).reward == 1.0
    assert played(listed(RIGHT), exp_cal_state={}).reward == 0.0


def test_follow_ups_are_put_one_by_one_and_the_last_answer_counts() -> None:
    turns = ["Move it.", "Show it again."]
    rollout = played("Noted.", listed({"0": "10:00"}), listed(RIGHT), follow_ups=turns)
    assert (rollout.reward, rollout.steps) == (1.0, 3)
    assert [item["content"] for item in rollout.items if item["role"] == "user"] == turns
    assert played(listed(RIGHT), "Noted.", "Bye.", follow_ups=turns).reward == 0.0


@pytest.mark.parametrize("text", ["[" * 100_000, '[{"a":' * 50_000, "[{}" * 50_000, "x" * 300_000])
def test_a_hostile_answer_is_read_and_holds_nothing(text: str) -> None:
    assert last_calendar(text) in (None, [{}])


def test_times_are_read_in_both_clocks() -> None:
    assert [minutes(text) for text in ("00:30", "9:05", "12am", "12pm", "2:30 PM", "24:00")] == [
        30,
        545,
        0,
        720,
        870,
        1440,
    ]
    for wrong in ("25:00", "10:75", "13pm", "10", "noon", None, 600):
        with pytest.raises(ValueError, match="is no time"):
            minutes(wrong)
    assert [(clock(time), spoken(time)) for time in (600, 720, 870)] == [
        ("10:00", "10am"),
        ("12:00", "12pm"),
        ("14:30", "2:30pm"),
    ]


@pytest.mark.parametrize("constraint", ["around 2pm", "between 2pm", "after noon"])
def test_a_constraint_that_cannot_be_read_is_refused(constraint: str) -> None:
    row = row_of(exp_cal_state={"0": {**EXPECTED["0"], "constraint": constraint}})
    with pytest.raises(GymrailError, match=r"rows\.jsonl, line 3: .*exp_cal_state\.0\.constraint"):
        SPEC.cls.task_type.from_row(row, "rows.jsonl, line 3")


def test_generated_days_are_talks_that_the_scheduler_solves() -> None:
    sizes = set()
    for index in range(200):
        made: Any = SPEC.generate("train", index)
        sizes.add(len(made.exp_cal_state))
        assert schedule(made.exp_cal_state) is not None
        assert made.follow_ups
        assert asyncio.run(play(SPEC, made, Oracle())).reward == 1.0
    assert sizes >= {2, 3, 4, 5}
    impossible = SPEC.cls.task_type.from_row(
        row_of(exp_cal_state={name: {**EXPECTED["0"], "event_id": name} for name in ("0", "1")})
    )
    assert schedule(impossible.exp_cal_state) is None  # pyright: ignore[reportAttributeAccessIssue]
