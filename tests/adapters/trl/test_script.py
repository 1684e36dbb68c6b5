"""The training script that the README shows, word for word, on one process and on two."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("processes", [1, 2])
def test_the_training_script_shown_runs_on_one_process_and_on_two(
    processes: int, checkpoint: Callable[[str], str], tmp_path: Path
) -> None:
    script = ROOT / "docs" / "examples" / "train_with_trl.py"
    assert f"```python\n{script.read_text(encoding='utf-8')}```" in README
    launch = (
        [sys.executable] if processes == 1 else [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}

    done = subprocess.run(
        [*launch, str(script), checkpoint("tiny"), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=550,
        env=environment,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    logged = re.findall(r"'env/(\w+)/share': '([\d.]+)'", done.stdout)
    assert {name for name, _ in logged} == {"word_math", "treasure_hunt"}
