"""Recipes: a YAML file that names an algorithm, a trainer, a model and a mixture; trainer-neutral but for `settings`.

    name: quickstart
    algorithm: grpo                 # grpo, sft, dpo, or iterated: a list of stages (`recipe_stages`)
    model: tiny                     # `tiny` (made from scratch), a checkpoint folder, or a hub id
    mixture:
      - environment: word_math      # a name, a folder or a file
        weight: 1
    settings: {max_steps: 100}      # the trainer's own configuration, checked against its class before anything loads

`gymrail train RECIPE key=value ...` overrides any key; dots go down: `settings.learning_rate=1e-5`,
`mixture.0.weight=2`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gymrail.data.member import Member
from gymrail.data.mixing import PLAIN, Mixing
from gymrail.errors import InputError, did_you_mean
from gymrail.recipe_stages import StageSection, check_stages
from gymrail.registry import find
from gymrail.spec import EnvironmentSpec, Split, explain


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MixtureEntry(_Section):
    """One environment of the mixture."""

    environment: str
    weight: float = Field(1.0, gt=0)
    split: str = "train"
    limit: int | None = Field(None, ge=1)
    """Use only the split's first tasks."""
    profile: str | None = None
    """A file that `gymrail profile` wrote: train on its tasks instead of the split's."""
    pass_rate: tuple[float, float] = (0.0, 1.0)
    """With `profile`: only on tasks whose pass rate lies within, such as [0.1, 0.9]."""
    weight_by: Literal["pass_rate"] | None = None
    """With `profile`: `pass_rate` draws each task as often as it teaches, in proportion to p (1 - p) as its rollouts
    let expect (see `gymrail.data.profiled.signal_of`); all tasks equally often by default."""
    config: dict[str, Any] = {}
    """Settings of the environment."""
    files: dict[Split, str] = {}
    """JSONL files of its tasks, by split, instead of its own: {train: data/math.jsonl}."""
    schedule: list[tuple[int, float]] = []
    """For grpo, instead of `weight`: weights at steps, such as [[0, 1], [200, 3]], linear between them."""
    floor: int = Field(0, ge=0)
    """For grpo: groups of it in every batch, whatever its weight."""
    epochs: int | None = Field(None, ge=1)
    """For grpo: how often its tasks are gone through; then its share passes to the others. Endless by default."""
    subset_by: str | None = Field(None, min_length=1)
    """For grpo: a field of its rows, such as their difficulty. Its values are logged apart, and a curriculum chooses
    among them instead of among tasks."""
    concurrency: int | None = Field(None, ge=1)
    """For grpo: its episodes at once."""
    deadline_seconds: float | None = Field(None, gt=0)
    """For grpo: its episodes that are not over so long after their batch began are not waited for."""
    reward_scale: float = Field(1.0, gt=0, allow_inf_nan=False)
    """For grpo: what its rewards are multiplied by for the trainer."""

    @model_validator(mode="after")
    def _check_pass_rate(self) -> MixtureEntry:
        low, high = self.pass_rate
        if not 0 <= low <= high <= 1:
            raise ValueError(f"pass_rate is [{low:g}, {high:g}]; it must be two numbers from 0 to 1, lower one first")
        if self.profile is None and (low, high) != (0.0, 1.0):
            raise ValueError("pass_rate needs `profile`: `gymrail profile RUN -o FILE` writes one")
        if self.profile is None and self.weight_by is not None:
            raise ValueError("weight_by needs `profile`: `gymrail profile RUN -o FILE` writes one")
        if self.schedule and "weight" in self.model_fields_set:
            raise ValueError("schedule takes the place of weight; leave out one")
        return self

    def member(self, spec: EnvironmentSpec) -> Member:
        """Return the entry as a mixture's member."""
        return Member(
            spec,
            self.weight,
            self.split,
            self.limit,
            Path(self.profile) if self.profile else None,
            self.pass_rate,
            self.weight_by,
            schedule=tuple(self.schedule),
            floor=self.floor,
            epochs=self.epochs,
            subset_by=self.subset_by,
            concurrency=self.concurrency,
            deadline_seconds=self.deadline_seconds,
            reward_scale=self.reward_scale,
        )


class AgentSection(_Section):
    """How episodes are played."""

    max_steps: int | None = Field(None, ge=1)
    """Model calls per episode; the environment's own setting by default."""
    concurrency: int = Field(256, ge=1)
    """Episodes at once."""
    call_seconds: float = Field(60.0, gt=0)
    episode_seconds: float = Field(3600.0, gt=0)
    retries: int = Field(1, ge=0)
    """How often an episode that failed for a passing reason is played again."""
    token_limit: int | None = Field(None, ge=1)
    """Input and output tokens per episode; at this and the limits below, the rollout is truncated and judged."""
    output_token_limit: int | None = Field(None, ge=1)
    """Output tokens per episode."""
    tool_call_limit: int | None = Field(None, ge=1)
    """Tool calls per episode."""
    time_limit_seconds: float | None = Field(None, gt=0)
    """Seconds after which no step begins; what a slow episode has reached is judged, not lost."""


class SamplingSection(_Section):
    """How the policy samples, in training and in evaluation."""

    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_output_tokens: int = Field(512, ge=1)
    """Per model call."""
    context_length: int | None = Field(None, ge=1)
    """Tokens of a whole episode; the checkpoint's own limit by default."""


class WarmStartSection(_Section):
    """Supervised training on a teacher's rollouts, before anything else."""

    teacher: str = "oracle"
    """As `gymrail rollout --model` takes it; `oracle:0.5` errs in half of its turns."""
    rollouts: int = Field(2000, ge=1)
    min_reward: float | None = None
    """Train only on rollouts that earned at least this much; all by default, so that a noisy teacher gives a noisy
    pupil."""
    settings: dict[str, Any] = {}
    """The trainer's SFT configuration."""


class EvaluationSection(_Section):
    """Held-out reward, measured before and after training."""

    split: str = "validation"
    tasks: int = Field(128, ge=1)
    """Per environment."""
    repeats: int = Field(1, ge=1)


class OverlongSection(_Section):
    """Lowers the reward of long answers, for grpo: by nothing up to `sampling.max_output_tokens - buffer` tokens, by
    `penalty` at `max_output_tokens`, linearly between (DAPO, arXiv:2503.14476, equation 13). Of an episode's answers
    the longest counts. Records keep the verifier's reward."""

    buffer: int = Field(ge=1)
    penalty: float = Field(1.0, gt=0, allow_inf_nan=False)


class TinySection(_Section):
    """Size of the policy that `model: tiny` makes."""

    hidden_size: int = Field(64, ge=1)
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    vocabulary: int = Field(384, ge=1)
    context_length: int = Field(512, ge=1)

    @model_validator(mode="after")
    def _check_heads(self) -> TinySection:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(
                f"hidden_size is {self.hidden_size}; it must be a multiple of 2 * heads ({2 * self.heads})"
            )
        return self


class LoraSection(_Section):
    """Low-rank adapters (needs peft)."""

    r: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"


class UnslothSection(_Section):
    """How `trainer: unsloth` loads the policy; the other trainers do not read it, so that `trainer` stays one line."""

    load_in_4bit: bool = False
    """Quantise the frozen weights (needs `lora`, a GPU and bitsandbytes)."""
    load_in_8bit: bool = False
    fast_inference: bool = False
    """Sample with vLLM, on the weights being trained (needs `lora`, a GPU and vLLM)."""
    gpu_memory_utilization: float = Field(0.5, gt=0, le=1)
    """Of the GPU's memory, what vLLM takes."""
    gradient_checkpointing: bool | Literal["unsloth"] = "unsloth"
    """`unsloth` keeps activations in main memory meanwhile."""


class Recipe(_Section):
    """A whole recipe."""

    name: str
    algorithm: Literal["grpo", "sft", "dpo", "iterated"]
    trainer: str = "trl"
    model: str
    dtype: str = "auto"
    """"auto" (as saved), "float32", "bfloat16", ..."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of the tensor library; one for `tiny`, where more only wait for each other, its own default
    otherwise."""
    seed: int = 0
    output: str | None = None
    """The run directory; `runs/<name>` by default."""
    resume: bool = False
    """Go on in an existing run directory: finished stages are kept, training continues from its last checkpoint."""
    check: bool = True
    """Have a handful of each environment's tasks solved and judged before anything loads (`contract_quick`)."""
    mixture: list[MixtureEntry] = []
    mixing: Mixing = PLAIN
    """How it is drawn and played as a whole: unit, temperature, curriculum, dynamic sampling, late episodes."""
    data: list[str] = []
    """For sft and dpo: run directories or exported JSONL files to train on."""
    min_reward: float | None = None
    """For sft from run directories: only rollouts that earned at least this much."""
    margin: float = 0.0
    """For dpo from run directories: the chosen rollout must earn more than the rejected one by over this much."""
    agent: AgentSection = AgentSection()  # pyright: ignore[reportCallIssue]
    sampling: SamplingSection = SamplingSection()  # pyright: ignore[reportCallIssue]
    tiny: TinySection = TinySection()  # pyright: ignore[reportCallIssue]
    lora: LoraSection | None = None
    unsloth: UnslothSection = UnslothSection()  # pyright: ignore[reportCallIssue]
    warm_start: WarmStartSection | None = None
    stages: list[StageSection] = []
    """For iterated: what is played and trained, in order."""
    evaluation: EvaluationSection | None = None
    overlong: OverlongSection | None = None
    train_truncated: bool = True
    """Whether rollouts that ran out of a budget are trained on with the reward they earned, or masked."""
    settings: dict[str, Any] = {}

    @model_validator(mode="after")
    def _check_parts(self) -> Recipe:
        if self.algorithm in ("grpo", "iterated") and not self.mixture:
            raise ValueError(f"algorithm {self.algorithm} needs a mixture of at least one environment")
        if self.algorithm == "iterated":
            check_stages(self.stages)
            self._refuse_for_stages()
        elif self.stages:
            raise ValueError(f"`stages` goes with algorithm iterated, not with {self.algorithm}")
        if self.algorithm in ("sft", "dpo") and not self.data and self.warm_start is None:
            raise ValueError(f"algorithm {self.algorithm} needs `data`: run directories or exported JSONL files")
        names = [entry.environment for entry in self.mixture]
        if len(set(names)) != len(names):
            raise ValueError(f"the mixture names an environment twice: {names}")
        if self.algorithm != "grpo":
            self._refuse_but_for_grpo()
        elif self.sampling.temperature == 0:
            raise ValueError("sampling.temperature is 0; grpo learns from rollouts of a task that differ: 1.0 is usual")
        elif self.overlong is not None and self.overlong.buffer >= self.sampling.max_output_tokens:
            raise ValueError(
                f"overlong.buffer is {self.overlong.buffer}; it must be below sampling.max_output_tokens "
                f"({self.sampling.max_output_tokens})"
            )
        return self

    def _refuse_but_for_grpo(self) -> None:
        if self.overlong is not None:
            raise ValueError(f"overlong goes with algorithm grpo, not with {self.algorithm}")
        for name in ("unit", "curriculum", "dynamic_sampling", "late"):
            if getattr(self.mixing, name) != getattr(PLAIN, name):
                raise ValueError(f"mixing.{name} goes with algorithm grpo, not with {self.algorithm}")
        for entry in self.mixture:
            for name in ("schedule", "floor", "epochs", "subset_by", "concurrency", "deadline_seconds", "reward_scale"):
                if name in entry.model_fields_set:
                    raise ValueError(
                        f"{name} of {entry.environment} goes with algorithm grpo, not with {self.algorithm}"
                    )

    def _refuse_for_stages(self) -> None:
        places = {
            "settings": "each sft and dpo stage has its own",
            "data": "a stage trains on the collect stage before it",
            "min_reward": "write stages.N.sft.filter.min_reward",
            "margin": "write stages.N.dpo.pairs.margin",
            "warm_start": "begin the stages with collect and sft",
        }
        for name, instead in places.items():
            if getattr(self, name) not in ({}, [], None, 0.0):
                raise ValueError(f"`{name}` does not go with algorithm iterated: {instead}")

    @property
    def directory(self) -> Path:
        return Path(self.output or f"runs/{self.name}")

    def specs(self) -> list[EnvironmentSpec]:
        """Load the mixture's environments, configured, in order.

        Raises:
            InputError: one does not exist or its settings are wrong.
        """
        found = [(find(entry.environment), entry) for entry in self.mixture]
        configured = [(spec.with_config(entry.config) if entry.config else spec, entry) for spec, entry in found]
        return [spec.with_files(entry.files) if entry.files else spec for spec, entry in configured]


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `key=value` overrides.

    Raises:
        InputError: no such file, an unknown key (with the nearest), a value of the wrong type.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"No recipe at '{path}'.{_near_recipes(path)}")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: a recipe is a mapping of keys to values, not {type(data).__name__}.")
    data.setdefault("name", path.stem)
    for override in overrides:
        _apply(data, override)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise InputError(f"Recipe {path}: {explain(error, Recipe)}.") from None


def _apply(data: dict[str, Any], override: str) -> None:
    key, mark, text = override.partition("=")
    if not mark or not key:
        raise InputError(f"{override!r} is no override; write key=value, for example settings.max_steps=20.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    if isinstance(value, str):
        value = _number(value)
    target: Any = data
    *path, last = key.split(".")
    for part in path:
        target = _step(target, part, override)
    if isinstance(target, list):
        target[_index(target, last, override)] = value
    else:
        target[last] = value


def _step(target: Any, part: str, override: str) -> Any:
    if isinstance(target, list):
        return target[_index(target, part, override)]
    if target.get(part) is None:
        target[part] = {}
    if not isinstance(target[part], dict | list):
        raise InputError(f"{override!r}: '{part}' is {target[part]!r}, which has no keys inside.")
    return target[part]


def _index(target: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(target):
        raise InputError(f"{override!r}: {part!r} is no position in a list of {len(target)}; the first is 0.")
    return int(part)


def _number(text: str) -> str | float:
    """YAML 1.1 reads 1e-5 as text; nobody means that."""
    try:
        return float(text) if any(mark in text for mark in "eE") and text[0] in "+-.0123456789" else text
    except ValueError:
        return text


def _near_recipes(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path("recipes")
    names = [str(found) for found in sorted(folder.rglob("*.yaml"))] if folder.is_dir() else []
    return f" {did_you_mean(str(path), names)}" if names else ""


def yaml_numbers(settings: dict[str, Any]) -> dict[str, Any]:
    """Turn texts such as 1e-5, which YAML 1.1 does not take for numbers, into numbers."""
    return {key: _number(value) if isinstance(value, str) and value else value for key, value in settings.items()}
