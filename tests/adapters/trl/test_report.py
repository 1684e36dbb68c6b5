"""What a run prints at its end."""

from __future__ import annotations

import math
from pathlib import Path

import orjson
import pytest

from gymrail_trl.report import Scores, print_stages, print_table, write_json

NAMES = ("tool_call_multireward", "workplace_assistant", "structured_outputs", "math_with_judge")
SCORE = {"mean": 0.4321, "low": 0.31, "high": 0.55, "tasks": 128}


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_every_environment_s_name_is_whole_however_narrow_the_terminal(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    scores: Scores = dict.fromkeys(map(str, NAMES), SCORE)

    print_table(scores, scores, "a recipe: held-out mean reward [95% interval]")
    print_stages([{"stage": "1_collect", "what": "collected, oracle:0.45", "scores": scores}], "a recipe")

    for shown in capsys.readouterr().out.split("a recipe")[1:]:
        assert all(name in shown for name in NAMES)
        assert "…" not in shown
        assert max(map(len, shown.splitlines())) <= columns
        assert shown.count("0.43") >= len(NAMES)


def test_what_cannot_be_measured_is_null_in_json_and_said_in_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one_task = {"mean": 0.5, "low": math.nan, "high": math.nan, "tasks": 1}
    none_scored = {"mean": math.nan, "low": math.nan, "high": math.nan, "tasks": 0}
    scores = {"word_math": one_task, "treasure_hunt": none_scored}

    print_table(scores, scores, "a recipe")
    write_json(tmp_path / "metrics.json", {"after": scores, "log": [{"loss": math.inf}]})

    shown = capsys.readouterr().out
    assert "nan" not in shown
    assert shown.count("none scored") == 2
    written = orjson.loads((tmp_path / "metrics.json").read_bytes())  # strict: no NaN
    assert written["after"]["word_math"] == {"mean": 0.5, "low": None, "high": None, "tasks": 1}
    assert written["after"]["treasure_hunt"]["mean"] is None
    assert written["log"] == [{"loss": None}]
