"""A run that cannot work is refused before anything heavy is imported: five causes, three trainers, the real
command."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gymrail_trl.gpu import has_gpu


def load() -> ModuleType:
    """The benchmark that measures how long the same refusals take."""
    file = Path(__file__).parents[2] / "benchmarks" / "refusals.py"
    found = importlib.util.spec_from_file_location("gymrail_benchmark_refusals", file)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module


refusals = load()
CASES = refusals.cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.trainer}: {case.cause}: {case.fault}")
def test_a_run_that_cannot_work_is_refused_with_the_fix_before_torch_is_imported(
    case: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case.cause == "no GPU" and has_gpu():  # pyright: ignore[reportAttributeAccessIssue]
        pytest.skip("there is a GPU here")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    refusal = refusals.run(case, tmp_path)
    assert refusal.message.startswith("Error: ")
    assert "Traceback" not in refusal.message
    for word in refusal.case.words:
        assert word in refusal.message
    assert (refusal.code, refusal.loaded) == (2, [])
    assert not (tmp_path / "run").exists()


def test_every_trainer_meets_every_cause() -> None:
    causes = {"wrong key", "missing package", "version", "environment fails its check", "no GPU"}
    for trainer in ("trl", "unsloth", "nemo_rl"):
        assert {case.cause for case in CASES if case.trainer == trainer} == causes
