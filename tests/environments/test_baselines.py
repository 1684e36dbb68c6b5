"""Every README's table of baselines is true: the oracle earns the maximum, and knowing nothing pays no more than it
says."""

import asyncio

import pytest

from gymrail.baselines import ORACLE, POLICIES, RANDOM, TASKS, check_stated_baselines, stated_in
from gymrail.registry import environment_folders, find

NAMES = sorted(environment_folders())


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_states_every_baseline(name: str) -> None:
    spec = find(name)
    stated = stated_in(spec)
    assert stated.tasks, f"say on how many tasks: gymrail check {name} --baselines {TASKS}"
    assert set(POLICIES) <= set(stated.means), f"the table is printed by: gymrail check {name} --baselines {TASKS}"
    assert stated.means[ORACLE] == spec.reward_range[1]
    assert stated.means[RANDOM] < spec.reward_range[1]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
def test_the_oracle_earns_the_maximum_and_knowing_nothing_no_more_than_the_readme_states(name: str) -> None:
    assert [check for check in asyncio.run(check_stated_baselines(find(name))) if not check.passed] == []
