import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import orjson
import pytest

from gymrail import Environment, Outcome, Rollout, Task, Verdict
from gymrail.collect import plan as planning
from gymrail.collect.journal import encode
from gymrail.collect.plan import JobPlan, Source
from gymrail.collect.run_directory import RunDirectory
from gymrail.collect.runner import Job
from gymrail.errors import InputError
from gymrail.spec import DatasetEntry, EnvironmentSpec, Manifest
from tests.yardstick import seconds_of_steps

Make = Callable[..., Rollout]


class Numbers(Environment[Task]):
    """Name a number."""

    made = 0

    @classmethod
    def generate(cls, rng: Random) -> Task:
        cls.made += 1
        return Task.ask(f"Name {rng.randrange(10**12)}.")

    def verify(self, rollout: Rollout) -> Verdict:
        return Verdict(1.0)


class Written(Environment[Task]):
    """Questions of a file."""

    def verify(self, rollout: Rollout) -> Verdict:
        return Verdict(1.0)


@pytest.fixture
def numbers() -> EnvironmentSpec:
    Numbers.made = 0
    return EnvironmentSpec("numbers", Numbers)


def dataset(folder: Path, rows: int, name: str = "written", *, first: int = 0) -> EnvironmentSpec:
    file = folder / f"{name}.jsonl"
    lines = [json.dumps({"responses_create_params": {"input": f"{name} {n}"}}) for n in range(first, first + rows)]
    file.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    entry = DatasetEntry(name=name, split="train", path=str(file))
    return EnvironmentSpec(name, Written, Manifest(datasets=[entry]))


def play(run: RunDirectory, jobs: Iterator[Job], most: int = 10**9) -> list[tuple[str, int, int]]:
    """Record an answer to each job; return what was played."""
    played = []
    for job in jobs:
        outcome = Outcome("scored")
        rollout = Rollout(job.spec.name, job.task, "r", job.task_index, job.repeat, outcome=outcome, reward=1.0)
        run.record(rollout)
        played.append((job.spec.name, job.task_index, job.repeat))
        if len(played) == most:
            break
    return played


def opened(path: Path, plan: JobPlan) -> RunDirectory:
    environments = [source.spec for source in plan.sources]
    return RunDirectory.create(path, {}, environments=environments, datasets=plan.datasets, resume=True)


def test_environments_take_turns_and_the_repeats_of_a_task_come_together(
    tmp_path: Path, numbers: EnvironmentSpec
) -> None:
    plan = JobPlan([Source(dataset(tmp_path, 1), "train"), Source(numbers, "train", limit=3)], repeats=2)
    plan.check()
    assert [(job.spec.name[0], job.task_index, job.repeat) for job in plan] == [
        ("w", 0, 0), ("w", 0, 1), ("n", 0, 0), ("n", 0, 1), ("n", 1, 0), ("n", 1, 1), ("n", 2, 0), ("n", 2, 1),
    ]  # fmt: skip
    assert plan.asked == {"written": 2, "numbers": 6}


def test_tasks_are_made_as_they_are_taken(numbers: EnvironmentSpec) -> None:
    jobs = iter(JobPlan([Source(numbers, "train", limit=10**9)], repeats=8))
    assert [next(jobs).task_index for _ in range(9)] == [0] * 8 + [1]
    assert Numbers.made < 100


def test_how_much_is_asked_is_known_before_it_is_read_where_a_file_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "CHECKED_TASKS", 4)
    spec = dataset(tmp_path, 9)
    for limit, asked in ((None, 27), (5, 15), (3, 9), (100, 27)):
        plan = JobPlan([Source(spec, "train", limit)], repeats=3)
        plan.check()
        assert plan.asked == {"written": asked} == {"written": len(list(plan))}


def test_a_split_without_tasks_and_an_endless_one_are_refused(tmp_path: Path, numbers: EnvironmentSpec) -> None:
    with pytest.raises(InputError, match=r"The split 'train' of written has no tasks\."):
        JobPlan([Source(dataset(tmp_path, 0), "train")]).check()
    with pytest.raises(InputError, match="numbers generates as many train tasks as asked for; say how many: --tasks N"):
        JobPlan([Source(numbers, "train")])


def test_a_bad_row_is_found_before_the_run_or_ends_the_stream_where_it_stands_far_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = dataset(tmp_path, 5)
    file = tmp_path / "written.jsonl"
    file.write_text(file.read_text(encoding="utf-8") + '{"x": 1}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"written.jsonl, line 7: .*responses_create_params"):
        JobPlan([Source(spec, "train")]).check()
    JobPlan([Source(spec, "train", limit=5)]).check()
    monkeypatch.setattr(planning, "CHECKED_TASKS", 3)
    plan = JobPlan([Source(spec, "train")])
    plan.check()
    jobs = iter(plan)
    assert [next(jobs).task_index for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="line 7"):
        next(jobs)


def test_a_resumed_generator_makes_no_task_that_is_done(tmp_path: Path, numbers: EnvironmentSpec) -> None:
    plan = JobPlan([Source(numbers, "train", limit=300)], repeats=2)
    plan.check()
    with opened(tmp_path, plan) as run:
        assert list(plan.finished(run)) == []
        play(run, plan.remaining(run), most=501)
    Numbers.made = 0
    with opened(tmp_path, plan) as run:
        plan.check(tmp_path)
        assert sum(finished.reward or 0.0 for finished in plan.finished(run)) == 501
        rest = play(run, plan.remaining(run))
    assert rest == [
        ("numbers", 250, 1),
        *(("numbers", index, repeat) for index in range(251, 300) for repeat in (0, 1)),
    ]
    assert Numbers.made < 150  # 50 tasks, some drawn again for their split, and a few to compare
    assert len(RunDirectory.open(tmp_path).done) == 600


def test_more_tasks_or_repeats_than_before_are_played_and_fewer_are_not_counted(
    tmp_path: Path, numbers: EnvironmentSpec
) -> None:
    first = JobPlan([Source(numbers, "train", limit=4)], repeats=2)
    with opened(tmp_path, first) as run:
        play(run, first.remaining(run))
    more = JobPlan([Source(numbers, "train", limit=5)], repeats=3)
    with opened(tmp_path, more) as run:
        assert len(list(more.finished(run))) == 8
        expected = [("numbers", index, 2) for index in range(4)] + [("numbers", 4, repeat) for repeat in range(3)]
        assert play(run, more.remaining(run)) == expected
    fewer = JobPlan([Source(numbers, "train", limit=2)], repeats=2)
    with opened(tmp_path, fewer) as run:
        assert len(list(fewer.finished(run))) == 4
        assert play(run, fewer.remaining(run)) == []


def test_tasks_of_another_seed_are_never_taken_for_done_not_even_after_going_back(
    tmp_path: Path, numbers: EnvironmentSpec, caplog: pytest.LogCaptureFixture
) -> None:
    plans = {seed: JobPlan([Source(numbers, "train", limit=6, seed=seed)]) for seed in (0, 1)}
    with opened(tmp_path, plans[0]) as run:
        play(run, plans[0].remaining(run), most=3)
    with caplog.at_level(logging.WARNING), opened(tmp_path, plans[1]) as run:
        assert run.unchanged == frozenset()
        assert list(plans[1].finished(run)) == []
        assert len(play(run, plans[1].remaining(run))) == 6
    assert "resumed with other datasets than before: numbers" in caplog.text
    with opened(tmp_path, plans[0]) as run:
        assert run.unchanged == frozenset()  # rollouts of both are in the run
        assert len(list(plans[0].finished(run))) == 3
        assert [index for _, index, _ in play(run, plans[0].remaining(run))] == [3, 4, 5]
    assert len(RunDirectory.open(tmp_path).done) == 12


def test_a_changed_file_is_said_and_only_its_new_rows_are_played(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = JobPlan([Source(dataset(tmp_path, 4), "train")])
    with opened(tmp_path / "run", plan) as run:
        play(run, plan.remaining(run))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            dataset(tmp_path, 4)
            plan = JobPlan([Source(plan.sources[0].spec, "train")])
            with opened(tmp_path / "run", plan) as run:
                assert play(run, plan.remaining(run)) == []
    assert caplog.text == ""
    file = tmp_path / "written.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace("written 2", "another question"), encoding="utf-8")
    plan = JobPlan([Source(plan.sources[0].spec, "train")])
    with caplog.at_level(logging.WARNING), opened(tmp_path / "run", plan) as run:
        assert len(list(plan.finished(run))) == 3
        assert play(run, plan.remaining(run)) == [("written", 2, 0)]
    assert "resumed with other datasets than before: written" in caplog.text


def test_a_generator_that_makes_other_tasks_though_its_files_are_the_same_is_noticed(
    tmp_path: Path, numbers: EnvironmentSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plan = JobPlan([Source(numbers, "train", limit=20)])
    with opened(tmp_path, plan) as run:
        play(run, plan.remaining(run))
    before = Numbers.generate
    monkeypatch.setattr(Numbers, "generate", classmethod(lambda cls, rng: before(Random(rng.random()))))
    with caplog.at_level(logging.WARNING), opened(tmp_path, plan) as run:
        assert len(play(run, plan.remaining(run))) == 20
    assert "numbers generates other tasks than before" in caplog.text


def test_a_run_without_a_configuration_is_compared_task_by_task(tmp_path: Path, numbers: EnvironmentSpec) -> None:
    plan = JobPlan([Source(numbers, "train", limit=3)])
    with opened(tmp_path, plan) as run:
        play(run, plan.remaining(run))
    (tmp_path / "config.yaml").unlink()
    with opened(tmp_path, plan) as run:
        assert run.unchanged == frozenset()
        assert len(list(plan.finished(run))) == 3
        assert play(run, plan.remaining(run)) == []


@pytest.mark.parametrize("compress", [False, True])
def test_every_task_that_is_handed_out_is_in_the_tasks_file_once(
    tmp_path: Path, numbers: EnvironmentSpec, *, compress: bool
) -> None:
    if compress:
        pytest.importorskip("zstandard")
    plan = JobPlan([Source(dataset(tmp_path, 3), "train"), Source(numbers, "train", limit=3)], repeats=2)
    for most in (3, 5, 100):
        with RunDirectory.create(tmp_path / "run", {}, datasets=plan.datasets, resume=True, compress=compress) as run:
            play(run, plan.remaining(run), most=most)
    assert (tmp_path / "run" / ("tasks.jsonl.zst" if compress else "tasks.jsonl")).exists()
    tasks = list(RunDirectory.open(tmp_path / "run").tasks())
    assert [(row["agent_ref"]["name"], row["_ng_task_index"]) for row in tasks] == [
        ("written", 0), ("numbers", 0), ("written", 1), ("numbers", 1), ("written", 2), ("numbers", 2),
    ]  # fmt: skip
    by_key = {(row["agent_ref"]["name"], row["_ng_task_index"], row["_task_id"]): row for row in tasks}
    for rollout in RunDirectory.open(tmp_path / "run").rollouts():
        row = by_key[rollout.environment, rollout.task_index, rollout.task.id]
        assert row["responses_create_params"] == rollout.task.row["responses_create_params"]


def test_tasks_in_any_order_are_in_the_tasks_file_once(tmp_path: Path, numbers: EnvironmentSpec) -> None:
    jobs = [Job(numbers, numbers.generate("train", index), index, repeat) for repeat in range(3) for index in (1, 0, 2)]
    for part in (jobs[:5], jobs, jobs[::-1]):
        with RunDirectory.create(tmp_path, {}, resume=True) as run:
            assert len(list(run.remaining(part))) == len(part)
    assert [row["_ng_task_index"] for row in RunDirectory.open(tmp_path).tasks()] == [1, 0, 2]


def test_a_torn_line_of_the_tasks_file_is_repaired_and_its_task_written_again(
    tmp_path: Path, numbers: EnvironmentSpec
) -> None:
    plan = JobPlan([Source(numbers, "train", limit=3)])
    with opened(tmp_path, plan) as run:
        list(plan.remaining(run))
    file = tmp_path / "tasks.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    with opened(tmp_path, plan) as run:
        list(plan.remaining(run))
    assert [row["_ng_task_index"] for row in RunDirectory.open(tmp_path).tasks()] == [0, 1, 2]


@pytest.mark.slow
def test_a_run_of_a_hundred_thousand_rollouts_goes_on_at_once(
    tmp_path: Path, numbers: EnvironmentSpec, make_rollout: Make
) -> None:
    count = 100_000
    plan = JobPlan([Source(numbers, "train", limit=count + 1)])
    opened(tmp_path, plan).close()
    row = orjson.loads(encode(make_rollout(environment="numbers", metrics={"note": "x" * 300})))
    with (tmp_path / "rollouts.jsonl").open("wb") as file:
        for index in range(count):
            row["_ng_task_index"] = index
            row["gymrail"]["task_id"] = numbers.generate("train", index).id
            file.write(orjson.dumps(row) + b"\n")
    Numbers.made = 0
    started = time.process_time()
    with opened(tmp_path, plan) as run:
        assert sum(1 for _ in plan.finished(run)) == count
        (job,) = plan.remaining(run)
    seconds = time.process_time() - started
    assert job.task_index == count
    assert Numbers.made < 100
    # Of 13 microseconds a row, on a core where such a step takes 0.1: a million must take less than 20 seconds there.
    assert seconds < 200 * seconds_of_steps()
