"""A mixture drawn batch by batch in TRL's loop: the dataset's rows are places, filled when they are reached."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from gymrail.collect.batch import PlayedBatch, placeholder, play_batch
from gymrail.data.mixture_stream import MixtureStream
from gymrail.errors import InputError
from gymrail.models.token_model import TokenModel
from gymrail.rollout import Rollout

if TYPE_CHECKING:
    from gymrail_trl.rollout import RolloutFunction

STATE = "mixture.json"
"""The file of a checkpoint that holds the stream's state."""

Keys = Sequence[tuple[str, int]]
"""Of each prompt, in order: the mixture's split and the place in it."""


async def play_places(
    function: RolloutFunction, stream: MixtureStream, keys: Keys, policy: TokenModel, trainer: Any
) -> PlayedBatch:
    """Draw and play the groups of a batch's places.

    Raises:
        InputError: the places are not the stream's next ones, or the batch is spread over several processes.
    """
    if trainer.accelerator.num_processes > 1:
        raise InputError(
            "This mixture is drawn by what was measured or by step, in one process; with several, use a plain mixture: "
            "weights, temperature and reward_scale alone."
        )
    step = trainer.state.global_step
    runs = [(index, len(list(run))) for index, run in groupby(index for _, index in keys)]
    places, repeats = [index for index, _ in runs], runs[0][1]
    if places != list(range(stream.slots, stream.slots + len(places))) or {count for _, count in runs} != {repeats}:
        raise InputError(
            f"The trainer asks for the places {places[0]} to {places[-1]} of the mixture, which is at place "
            f"{stream.slots}. Train with shuffle_dataset=False, and go on from a checkpoint with the state in its "
            f"{STATE}."
        )
    return await play_batch(
        stream,
        policy,
        groups=len(places),
        repeats=repeats,
        step=step,
        agent=function.agent,
        limits=function.limits,
        concurrency=function.concurrency,
        retries=function.retries,
        record=function.recorder(step, keys[0][0]),
        carried=function.carried.get(keys[0][0]),
    )


def rows_of(batch: PlayedBatch, keys: Keys) -> list[Rollout]:
    """Return the rollout of each prompt; where none was played, one that TRL's row is masked for."""
    first = keys[0][1]
    rows = []
    for position, (_, index) in enumerate(keys):
        repeat = position % (len(keys) // (keys[-1][1] - first + 1))
        place = index - first
        # Once the mixture's epochs are over, its last batch has fewer groups than places.
        played = batch.groups[place] if place < len(batch.groups) else None
        rollout = played.rollouts.get(repeat) if played is not None else None
        rows.append(rollout or placeholder((played or batch.groups[0]).group, repeat))
    return rows


class SaveMixture(TrainerCallback):
    """Writes the stream's state into every checkpoint."""

    def __init__(self, stream: MixtureStream) -> None:
        self.stream = stream

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (folder / STATE).write_text(json.dumps(self.stream.state()), encoding="utf-8")


def restore_mixture(stream: MixtureStream, checkpoint: Path) -> None:
    """Go on where the checkpoint was made.

    Raises:
        InputError: the checkpoint has no state, or one of another mixture.
    """
    file = checkpoint / STATE
    if not file.is_file():
        raise InputError(
            f"'{checkpoint}' has no {STATE}, so it does not say how far the mixture was; delete that checkpoint, and "
            "the run goes on from the one before."
        )
    stream.restore(json.loads(file.read_text(encoding="utf-8")))
