"""What `gymrail data prepare` is asked for: environments, their files, or a plan in YAML.

    sources:
      - {environment: mcqa, split: train, path: raw/mcqa.jsonl, prompt: prompts/mcqa.yaml, repeats: 4}
      - {environment: word_math, split: train, limit: 1000}
      - {environment: word_math, split: validation}

Paths in a plan are relative to its file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gymrail.data.prepare import Source
from gymrail.data.prompts import Prompt
from gymrail.errors import InputError, did_you_mean
from gymrail.registry import find
from gymrail.spec import EnvironmentSpec, Split, explain

_FOR_TRAINING = ("train", "validation")


class PlannedSource(BaseModel):
    """One entry of a plan."""

    model_config = ConfigDict(extra="forbid")

    environment: str
    split: Split
    path: str | None = None
    prompt: str | None = None
    repeats: int = Field(1, ge=1)
    limit: int | None = Field(None, ge=1)
    seed: int = 0


class Plan(BaseModel):
    """The file's content."""

    model_config = ConfigDict(extra="forbid")

    sources: list[PlannedSource] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for sources that do not come from a plan."""

    splits: tuple[str, ...] = ()
    prompt: Prompt | None = None
    repeats: int = 1
    limit: int | None = None
    seed: int = 0


def sources_of(texts: Sequence[str], defaults: Defaults) -> list[Source]:
    """Return the sources that texts name: ENVIRONMENT, ENVIRONMENT=FILE.jsonl, or PLAN.yaml.

    An environment without splits in `defaults` gives its `train` and `validation`. A file named after a split
    (`validation.jsonl`) is of that split, any other of the one in `defaults`, or of `train`.

    Raises:
        InputError: there is no such environment, split or file.
    """
    for split in defaults.splits:
        if split not in get_args(Split):
            raise InputError(f"There is no split {split!r}. {did_you_mean(split, get_args(Split))}")
    return [source for text in texts for source in _sources(text, defaults)]


def _sources(text: str, defaults: Defaults) -> Iterator[Source]:
    if text.endswith((".yaml", ".yml")):
        if defaults != Defaults():
            raise InputError(
                f"A plan says what holds for each of its sources; write splits, prompts, repeats, limits into '{text}'."
            )
        yield from _planned(Path(text))
        return
    # An address may hold '=', a name does not.
    name, _, file = ("", "", "") if "://" in text else text.partition("=")
    spec = find(name or text)
    if file:
        path = Path(file)
        yield Source(
            spec, _split_of(path, defaults), path, defaults.prompt, defaults.repeats, defaults.limit, defaults.seed
        )
        return
    for split in defaults.splits or _splits_of(spec):
        yield Source(spec, split, None, defaults.prompt, defaults.repeats, defaults.limit, defaults.seed)


def _planned(path: Path) -> Iterator[Source]:
    try:
        plan = Plan.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"Cannot read the plan '{path}': {error.strerror or error}.") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {error}") from None
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error, Plan)}") from None
    folder = path.parent
    for planned in plan.sources:
        name = planned.environment
        is_relative = name.startswith((".", "/")) or name.endswith(".py")
        yield Source(
            find(str(folder / name) if is_relative else name),
            planned.split,
            folder / planned.path if planned.path else None,
            Prompt.read(folder / planned.prompt) if planned.prompt else None,
            planned.repeats,
            planned.limit,
            planned.seed,
        )


def _split_of(path: Path, defaults: Defaults) -> str:
    stem = path.name.partition(".")[0]
    if len(defaults.splits) > 1:
        raise InputError(f"'{path}' is of one split, not of {' and '.join(defaults.splits)}; name one with --split.")
    return defaults.splits[0] if defaults.splits else stem if stem in get_args(Split) else "train"


def _splits_of(spec: EnvironmentSpec) -> list[str]:
    listed = [entry.split for entry in spec.manifest.datasets]
    found = [split for split in _FOR_TRAINING if split in listed]
    if not found:
        raise InputError(f"{spec.name} has neither train nor validation; name its splits: --split NAME.")
    return found
