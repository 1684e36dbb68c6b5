import asyncio
import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from gymrail.cli.progress import MAX_PLAIN_SECONDS, PLAIN_SECONDS, Progress, plain_pause
from gymrail.collect.finished import Finished, ToolUse
from gymrail.collect.journal import Key
from gymrail.collect.runner import Summary
from gymrail.models.pace import Load
from gymrail.rollout import Usage

NAMES = [
    f"environment_{number}" if number % 3 else f"a_very_long_name_of_an_environment_{number}" for number in range(30)
]


def finished(environment: str, reward: float | None, failure: str = "tool", **fields) -> Finished:
    status = fields.pop("status", "failed" if reward is None else "scored")
    return Finished(Key(environment, 0, "t", 0), status, reward, failure if reward is None else None, **fields)


def busy(console: Console, names: list[str]) -> Progress:
    """A run in which everything is there to be shown."""
    progress = Progress(
        dict.fromkeys(names, 20_000), console,
        summary=Summary(asked=1000, scored=900, retried=12), concurrency=64,
        loads=lambda: {"http://a": Load(18, 46, 18)},
    )  # fmt: skip
    use = {"usage": Usage(120_000, 4_000), "tools": (ToolUse("search", 2, 2.5),)}
    for name in names:
        progress.add(finished(name, 0.25, status="truncated", **use))
        for kind in ("infrastructure", "timeout", "timeout", "model"):
            progress.add(finished(name, None, kind, **use))
    return progress


def shown(progress: Progress, width: int, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, record=True)
    progress.console = console
    console.print(progress.render())
    return console.export_text().splitlines()


def test_a_line_has_every_fact_of_the_run() -> None:
    line = busy(Console(file=io.StringIO()), ["counter"]).line()
    assert line.startswith("5/20000 rollouts, ")
    assert "64 in flight, endpoint takes 18 of 64 at once, 46 waiting, 12 retried, tokens/s " in line
    assert "slowest tool search 1.25 s; " in line
    assert line.endswith(
        "; counter 5/20000 reward 0.250 (failed 4 (2 timeout, 1 infrastructure, 1 model), truncated 1)"
    )
    assert "\n" not in line


def test_a_failed_rollout_counts_as_ended_but_not_in_the_mean_reward() -> None:
    progress = Progress({"counter": 4}, Console(file=io.StringIO()))
    for reward in (1.0, None, 0.5):
        progress.add(finished("counter", reward))
    assert progress.line().startswith("3/4 rollouts, ")
    assert "counter 3/4 reward 0.750 (failed 1 (1 tool))" in progress.line()


def test_without_a_known_number_there_is_no_bar_and_no_end() -> None:
    progress = Progress({"counter": None}, Console(file=io.StringIO()))
    progress.add(finished("counter", 1.0))
    assert progress.line().startswith("1 rollouts, ")
    assert " left" not in progress.line()
    (head, row) = shown(progress, 80)
    assert head.startswith("1 ")
    assert row.split() == ["counter", "1", "reward", "1.000"]


def test_an_endpoint_that_takes_all_that_was_asked_for_is_not_mentioned() -> None:
    progress = Progress(
        {"a": 9}, Console(file=io.StringIO()), loads=lambda: {"http://a": Load(65_536, 0, 3)}, concurrency=64
    )
    assert "endpoint" not in progress.line()


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("names", [["counter"], NAMES[:5], NAMES], ids=len)
def test_no_line_of_the_live_display_is_as_wide_as_the_terminal(width: int, names: list[str]) -> None:
    lines = shown(busy(Console(file=io.StringIO()), names), width)
    assert max(len(line) for line in lines) < width
    assert len(lines) < 24
    assert len([line for line in lines if "reward" in line or "0.250" in line]) == min(len(names), 9)


def test_a_wide_display_has_a_bar_and_the_kinds_of_each_environments_failures() -> None:
    lines = shown(busy(Console(file=io.StringIO()), ["tool_call_multireward", "word_math"]), 120)
    assert "━" in lines[0]
    assert "10/40000" in lines[0]
    assert lines[-1].split("  ")[0] == "word_math"
    assert lines[-1].endswith("5/20000  reward 0.250  failed 4 (2 timeout, 1 infrastructure, 1 model), truncated 1")


def test_a_narrow_display_names_the_kinds_once_for_all_environments() -> None:
    lines = shown(busy(Console(file=io.StringIO()), ["tool_call_multireward", "word_math"]), 60)
    assert "failed 8 (4 timeout, 2 infrastructure, 2 model)" in lines
    assert lines[-1].startswith("word_math")
    assert "failed 4" in lines[-1]


def test_of_many_environments_those_that_failed_have_a_row_and_the_rest_share_one() -> None:
    progress = Progress(dict.fromkeys(NAMES, 10), Console(file=io.StringIO()))
    for name in NAMES:
        progress.add(finished(name, 0.5))
    for _ in range(2):
        progress.add(finished(NAMES[20], None, "model"))
    lines = shown(progress, 100)
    assert [line.split()[0] for line in lines[1:-1]] == [*NAMES[:7], NAMES[20]]
    assert lines[-1].startswith("and 22 more ")
    assert "22/220  reward 0.500" in lines[-1]
    assert "; and 22 more 22/220 reward 0.500" in progress.line()


def test_a_small_terminal_gets_fewer_rows() -> None:
    assert len(shown(busy(Console(file=io.StringIO()), NAMES), 100, height=10)) <= 9


def test_what_a_model_called_a_tool_cannot_move_the_cursor() -> None:
    progress = Progress({"a": 9}, Console(file=io.StringIO()))
    progress.add(finished("a", 1.0, tools=(ToolUse("\x1b[2Jevil\n" + "x" * 500, 1, 3.0),)))
    assert "slowest tool ?[2Jevil?x" in progress.line()
    assert len(progress.line()) < 200


def test_plain_lines_come_every_five_seconds_first_and_every_minute_in_a_long_run() -> None:
    assert plain_pause(0.0) == plain_pause(60.0) == PLAIN_SECONDS
    assert plain_pause(240.0) == 20.0
    assert plain_pause(3600.0) == plain_pause(86_400.0) == MAX_PLAIN_SECONDS

    def times() -> Iterator[float]:
        now = 0.0
        while now < 8 * 3600:
            now += plain_pause(now)
            yield now

    assert len(list(times())) < 600


def test_without_a_terminal_the_last_line_says_how_it_ended() -> None:
    written = io.StringIO()

    async def run() -> None:
        async with Progress({"counter": 1}, Console(file=written, width=160)) as progress:
            progress.add(finished("counter", 1.0))

    asyncio.run(run())
    (line,) = written.getvalue().splitlines()
    assert line.startswith("1/1 rollouts, ")
    assert line.endswith("counter 1/1 reward 1.000")


def test_in_a_terminal_the_live_display_is_gone_at_the_end() -> None:
    written = io.StringIO()

    async def run() -> None:
        async with Progress({"counter": 1}, Console(file=written, width=80, force_terminal=True)) as progress:
            progress.add(finished("counter", 1.0))

    asyncio.run(run())
    assert "reward 1.000" in written.getvalue()
    assert written.getvalue().rstrip("\n").endswith("\x1b[2K")


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    written = io.StringIO()

    async def run() -> None:
        async with Progress({"counter": 1}, Console(file=written, width=80, force_terminal=True)):
            pass

    asyncio.run(run())
    assert "0/1 rollouts" in written.getvalue()
    assert "\x1b[1A" not in written.getvalue()
