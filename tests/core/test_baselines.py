"""Baselines: what the policies do, that figures repeat, and how a README's table is read and held against them."""

import asyncio
from random import Random

import pytest

from gymrail import Environment, Rollout, Task, call, tool
from gymrail.baselines import (
    EMPTY,
    ORACLE,
    RANDOM,
    Stated,
    baseline_table,
    check_baselines,
    measure_baselines,
    stated_baselines,
)
from gymrail.errors import GymrailError
from gymrail.registry import find
from gymrail.spec import EnvironmentSpec


class CoinTask(Task):
    side: str


class Coin(Environment[CoinTask]):
    """Guess in the asked form; the tool is there to be called."""

    heard: list[str]

    @classmethod
    def generate(cls, rng: Random) -> CoinTask:
        number = rng.randint(0, 10**6)
        return CoinTask.ask(
            f"Coin {number}. Heads or tails? Answer in \\boxed{{}}.", side=rng.choice(("heads", "tails"))
        )

    def seed(self) -> None:
        self.heard = []

    @tool
    def look(self, times: int, hard: bool = False) -> str:
        """Look at the coin.

        Args:
            times: How often.
            hard: Whether to squint.
        """
        return "It is a coin."

    def verify(self, rollout: Rollout) -> float:
        assert rollout.final_text == "" or rollout.final_text.startswith("\\boxed{")
        return float(rollout.final_text.lower() == f"\\boxed{{{self.task.side}}}")

    def solve(self):
        yield call("look", times=1)
        yield f"\\boxed{{{self.task.side}}}"

    def sabotage(self, turn, rng):
        return turn if not isinstance(turn, str) else "\\boxed{edge}"


class Broken(Coin):
    def verify(self, rollout: Rollout) -> float:
        raise RuntimeError("the judge is down")


def test_figures_repeat_and_are_those_of_the_policies() -> None:
    spec = EnvironmentSpec("coin", Coin)
    first, second = (asyncio.run(measure_baselines(spec, 60)) for _ in range(2))
    assert first == second
    assert first[ORACLE].rewards == (1.0,) * 60
    assert first[EMPTY].mean == 0.0
    assert 0.0 < first[RANDOM].mean < 0.4
    assert 1.0 > first["noise=0.4"].mean >= first["noise=0.5"].mean > 0.3


def test_the_random_policy_calls_tools_with_valid_arguments_and_picks_among_options() -> None:
    measured = asyncio.run(measure_baselines(find("mcqa"), 120, policies=[RANDOM]))
    assert 0.1 < measured[RANDOM].mean < 0.35


def test_an_episode_that_fails_is_no_baseline() -> None:
    with pytest.raises(GymrailError, match=r"coin, oracle policy: task 0 .* failed: .*the judge is down"):
        asyncio.run(measure_baselines(EnvironmentSpec("coin", Broken), 2))


def test_the_printed_table_reads_back() -> None:
    measured = asyncio.run(measure_baselines(EnvironmentSpec("coin", Coin), 20))
    text = f"# coin\n\n## Baselines\n\n{baseline_table(measured)}\n\n## More\n\n| random | 7 |\n"
    stated = stated_baselines(text)
    assert stated.tasks == 20
    assert set(stated.means) == set(measured)
    assert all(abs(stated.means[policy] - baseline.mean) <= 0.005 for policy, baseline in measured.items())


def test_a_readme_without_a_table_states_nothing() -> None:
    assert stated_baselines("# coin\n\n| random | 0.5 |\n") == Stated(None, {})


def test_more_than_is_stated_fails_and_what_cannot_be_compared_is_a_warning() -> None:
    spec = EnvironmentSpec("coin", Coin)
    measured = asyncio.run(measure_baselines(spec, 40, policies=[ORACLE, RANDOM, EMPTY]))
    high = {RANDOM: measured[RANDOM].mean, EMPTY: 0.0}
    low = {RANDOM: measured[RANDOM].mean - 0.01, EMPTY: 0.0}
    passed = {
        name: [check.passed for check in check_baselines(spec, measured, stated)]
        for name, stated in {
            "right": Stated(40, high), "less": Stated(40, low), "other": Stated(500, high), "none": Stated(None, {}),
        }.items()
    }  # fmt: skip
    assert passed == {
        "right": [True, True, True],
        "less": [True, False, True],
        "other": [True, None, None],
        "none": [True, None, None],
    }
