"""A short form of `make chaos`, and the comparison itself: it must see each thing that it is there to see."""

from pathlib import Path
from random import Random

import pytest

from gymrail.collect.journal import Key, read_rollouts
from gymrail.collect.run_directory import RunDirectory
from gymrail.registry import find
from gymrail.rollout import Outcome, Rollout
from tests.chaos.comparison import Ended, Recorded, problems, problems_undisturbed, read
from tests.chaos.disturbance import ENVIRONMENT, Plan
from tests.chaos.environment import next_turn
from tests.chaos.run import run_chaos, table

CRASH = ("tool", "tool")


def key(index: int, repeat: int = 0) -> Key:
    return Key("chaos", index, f"task-{index}", repeat)


def run_of(*changes: tuple[Key, Ended | None]) -> Recorded:
    """Three tasks, two of them sound, of two repeats each; a change of None leaves a record out."""
    ended: dict[Key, Ended | None] = {}
    for repeat in (0, 1):
        ended[key(0, repeat)] = Ended("scored", 0.25, story=10)
        ended[key(1, repeat)] = Ended("scored", 0.0, story=11)
        ended[key(2, repeat)] = Ended("failed", None, CRASH, story=12, fate="crashes")
    ended.update(changes)
    recorded = Recorded()
    for each, value in ended.items():
        if value is not None:
            recorded.add(each, value)
            recorded.lines[each] += value.status != "failed"
    return recorded


@pytest.mark.timeout(900)
def test_kill_9_of_runner_worker_and_model_loses_doubles_and_changes_no_rollout(tmp_path: Path) -> None:
    report = run_chaos(
        Plan(tmp_path, rollouts=300, kills=5, seed=3, run_seconds=600, concurrency=24, episode_seconds=12.0)
    )
    assert report.problems == [], "\n".join(table(report))
    done = report.disturbed
    assert done.kills.total() >= 5
    assert {"runner", "worker", "model"} <= done.kills.keys()
    assert sum(times for name, times in done.faults.items() if name != "right") > 0
    rewards = {ended.reward for ended in report.runs["resumed in peace"][1].final.values()}
    assert len(rewards) > 50  # one for each task, as good as: a mixed-up record would have another


def test_equal_runs_have_no_problems() -> None:
    assert problems(run_of(), run_of(), is_clean=True) == []
    assert problems_undisturbed(run_of(), asked=6) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ((key(1, 1), None), "has no final record (task 1 repeat 1)"),
        ((key(7), Ended("scored", 1.0)), "was never asked for (task 7 repeat 0)"),
        ((key(0), Ended("scored", 0.5, story=10)), "has another reward"),
        ((key(0), Ended("scored", 0.25, story=99)), "has another conversation"),
        ((key(0), Ended("truncated", 0.25, story=10)), "is truncated, and undisturbed it is scored"),
        ((key(0), Ended("cancelled", None, story=10)), "asked is not scored + truncated + failed"),
        ((key(2), Ended("scored", 0.0, fate="crashes")), "is scored, and undisturbed it failed"),
        ((key(2), Ended("failed", 0.0, CRASH, fate="crashes")), "failed and has a reward"),
        ((key(2), Ended("failed", None, ("verifier", "verify"), fate="crashes")), "failed with ('verifier', 'verify')"),
        ((key(0), Ended("failed", None, ("verifier", "verify"))), "undisturbed it is scored"),
        ((key(0), Ended("failed", None, ("agent", "model"))), "undisturbed it is scored"),
    ],
)
@pytest.mark.parametrize("is_clean", [True, False])
def test_a_record_that_is_dropped_invented_or_changed_is_a_problem(
    change: tuple[Key, Ended | None], said: str, is_clean: bool
) -> None:
    found = problems(run_of(), run_of(change), is_clean=is_clean)
    assert any(said in text for text in found), found


def test_a_rollout_that_the_chaos_failed_is_a_problem_only_after_a_resume_in_peace() -> None:
    disturbed = run_of((key(0), Ended("failed", None, ("timeout", "model"))))
    assert problems(run_of(), disturbed, is_clean=False) == []
    assert len(problems(run_of(), disturbed, is_clean=True)) == 1


def test_a_line_of_the_tasks_that_is_lost_or_doubled_is_a_problem() -> None:
    undisturbed, disturbed = run_of(), run_of()
    undisturbed.tasks.update([b"one", b"two"])
    disturbed.tasks.update([b"one", b"one"])
    found = problems(undisturbed, disturbed, is_clean=True)
    assert found == ["tasks.jsonl has 2 lines, 1 of them wrong, and 1 are missing"]


def test_an_undisturbed_run_that_is_short_or_scores_a_crash_is_a_problem() -> None:
    assert problems_undisturbed(run_of((key(0), None)), asked=6) == ["5 rollouts of 6 have a record"]
    assert len(problems_undisturbed(run_of((key(2), Ended("scored", 0.0, fate="crashes"))), asked=6)) == 1
    assert len(problems_undisturbed(run_of((key(0), Ended("failed", None, CRASH))), asked=6)) == 1


@pytest.mark.parametrize("spoil", ["drop", "double", "double final", "reward"])
def test_a_spoilt_file_is_seen(tmp_path: Path, spoil: str) -> None:
    rollouts = [_rollout(index) for index in range(4)]
    for name in ("before", "now"):
        with RunDirectory.create(tmp_path / name, {}) as folder:
            for rollout in rollouts:
                folder.record(rollout)
    file = tmp_path / "now" / "rollouts.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    spoilt = {
        "drop": lines[:-1],
        "double": [*lines, lines[1]],
        "double final": [*lines, lines[1]],
        "reward": [lines[0].replace(b'"reward":0.5', b'"reward":0.0'), *lines[1:]],
    }[spoil]
    assert spoilt != lines
    file.write_bytes(b"".join(spoilt))
    assert len(list(read_rollouts(file))) == len(spoilt)
    undisturbed = read(tmp_path / "before")
    assert problems(undisturbed, read(tmp_path / "before"), is_clean=True) == []
    said = {
        "drop": "has no final record",
        "double": "was written twice",
        "double final": "has more than one final record",
        "reward": "has another reward",
    }[spoil]
    found = problems(undisturbed, read(tmp_path / "now"), is_clean=True)
    assert any(said in text for text in found), found


def test_the_model_says_something_else_wherever_the_conversation_differs() -> None:
    rng = Random(0)
    said = [[rng.randrange(10**9), rng.randrange(10**9)] for _ in range(50)]
    turns = {str(next_turn(words, outputs=0, steps=1)) for words in said}
    assert len(turns) == len(said)
    assert str(next_turn(said[0], 0, 1)) == str(next_turn(said[0], 0, 1))


def _rollout(index: int) -> Rollout:
    spec = find(str(ENVIRONMENT))
    rollout = Rollout(spec.name, spec.generate("train", index), f"rollout-{index}", index)
    rollout.conversation = [*rollout.task.input_items, {"type": "message", "role": "assistant", "content": "Done."}]
    rollout.prompt_length = 1
    rollout.outcome, rollout.reward = Outcome("scored"), 0.5
    return rollout
