"""The run directory's rollouts, written by whoever plays them: NeMo RL's environment actor, or our agent server.

Rollouts of held-out tasks go to a run of their own, `<run>/evaluation`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from gymrail.collect.run_directory import RunDirectory
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec
from gymrail_nemo_rl.tasks import SPLIT

EVALUATION = "evaluation"


class Record:
    """Records rollouts in a run that the launcher made. NeMo RL numbers no repeats of a task, so they are numbered
    here; a run that goes on counts on."""

    def __init__(self, path: Path, specs: Iterable[EnvironmentSpec]) -> None:
        """
        Raises:
            InputError: there is no run, or another process writes it.
        """
        specs = list(specs)
        self._training = _Numbered(path, specs)
        held_out = path / EVALUATION
        self._held_out = _Numbered(held_out, specs) if held_out.is_dir() else None

    def __call__(self, rollout: Rollout) -> None:
        """Number a rollout and write it."""
        is_held_out = self._held_out is not None and SPLIT in rollout.task.row
        run = self._held_out if is_held_out else self._training
        assert run is not None
        run.record(rollout)

    def close(self) -> None:
        """Give the files back."""
        self._training.run.close()
        if self._held_out is not None:
            self._held_out.run.close()


class _Numbered:
    def __init__(self, path: Path, specs: list[EnvironmentSpec]) -> None:
        config = RunDirectory.open(path).config
        self.run = RunDirectory.create(path, config, environments=specs, resume=True)
        finished = (*self.run.finished(), *self.run.failed())
        self.played = Counter((each.key.environment, each.key.task_index) for each in finished)

    def record(self, rollout: Rollout) -> None:
        key = (rollout.environment, rollout.task_index)
        rollout.repeat = self.played[key]
        self.played[key] += 1
        self.run.record(rollout)
