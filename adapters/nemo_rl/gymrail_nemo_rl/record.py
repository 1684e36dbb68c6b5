"""The run directory's rollouts, written by whoever plays them: NeMo RL's environment actor, or our agent server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from gymrail.collect.run_directory import RunDirectory
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec


class Record:
    """Records rollouts in a run that the launcher made. NeMo RL numbers no repeats of a task, so they are numbered
    here; a run that goes on counts on."""

    def __init__(self, path: Path, specs: Iterable[EnvironmentSpec]) -> None:
        """
        Raises:
            InputError: there is no run, or another process writes it.
        """
        config = RunDirectory.open(path).config
        self.run = RunDirectory.create(path, config, environments=specs, resume=True)
        finished = (*self.run.finished(), *self.run.failed())
        self._played = Counter((each.key.environment, each.key.task_index) for each in finished)

    def __call__(self, rollout: Rollout) -> None:
        """Number a rollout and write it."""
        key = (rollout.environment, rollout.task_index)
        rollout.repeat = self._played[key]
        self._played[key] += 1
        self.run.record(rollout)

    def close(self) -> None:
        """Give the files back."""
        self.run.close()
