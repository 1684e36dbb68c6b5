"""The newer clauses of the contract catch what they are for: determinism, cancellation, duplicates, leaks, load."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import orjson
import pytest

from gymrail import Environment, Rollout, Task, ToolError, Verdict, call, tool
from gymrail.contract import Report, check_environment
from gymrail.contract_load import Load, measure_load
from gymrail.spec import GENERATED_SPLITS, EnvironmentSpec, Manifest

SPLITS = ("train", "validation")


class SumTask(Task):
    a: int
    b: int
    expected_answer: str


class Sound(Environment[SumTask]):
    """A sound environment; each broken one below differs from it in one thing."""

    @classmethod
    def generate(cls, rng: Random) -> SumTask:
        a, b = rng.randint(100, 999), rng.randint(100, 999)
        return SumTask.ask(f"Store the sum of {a} and {b}.", a=a, b=b, expected_answer=str(a + b))

    def seed(self) -> None:
        self.stored: int | None = None

    @tool
    async def store(self, value: int) -> str:
        """Store a number."""
        await asyncio.sleep(0)
        self.stored = value
        return "stored"

    def verify(self, rollout: Rollout) -> Verdict:
        return Verdict(float(self.stored == self.task.a + self.task.b), metrics={"calls": len(rollout.calls)})

    def solve(self) -> Generator[Any, str, None]:
        yield call("store", value=self.task.a + self.task.b)
        yield "Done."


class MeasuresAnew(Sound):
    counted: ClassVar[Any] = itertools.count()

    def verify(self, rollout: Rollout) -> Verdict:
        return Verdict(super().verify(rollout).reward, metrics={"order": next(self.counted)})


class SaysWhyAnew(Sound):
    counted: ClassVar[Any] = itertools.count()

    def verify(self, rollout: Rollout) -> Verdict:
        return Verdict(super().verify(rollout).reward, reason=f"verdict number {next(self.counted)}")


class SwallowsCancellation(Sound):
    @tool
    async def store(self, value: int) -> str:
        """Store a number."""
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.001)
        self.stored = value
        return "stored"


class ClosesBadly(Sound):
    @tool
    async def store(self, value: int) -> str:
        """Store a number."""
        self.file_is_open = True
        await asyncio.sleep(0.001)
        self.file_is_open = False
        self.stored = value
        return "stored"

    def close(self) -> None:
        if getattr(self, "file_is_open", False):
            raise OSError("the file is in use")


class TellsInRefusals(Sound):
    @tool
    async def store(self, value: int) -> str:
        """Store a number."""
        if value != self.task.a + self.task.b:
            raise ToolError(f"Wrong: the sum is {self.task.expected_answer}.")
        self.stored = value
        return "stored"


class TellsTheUser(Sound):
    def seed(self) -> None:
        self.stored = None
        self.asked = False

    def reply(self, rollout: Rollout) -> str | None:
        if self.asked or self.stored == self.task.a + self.task.b:
            return None
        self.asked = True
        return f"No, it should be {self.task.expected_answer}. Try again."


class DrawsAtSeed(Sound):
    counted: ClassVar[Any] = itertools.count()

    def seed(self) -> None:
        self.stored = None
        self.number = next(self.counted)


class BreaksAtOnce(Sound):
    def seed(self) -> None:
        raise RuntimeError("no store today")


def checked(cls: type[Environment[Any]], path: Path | None = None, **manifest: Any) -> Report:
    return asyncio.run(check_environment(EnvironmentSpec("planted", cls, Manifest(**manifest), path=path)))


def failures(report: Report) -> dict[str, str]:
    return {check.name: check.detail for check in report.failures}


def rows_of(folder: Path, **splits: list[Task]) -> dict[str, Any]:
    datasets = []
    for split, tasks in splits.items():
        (folder / f"{split}.jsonl").write_bytes(b"".join(orjson.dumps(task.row) + b"\n" for task in tasks))
        datasets.append({"name": split, "split": split, "path": str(folder / f"{split}.jsonl"), "license": "MIT"})
    return {"datasets": datasets}


def made(count: int, seed: int = 0) -> list[Task]:
    return [Sound.generate(Random(f"{seed}:{index}")) for index in range(count)]


def test_a_sound_environment_passes() -> None:
    report = checked(Sound)
    assert (report.failures, report.warnings) == ((), ())


@pytest.mark.parametrize(
    ("cls", "clause", "detail"),
    [
        (MeasuresAnew, "determinism", "the verdict's metrics was {'order': "),
        (SaysWhyAnew, "determinism", "the verdict's reason was 'verdict number "),
        (SwallowsCancellation, "cancellation", "it went on after it was cancelled, to the reward 1.0"),
        (ClosesBadly, "cancellation", "OSError: the file is in use"),
        (TellsInRefusals, "leak", "a refused call"),
        (TellsTheUser, "leak", "a user turn"),
    ],
)
def test_each_fault_fails_exactly_its_own_clause(cls: type[Environment[Any]], clause: str, detail: str) -> None:
    found = failures(checked(cls))
    assert list(found) == [clause]
    assert detail in found[clause]


def test_a_tool_that_says_the_answer_to_anybody_is_a_leak() -> None:
    class Tells(Environment[SumTask]):
        @classmethod
        def generate(cls, rng: Random) -> SumTask:
            return Sound.generate(rng)

        @tool
        def hint(self) -> str:
            """Give a hint."""
            return self.task.expected_answer

        def verify(self, rollout: Rollout) -> float:
            return float(rollout.final_text == self.task.expected_answer)

        def solve(self) -> Generator[Any, str, None]:
            yield self.task.expected_answer

    found = failures(checked(Tells))
    assert list(found) == ["leak"]
    assert "a call of 'hint'" in found["leak"]


def test_state_that_differs_after_seeding_twice_is_a_warning_that_names_it() -> None:
    report = checked(DrawsAtSeed)
    assert report.failures == ()
    (warning,) = report.warnings
    assert warning.name == "determinism"
    assert "seeded twice, 'number' differs" in warning.detail


def test_interleaving_does_not_pass_when_every_episode_failed() -> None:
    found = failures(checked(BreaksAtOnce))
    assert "no store today" in found["interleaving"]
    assert "nothing to compare" in found["interleaving"]


def test_a_row_that_stands_twice_in_a_dataset_is_found(tmp_path: Path) -> None:
    tasks = made(20)
    datasets = rows_of(tmp_path, train=[*tasks, tasks[3]], validation=made(4, seed=1))
    found = failures(checked(Sound, tmp_path, **datasets))
    assert list(found) == ["duplicates"]
    assert f"split 'train': 1 rows stand there more than once, such as task {tasks[3].id}" in found["duplicates"]


def test_a_generator_that_makes_one_task_over_and_over_is_found() -> None:
    # A split owns tenths of the task space, by the task's id: one task of each.
    tasks = made(200)
    two = [next(task for task in tasks if int(task.id, 16) % 10 in GENERATED_SPLITS[split]) for split in SPLITS]

    class TwoTasks(Sound):
        @classmethod
        def generate(cls, rng: Random) -> SumTask:
            return SumTask.from_row(rng.choice(two).row)

    found = failures(checked(TwoTasks))
    assert list(found) == ["duplicates"]
    assert "split 'train': only 1 of 64 generated tasks differ" in found["duplicates"]


def test_a_question_of_train_that_validation_asks_again_with_another_row_is_found(tmp_path: Path) -> None:
    train = made(8)
    again = SumTask.from_row({**train[2].row, "source": "elsewhere"})
    found = failures(checked(Sound, tmp_path, **rows_of(tmp_path, train=train, validation=[again, *made(3, seed=1)])))
    assert list(found) == ["splits"]
    assert "1 tasks of validation ask what a task of train asks" in found["splits"]


def load(cls: type[Environment[Any]], episodes: int = 40) -> Load:
    return asyncio.run(measure_load(EnvironmentSpec("planted", cls), episodes))


def test_a_sound_environment_carries_its_load() -> None:
    measured = load(Sound)
    assert (measured.episodes, measured.failed) == (40, 0)
    assert measured.seconds > 0
    assert measured.kept_bytes < 4096
    assert measured.figures.startswith("40 episodes in ")
    assert 0 <= measured.lag_p99_seconds <= measured.lag_max_seconds


def test_figures_at_their_limits_pass_and_each_beyond_its_own_fails() -> None:
    fine = Load(5, 0, 1.0, 0.1, 1.0, 4096.0, 30.0)
    assert fine.check().passed
    for name, value, words in (
        ("lag_p99_seconds", 0.11, "event-loop lag, p99: 110 ms (at most 100)"),
        ("lag_max_seconds", 1.1, "event-loop lag, max: 1.1e+03 ms (at most 1000)"),
        ("kept_bytes", 5000.0, "memory kept per episode: 5e+03 bytes (at most 4096)"),
        ("episode_p99_seconds", 31.0, "episode time without the model, p99: 31 s (at most 30)"),
    ):
        check = replace(fine, **{name: value}).check()
        assert (check.passed, check.detail) == (False, words)


def test_a_tool_that_blocks_the_event_loop_fails_under_load() -> None:
    class Blocks(Sound):
        @tool
        async def store(self, value: int) -> str:
            """Store a number."""
            time.sleep(0.15)  # noqa: ASYNC251 - what is tested
            self.stored = value
            return "stored"

    measured = asyncio.run(_few(Blocks))
    check = measured.check()
    assert check.passed is False
    assert "event-loop lag, p99" in check.detail


async def _few(cls: type[Environment[Any]]) -> Load:
    from gymrail import contract_load

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contract_load, "_MEMORY_EPISODES", 1)
        return await measure_load(EnvironmentSpec("planted", cls), 10)


def test_episodes_that_leave_memory_behind_fail_under_load() -> None:
    class Keeps(Sound):
        kept: ClassVar[list[bytes]] = []

        def close(self) -> None:
            self.kept.append(bytes(10_000))

    check = load(Keeps, 10).check()
    assert check.passed is False
    assert "memory kept per episode" in check.detail


def test_episodes_that_fail_under_load_are_counted() -> None:
    measured = load(BreaksAtOnce, 10)
    assert measured.failed == 10
    assert measured.check().detail.startswith("10 of 10 episodes failed: ")
