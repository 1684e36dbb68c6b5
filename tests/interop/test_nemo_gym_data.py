"""Task files as nemo-gym measures and prompts them: our metrics have its numbers, our prompts its texts."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest

from gymrail.data.prompts import Prompt, PromptConfig
from gymrail.data.statistics import RowStatistics
from tests.interop import nemo_gym

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

THEIR_METRICS = """
import sys, orjson
from nemo_gym import train_data_utils as theirs
state = theirs.DatasetValidatorState()
for line in sys.stdin.read().splitlines():
    metrics, is_bad = theirs.compute_sample_metrics(line)
    assert not is_bad, line
    state.metrics.add(metrics)
    theirs.aggregate_other_metrics(state.other_metrics, orjson.loads(line))
theirs.postprocess_other_metrics(state.metrics, state.other_metrics)
found = state.metrics.aggregate().model_dump(mode="json", by_alias=True)
sys.stdout.buffer.write(b"\\n" + orjson.dumps(found))
"""

THEIR_PROMPTS = """
import sys, orjson
from nemo_gym.prompt import PromptConfig, fill_prompt
asked = orjson.loads(sys.stdin.buffer.read())
found = [fill_prompt(PromptConfig(**asked["config"]), row) for row in asked["rows"]]
sys.stdout.buffer.write(b"\\n" + orjson.dumps(found))
"""


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    nemo_gym.install()


def theirs(code: str, given: bytes) -> Any:
    done = subprocess.run(
        [nemo_gym.HOME / "bin/python", "-W", "ignore", "-c", code],
        input=given, capture_output=True, timeout=300, check=False, env=nemo_gym.variables(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    return orjson.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("server", ["mcqa", "workplace_assistant", "math_with_judge"])
def test_metrics_of_its_own_rows_are_its_own(server: str, tmp_path: Path) -> None:
    rows = nemo_gym.data(server)
    ours = RowStatistics()
    for row in rows:
        ours.add(row)
    expected = theirs(THEIR_METRICS, b"\n".join(orjson.dumps(row) for row in rows))
    expected.pop("agent_ref", None)
    assert ours.to_json() == expected


def test_prompts_are_filled_as_it_fills_them() -> None:
    config = {"system": "Be {mood!r} {{}}.", "user": "{question} of {n:>4} and {tags} in {meta[a]}"}
    rows = [
        {"question": "What {is} this\u2028?", "n": 3, "tags": ["a", "b"], "meta": {"a": True}, "mood": "kind"},
        {"question": "", "n": 2.5, "tags": {}, "meta": {"a": "\u00e9"}, "mood": "'"},
    ]
    prompt = Prompt(PromptConfig.model_validate(config))
    expected = theirs(THEIR_PROMPTS, orjson.dumps({"config": config, "rows": rows}))
    assert [prompt.messages(row) for row in rows] == expected
