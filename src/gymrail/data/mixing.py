"""How a mixture is drawn and played as a whole: what a share counts, temperature, curriculum, dynamic sampling, late
episodes. Each default changes nothing."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Curriculum(_Section):
    """Play again what is neither too easy nor too hard for the policy as it is now.

    For a member with `subset_by`, tasks of the subset whose groups' rewards vary most are taken as they come, and of
    the other subsets a part: in proportion to the variance of theirs. This needs no task twice, so it suits generators
    and large datasets; the rest of the settings is for members without.

    There a task is measured whenever its group is played: its pass rate is where its mean reward lies in the
    environment's reward range, an older measurement counting half as much with each new one. Tasks within the band wait
    in a queue and come again, the one that waited longest first.
    """

    band: tuple[float, float] = (0.1, 0.9)
    """Pass rates that are kept, both ends included."""
    fresh: float = Field(default=0.5, gt=0, le=1)
    """The least share of draws that are not taken from the queue; all, while no task there has rested."""
    rest: int = Field(default=16, ge=0)
    """A task comes again after so many other draws of its environment, at the earliest, unless nothing else is due: a
    policy that meets the same few tasks in every batch learns those alone."""
    subset_floor: float = Field(default=0.1, gt=0, le=1)
    """Where a member has `subset_by`: of each subset's tasks, at least this share is taken, so that one that begins to
    teach, or does no more, is found out."""
    queue: int = Field(default=256, ge=1)
    """Tasks per environment in the queue; past it, the one that waited longest is let go."""
    refresh_steps: int = Field(default=50, ge=1)
    """A dataset's task out of the band is passed over for so many steps, and then measured again; for twice as many
    each time that it is found there once more."""

    @model_validator(mode="after")
    def _check_band(self) -> Curriculum:
        low, high = self.band
        if not 0 <= low < high <= 1:
            raise ValueError(f"band is [{low:g}, {high:g}]; it must be two numbers from 0 to 1, lower one first")
        return self


class DynamicSampling(_Section):
    """Refill groups in which every rollout earned the same: they have no advantages and teach nothing (DAPO,
    arXiv:2503.14476, section 3.2)."""

    refills: int = Field(default=2, ge=0)
    """How often a place in the batch is filled anew, from the curriculum's queue if there is one; after that it stays
    as it is. With 0 and a probe, a batch has the groups with spread that it would have had, most of them, for fewer
    tokens; with more, it has more of such groups."""
    probe: int | None = Field(default=None, ge=2)
    """Play so many rollouts of a group first, and the others only where those differ; all at once by default, and
    always for tasks of the curriculum's queue. Rewards alone decide, so what is trained on is chosen among tasks and
    not among answers."""
    least_spread: float = Field(default=0.0, ge=0, lt=1)
    """Refill an environment's places only while at least this share of its groups has had spread lately: where nearly
    all pass or nearly none, searching for the rare group costs more than it teaches."""


class Late(_Section):
    """Do not wait for the slowest: once `quorum` of a batch's episodes are over, the others have until `patience` times
    the seconds that took. What is late then is played on beside later batches, or `failed` (timeout) and masked; never
    reward 0."""

    quorum: float = Field(default=0.75, gt=0, lt=1)
    patience: float = Field(default=1.5, ge=1)
    carry: int = Field(default=0, ge=0)
    """Beside so many further batches a late group is played on; when it is over, it takes a place of the next batch.
    0 gives it up at once."""


class Mixing(_Section):
    """Settings of a whole mixture."""

    unit: Literal["episodes", "tokens"] = "episodes"
    """What shares count: groups in the batch, or the tokens that were sampled for them, as measured so far."""
    temperature: float = Field(default=1.0, gt=0)
    """Shares are in proportion to weight ** (1 / temperature): 1 leaves them, higher ones even them out."""
    size_exponent: float = Field(default=0.0, ge=0, le=1)
    """Weights are multiplied by the number of the member's tasks to this power first: 1 is in proportion to size."""
    curriculum: Curriculum | None = None
    dynamic_sampling: DynamicSampling | None = None
    late: Late | None = None

    @model_validator(mode="after")
    def _check_whole_groups(self) -> Mixing:
        if self.carries and self.dynamic_sampling is not None:
            raise ValueError(
                "late.carry and dynamic_sampling do not go together: a group that is played on beside other batches "
                "cannot be refilled in its own; leave out one"
            )
        return self

    @property
    def carries(self) -> bool:
        """Whether late groups are played on beside later batches."""
        return self.late is not None and self.late.carry > 0

    @property
    def is_plain(self) -> bool:
        """Whether a group's place decides it: nothing that was measured feeds back."""
        return self.unit == "episodes" and not (self.curriculum or self.dynamic_sampling or self.late)


PLAIN = Mixing()
