"""`stages.json`: what a training run has finished, so that `resume=true` goes on after it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from gymrail_trl.processes import is_first

STAGES = "stages.json"


class StageLog:
    """A run directory's finished stages with their results; what is written is complete in the file or not there. Of
    several processes, the first writes and speaks."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / STAGES
        text = self._file.read_text(encoding="utf-8") if self._file.is_file() else "{}"
        self.stages: dict[str, Any] = json.loads(text)
        self._started = time.monotonic()

    def write(self, stage: str, result: Any) -> None:
        self.stages[stage] = result
        if not is_first():
            return
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(self.stages, indent=1), encoding="utf-8")
        part.replace(self._file)

    @property
    def seconds(self) -> float:
        """Since this process began the run or went on with it."""
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        if is_first():
            print(f"[{self.seconds:5.0f} s] {text}", flush=True)
