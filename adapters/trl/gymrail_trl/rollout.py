"""GRPO through TRL's `rollout_func`: our agents play episodes over the trainer's live policy.

    rollouts = RolloutFunction({"train": mixture}, sampling=Sampling(max_output_tokens=64))
    GRPOTrainer(model, reward_funcs=[rollouts.reward], rollout_func=rollouts, train_dataset=group_dataset(mixture,
    "train", 1000), ...)

Token ids and log-probs are those that were sampled; tool results and user turns are masked. A rollout that failed is
never reward 0: it is played again where its failure may pass, and otherwise masked and left out of its group's mean.
TRL accepts wrong masks and lengths in silence; `gymrail.tokens` makes and checks them, for every trainer alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gymrail.agents.tool_loop import Agent
from gymrail.collect.batch import PlayedBatch
from gymrail.collect.batch_metrics import batch_metrics
from gymrail.collect.carried import Carried
from gymrail.collect.event_loop import LoopThread, run_async
from gymrail.collect.runner import Job, collect
from gymrail.data.mixture import Mixture
from gymrail.data.mixture_stream import MixtureStream
from gymrail.data.overlong import Overlong
from gymrail.episode import DEFAULT_LIMITS, Limits
from gymrail.errors import EpisodeFailed, GymrailError, InputError
from gymrail.models.token_model import DEFAULT_SAMPLING, Sampling, TokenModel
from gymrail.play import DEFAULT_AGENT
from gymrail.rollout import Rollout
from gymrail.tokens import TrainingRow, training_row
from gymrail_trl.places import play_places, rows_of
from gymrail_trl.policy import live_policy

logger = logging.getLogger("gymrail.trl")

TASK_KEY = "gymrail_task"
"""The key on a prompt's last message that says which group of which mixture it is; TRL carries message keys through
untouched."""
TRAIN = "train"
"""The split that is trained on."""


class RolloutFunction:
    """What `GRPOTrainer(rollout_func=...)` calls, and the reward function that goes with it."""

    def __init__(
        self,
        mixtures: Mapping[str, Mixture],
        *,
        agent: Agent = DEFAULT_AGENT,
        limits: Limits = DEFAULT_LIMITS,
        sampling: Sampling = DEFAULT_SAMPLING,
        context_length: int | None = None,
        concurrency: int = 256,
        retries: int = 1,
        train_truncated: bool = True,
        overlong: Overlong | None = None,
        record: Callable[[Rollout], None] | None = None,
        record_held_out: Callable[[Rollout], None] | None = None,
    ) -> None:
        """
        Args:
            mixtures: where groups come from, by the split's name in the dataset ("train", "validation"). One that is
                not plain is drawn batch by batch; save and restore its stream with `streams[split]`.
            context_length: tokens of a whole episode; the checkpoint's own limit by default.
            retries: how often an episode that failed for a passing reason is played again.
            train_truncated: train rollouts that ran out of a budget with the reward they earned; False masks them.
            overlong: lowers the trainer's reward of long answers; records keep the verifier's.
            record: called with every finished rollout, such as `RunDirectory.record`.
            record_held_out: called instead with those of other splits than "train"; they are not to be trained on.
        """
        self.mixtures = dict(mixtures)
        self.agent = agent
        self.limits = limits
        self.sampling = sampling
        self.context_length = context_length
        self.concurrency = concurrency
        self.retries = retries
        self.train_truncated = train_truncated
        self.overlong = overlong
        self.record = record
        self.record_held_out = record_held_out or record
        self.last_rollouts: list[Rollout] = []
        """The latest batch, in the order of its prompts."""
        self.last_batch: PlayedBatch | None = None
        """The latest batch of a mixture that is drawn batch by batch, with what was given up and what was late."""
        self.streams = {
            split: MixtureStream(mixture) for split, mixture in self.mixtures.items() if not mixture.is_plain
        }
        self.carried = {split: Carried() for split, mixture in self.mixtures.items() if mixture.mixing.carries}
        """What is in flight between batches, of mixtures with `late.carry`; `close` ends it."""
        self._loop: LoopThread | None = None
        self._scales = {
            member.spec.name: member.reward_scale for mixture in self.mixtures.values() for member in mixture.members
        }
        members = [member for mixture in self.mixtures.values() for member in mixture.members]
        _expect_rows_without_a_reward()
        self._subset_by = {member.spec.name: member.subset_by for member in members if member.subset_by is not None}
        self._policy: tuple[Any, TokenModel] | None = None

    def __call__(self, prompts: Sequence[Any], trainer: Any) -> dict[str, list[Any]]:
        """Play one episode per prompt (TRL repeats the prompts of a group) and return TRL's columns, row for row."""
        if getattr(trainer, "tools", None):
            raise InputError(
                "GRPOTrainer was given tools or environment_factory too; TRL would run its own loop on top. Pass one."
            )
        if self._policy is None or self._policy[0] is not trainer:
            self._policy = (trainer, live_policy(trainer, self.sampling, self.context_length))
        step, policy = trainer.state.global_step, self._policy[1]
        keys = self._keys(prompts)
        self.last_batch = None
        if keys and keys[0][0] in self.streams:
            stream = self.streams[keys[0][0]]
            run = self._running().run if keys[0][0] in self.carried else run_blocking
            batch: PlayedBatch = run(play_places(self, stream, keys, policy, trainer))
            self.last_batch, self.last_rollouts = batch, rows_of(batch, keys)
        else:
            split = keys[0][0] if keys else TRAIN
            self.last_rollouts = run_blocking(self._play(self._jobs(keys, trainer), policy, self.recorder(step, split)))
        tokenizer = getattr(trainer, "_tokenizer", trainer.processing_class)
        return self.to_columns(self.last_rollouts, tokenizer.eos_token_id)

    def close(self) -> None:
        """End the episodes that are played on between batches; without `late.carry` there are none."""
        if self._loop is not None:
            for carried in self.carried.values():
                self._loop.run(carried.close())
            self._loop.close()
            self._loop = None

    def _running(self) -> LoopThread:
        """The loop on which episodes outlive a batch."""
        if self._loop is None:
            self._loop = LoopThread()
        return self._loop

    def _keys(self, prompts: Sequence[Any]) -> list[tuple[str, int]]:
        keys = []
        for prompt in prompts:
            key = prompt[-1].get(TASK_KEY) if isinstance(prompt, list) and prompt else None
            if key is None:
                raise InputError(
                    f"A prompt has no {TASK_KEY!r}; make the dataset with group_dataset(mixture, split, groups)."
                )
            split, _, index = str(key).rpartition(":")
            if split not in self.mixtures:
                raise InputError(
                    f"The dataset names the mixture {split!r}; this RolloutFunction has {sorted(self.mixtures)}."
                )
            keys.append((split, int(index)))
        return keys

    def _jobs(self, keys: Sequence[tuple[str, int]], trainer: Any) -> list[Job]:
        start = trainer.accelerator.process_index * len(keys)
        generations = trainer.num_generations if trainer.model.training else trainer.num_generations_eval
        jobs = []
        for position, (split, index) in enumerate(keys):
            group = self.mixtures[split].group(index)
            jobs.append(Job(group.spec, group.task, index, (start + position) % generations))
        return jobs

    async def _play(self, jobs: Sequence[Job], model: TokenModel, record: Callable[[Rollout], None]) -> list[Rollout]:
        slots: dict[tuple[int, int], list[int]] = defaultdict(list)
        for position, job in enumerate(jobs):
            slots[job.task_index, job.repeat].append(position)
        rollouts: list[Rollout | None] = [None] * len(jobs)

        def keep(rollout: Rollout) -> None:
            rollouts[slots[rollout.task_index, rollout.repeat].pop()] = rollout

        await _set_up(jobs)
        await collect(
            jobs,
            model,
            agent=self.agent,
            limits=self.limits,
            concurrency=self.concurrency,
            retries=self.retries,
            record=record,
            on_rollout=keep,
        )
        finished = [rollout for rollout in rollouts if rollout is not None]
        assert len(finished) == len(jobs), f"{len(jobs)} rollouts asked, {len(finished)} came back"
        return finished

    def recorder(self, step: int, split: str = TRAIN) -> Callable[[Rollout], None]:
        """Return what is called with every finished rollout of a step."""
        keep = self.record if split == TRAIN else self.record_held_out

        def record(rollout: Rollout) -> None:
            rollout.metrics["train_step"] = step
            if keep is not None:
                keep(rollout)

        return record

    def to_columns(self, rollouts: Sequence[Rollout], eos_token_id: int) -> dict[str, list[Any]]:
        """Turn rollouts into TRL's columns; one that cannot be trained on becomes a masked row without a reward."""
        columns: dict[str, list[Any]] = {
            name: [] for name in ("prompt_ids", "completion_ids", "logprobs", "env_mask", "gymrail_reward")
        }
        for rollout in rollouts:
            row = training_row(rollout, placeholder_id=eos_token_id, train_truncated=self.train_truncated)
            if row.problem is not None:
                logger.warning("Rollout masked: %s", row.problem)
            if row.left_out:
                rollout.metrics["prefix_breaks"] = row.left_out
            columns["prompt_ids"].append(row.sequence.prompt_ids)
            columns["completion_ids"].append(row.sequence.completion_ids)
            columns["logprobs"].append(row.sequence.log_probs)
            columns["env_mask"].append(row.sequence.mask)
            columns["gymrail_reward"].append(self._reward_of(rollout, row))
        return columns

    def _reward_of(self, rollout: Rollout, row: TrainingRow) -> float | None:
        if row.reward is None:
            return None
        reward = row.reward * self._scales.get(rollout.environment, 1.0)
        if self.overlong is None:
            return reward
        rollout.metrics["overlong_penalty"] = penalty = self.overlong.of(row.sequence)
        return reward + penalty

    def reward(
        self, completions: Sequence[Any], gymrail_reward: Sequence[float | None], log_metric: Any = None, **_: Any
    ) -> list[float | None]:
        """The reward function to give to the trainer: the verifiers' rewards, None for rollouts that have none."""
        if len(gymrail_reward) != len(completions):
            raise InputError(
                "`reward` got rewards of another batch; use it together with the same object as rollout_func."
            )
        if log_metric is not None:
            batch = self.last_batch
            metrics = batch_metrics(self.last_rollouts if batch is None else batch.rollouts, self._subset_by)
            for name, value in {**metrics, **(batch.metrics() if batch is not None else {})}.items():
                log_metric(name, value)
        return list(gymrail_reward)


class _OwnRows(logging.Filter):
    """Lets all messages pass but TRL's on rows without any reward where the rows are ours."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = str(record.msg)
        return not (message.startswith("All reward functions returned None") and "'gymrail_reward': None" in message)


_OWN_ROWS = _OwnRows()


def _expect_rows_without_a_reward() -> None:
    """Keep TRL from asking, at every step, for a reward of what has none on purpose: failed episodes, and places that
    were not played. Failures are logged under `env/<name>/failed`."""
    logging.getLogger("trl.trainer.grpo_trainer").addFilter(_OWN_ROWS)


async def _set_up(jobs: Sequence[Job]) -> None:
    """Load what episodes share before any begins: else the first ones wait for it, share other batches with each other
    than they would later, and a run that goes on from a checkpoint samples other answers."""
    for spec in {id(job.spec): job.spec for job in jobs}.values():
        with contextlib.suppress(EpisodeFailed):  # it becomes every episode's own failure
            await spec.setup()


def run_blocking(work: Any) -> Any:
    """Run a coroutine to its end from plain code; in a thread of its own where a loop is running, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run_async(work)
    outcome: list[Any] = []
    failure: list[BaseException] = []

    def target() -> None:
        try:
            outcome.append(run_async(work))
        except GymrailError as error:
            failure.append(error)

    thread = threading.Thread(target=target, name="gymrail-rollouts")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    if not outcome:
        raise GymrailError("The rollouts broke; the traceback stands above.")
    return outcome[0]
