"""The stages of an iterated recipe: play, train on what was played, play again with what was trained.

stages:
  - collect: {model: "oracle:0.45", tasks: 2400}
  - sft: {filter: {min_reward: 1.0}, settings: {max_steps: 300}}
  - collect: {tasks: 600, repeats: 8}                     # with the policy that the stage before made
  - dpo: {pairs: {margin: 0.5}, settings: {max_steps: 60}}
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from gymrail.errors import InputError, did_you_mean
from gymrail.spec import explain

if TYPE_CHECKING:
    from gymrail.data.export import Dpo, Selection

T = TypeVar("T")

POLICY = "policy"
"""As a collect stage's model: what the stages before have trained."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CollectSection(_Section):
    """Play tasks of the mixture."""

    model: str = POLICY
    """`policy`, or a teacher as `gymrail rollout --model` takes it."""
    tasks: int = Field(1000, ge=1)
    """Drawn by the mixture's weights; a later collect stage goes on where this one ends."""
    repeats: int = Field(1, ge=1)
    """Rollouts of each task."""


class _TrainSection(_Section):
    filter: dict[str, Any] = {}
    """Which rollouts are trained on, as the options of `gymrail export`: `min_reward`, `dedup`, `balance`, ..."""
    settings: dict[str, Any] = {}
    """The trainer's own configuration of this stage."""

    @field_validator("filter")
    @classmethod
    def _check_filter(cls, values: dict[str, Any]) -> dict[str, Any]:
        from gymrail.data.export import Selection

        _built(Selection, values)
        return values

    def selection(self) -> Selection:
        from gymrail.data.export import Selection

        return _built(Selection, self.filter)


class SftSection(_TrainSection):
    """Supervised training on the rollouts of the collect stage before it."""


class DpoSection(_TrainSection):
    """Preference training on pairs of rollouts of the collect stage before it."""

    pairs: dict[str, Any] = {}
    """Which rollouts of a task make a pair, as the options of `gymrail export dpo`: `rule`, `margin`, ..."""

    @field_validator("pairs")
    @classmethod
    def _check_pairs(cls, values: dict[str, Any]) -> dict[str, Any]:
        from gymrail.data.export import Dpo

        _built(Dpo, values)
        return values

    @model_validator(mode="after")
    def _check_together(self) -> DpoSection:
        from gymrail.data.export.write import check_selection

        try:
            check_selection(self.kind(), self.selection())
        except InputError as error:
            raise ValueError(f"filter: {error}") from None
        return self

    def kind(self) -> Dpo:
        from gymrail.data.export import Dpo

        return _built(Dpo, self.pairs)


class StageSection(_Section):
    """One stage: exactly one of the three."""

    collect: CollectSection | None = None
    sft: SftSection | None = None
    dpo: DpoSection | None = None

    @model_validator(mode="after")
    def _check_one(self) -> StageSection:
        if len(self.model_fields_set) != 1 or None in (getattr(self, name) for name in self.model_fields_set):
            raise ValueError("a stage has exactly one of collect, sft and dpo")
        return self

    @property
    def kind(self) -> Literal["collect", "sft", "dpo"]:
        return "collect" if self.collect else "sft" if self.sft else "dpo"


def check_stages(stages: list[StageSection]) -> None:
    """Check that there is something to train on wherever there is training.

    Raises:
        ValueError: there is no stage, or a training stage has no collect stage before it, or pairs cannot come about.
    """
    if not stages:
        raise ValueError("algorithm iterated needs `stages`: a list of collect, sft and dpo")
    collect: CollectSection | None = None
    for place, stage in enumerate(stages):
        collect = stage.collect or collect
        if collect is None:
            raise ValueError(f"stages.{place} is {stage.kind}, and no collect stage comes before it")
        if stage.dpo and collect.repeats < 2:
            raise ValueError(
                f"stages.{place} is dpo, and the collect stage before it plays each task once; "
                "pairs need repeats of at least 2"
            )


def _built(cls: type[T], values: dict[str, Any]) -> T:
    """Make one of the export's dataclasses of a recipe's mapping."""
    known = [field.name for field in fields(cls)]  # pyright: ignore[reportArgumentType]
    for key in values:
        if key not in known:
            raise ValueError(f"unknown key '{key}'. {did_you_mean(str(key), known)}")
    try:
        return TypeAdapter(cls).validate_python(values)
    except InputError as error:
        raise ValueError(str(error)) from None
    except ValidationError as error:
        raise ValueError(explain(error, _Section)) from None
