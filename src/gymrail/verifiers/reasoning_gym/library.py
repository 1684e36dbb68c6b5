"""The `reasoning-gym` library: its datasets, their items, and the answers that its items do not give in `answer`."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from gymrail.errors import InputError, did_you_mean

EXCLUDED = {
    "boxnet": "the library gives no answer, so nothing shows that its tasks can be solved",
    "codeio": "making a task runs collected code of many authors, and its tasks differ from run to run",
    "composite": "it only mixes other datasets, as `datasets` does",
    "rush_hour": "the library gives no answer, so nothing shows that its tasks can be solved",
}
"""Datasets that tasks are drawn from only when the settings name them; their rows are scored like all others."""

_READS_FILES = frozenset(
    {"arc_agi", "codeio", "figlet_font", "group_anagrams", "rearc", "spell_backward", "word_ladder"}
)
"""Datasets that read large files when they are made, and nothing that depends on the seed."""


@functools.lru_cache(maxsize=16)
def _names(chosen: tuple[str, ...]) -> tuple[str, ...]:
    known = _datasets()
    for name in chosen:
        if name not in known:
            raise InputError(f"reasoning-gym has no dataset {name!r}. {did_you_mean(name, known)}")
        if name == "composite":
            raise InputError(f"The dataset 'composite' cannot be drawn from: {EXCLUDED[name]}; list those others.")
    return chosen or tuple(sorted(name for name in known if name not in EXCLUDED))


def dataset_names(chosen: Sequence[str]) -> tuple[str, ...]:
    """Return the chosen datasets, or all that are not excluded.

    Raises:
        InputError: the library has no such dataset; the text names the nearest.
    """
    return _names(tuple(chosen))


def make_entry(name: str, seed: int, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return one item as JSON carries it: `question`, `answer`, `metadata`. Equal seeds give equal items.

    Raises:
        InputError: the dataset does not take these parameters.
    """
    return json.loads(_written(name, seed, json.dumps(dict(parameters), sort_keys=True)))


@functools.lru_cache(maxsize=2048)
def _written(name: str, seed: int, parameters: str) -> str:
    """The item as text. A split is drawn from one generator by leaving out what belongs to others, so that the same
    items are asked for again and again, and some take a tenth of a second."""
    settings = json.loads(parameters)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        # Some datasets leave files for the collector to close, and print.
        warnings.simplefilter("ignore")
        if name in _READS_FILES and not settings:
            dataset = _shared_dataset(name)
            dataset.seed = seed
        else:
            dataset = make_dataset(name, seed, settings)
        return json.dumps(dataset[0], default=_plain)


def make_dataset(name: str, seed: int | None, parameters: Mapping[str, Any]) -> Any:
    """Return a dataset of one item.

    Raises:
        InputError: the dataset does not take these parameters.
    """
    kind, config_kind = _datasets()[name]
    try:
        config = config_kind(**{"size": 1, **({} if seed is None else {"seed": seed}), **parameters})
        getattr(config, "validate", lambda: None)()
    except (TypeError, ValueError, AssertionError) as error:
        raise InputError(
            f"reasoning-gym's {name} does not take the parameters {dict(parameters)!r}: {error}."
        ) from None
    return kind(config=config)


def dataset_of(metadata: Any) -> str:
    """Return the name of the dataset that an item is of, from its metadata.

    Raises:
        InputError: the metadata does not say it.
    """
    name = metadata.get("source_dataset") if isinstance(metadata, Mapping) else None
    if not isinstance(name, str) or not name:
        raise InputError(f"metadata.source_dataset is {name!r}; it must name one of reasoning-gym's datasets.")
    return name


def gold_answer(name: str, entry: Mapping[str, Any]) -> str:
    """Return a right answer: the item's own, or what its metadata gives as one.

    Raises:
        InputError: the library gives none.
    """
    answer, metadata = entry["answer"], entry["metadata"]
    if answer is not None:
        return answer
    if name == "graph_color" and "possible_answer" in metadata:
        return json.dumps(metadata["possible_answer"])
    for field in ("example_answer", "example_correct_answer"):
        if field in metadata:
            return metadata[field]
    raise InputError(f"reasoning-gym's {name} gives no answer to this task; the gold policy cannot play it.")


@functools.cache
def _shared_dataset(name: str) -> Any:
    return make_dataset(name, 0, {})


def _datasets() -> dict[str, Any]:
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise InputError(f"This needs reasoning-gym ({error}): pip install 'gymrail[reasoning-gym]'") from None
    return DATASETS


def _plain(value: Any) -> Any:
    """What JSON cannot carry: numbers of numpy as numbers, dates and symbols as text."""
    to_list = getattr(value, "tolist", None)
    return to_list() if callable(to_list) else str(value)
