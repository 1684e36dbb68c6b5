import asyncio
import io

from rich.console import Console

from gymrail.cli.progress import Progress
from gymrail.errors import Failure
from gymrail.rollout import Outcome, Rollout
from gymrail.task import Task


def rollout(environment: str, reward: float | None) -> Rollout:
    made = Rollout(environment, Task.ask("Hi"), "id")
    failed = Outcome("failed", Failure("tool", "tool", "broke"))
    made.outcome, made.reward = (Outcome("scored"), reward) if reward is not None else (failed, None)
    return made


def test_a_failed_rollout_counts_as_ended_but_not_in_the_mean_reward() -> None:
    progress = Progress({"counter": 4}, Console(file=io.StringIO()))
    for reward in (1.0, None, 0.5):
        progress.add(rollout("counter", reward))
    assert progress.line().startswith("3/4 rollouts, ")
    assert "counter reward 0.750 (1 failed)" in progress.line()


def test_rollouts_of_an_earlier_run_count_as_ended_but_not_for_the_speed() -> None:
    progress = Progress({"counter": 4}, Console(file=io.StringIO()))
    progress.resume([rollout("counter", 1.0), rollout("another", 1.0)])
    assert (progress.ended, progress.rate) == (1, 0.0)
    assert progress.remaining_seconds is None


def test_the_live_display_fits_into_80_columns_with_a_line_per_environment() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, record=True)
    progress = Progress({"tool_call_multireward": 20_000, "word_math": 20_000}, console)
    progress.add(rollout("word_math", 0.5))
    progress.add(rollout("tool_call_multireward", None))
    console.print(progress.render())
    lines = console.export_text().splitlines()
    assert len(lines) == 3
    assert "2/40000" in lines[0]
    assert "1 failed" in lines[1]
    assert "reward 0.500" in lines[2]


def test_without_a_terminal_the_last_line_says_how_it_ended() -> None:
    written = io.StringIO()

    async def run() -> None:
        async with Progress({"counter": 1}, Console(file=written, width=160)) as progress:
            progress.add(rollout("counter", 1.0))

    asyncio.run(run())
    (line,) = written.getvalue().splitlines()
    assert line.startswith("1/1 rollouts, ")
    assert line.endswith("counter reward 1.000")


def test_in_a_terminal_the_live_display_is_gone_at_the_end() -> None:
    written = io.StringIO()

    async def run() -> None:
        async with Progress({"counter": 1}, Console(file=written, width=80, force_terminal=True)) as progress:
            progress.add(rollout("counter", 1.0))

    asyncio.run(run())
    assert "reward 1.000" in written.getvalue()
    assert written.getvalue().rstrip("\n").endswith("\x1b[2K")
