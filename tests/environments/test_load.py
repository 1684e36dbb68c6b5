"""Two hundred episodes at once, fewer where each starts sandboxed processes: none fails, and none leaves memory
behind. How long the event loop was held up depends on the machine; `make check-environments` measures it, at 200 for
all."""

import asyncio

import pytest

from gymrail.contract_load import MAX_KEPT_BYTES, measure_load
from gymrail.registry import environment_folders, find

EPISODES = 200
FEWER = {"code_gen": 40, "math_with_code": 40}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", sorted(environment_folders()))
def test_many_episodes_at_once_all_end_and_leave_nothing_behind(name: str) -> None:
    episodes = FEWER.get(name, EPISODES)
    measured = asyncio.run(measure_load(find(name), episodes, seed=1))
    assert measured.episodes == episodes
    assert measured.failed == 0, measured.first_failure
    assert measured.kept_bytes <= MAX_KEPT_BYTES
