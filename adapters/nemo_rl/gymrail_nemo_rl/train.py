"""`gymrail train` with NeMo RL: a recipe's data and configuration written, NeMo RL started on them, its results read.

    runs/<name>/data/                  what NeMo RL reads
                nemo_rl.yaml           the recipe in NeMo RL's words
                nemo_rl.resolved.yaml  with everything that it inherits, as NeMo RL's loader made it
                nemo_rl.log            what NeMo RL printed
                logs/ checkpoints/     NeMo RL's own
                rollouts.jsonl ...     every rollout, as in all runs
                evaluation/            those of held-out tasks, a run of its own
                metrics.json           per environment, and where the checkpoints are

This process needs neither NeMo RL nor a GPU; see `place` for how NeMo RL is found.
"""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from gymrail.collect.run_directory import RunDirectory
from gymrail.contract_quick import check_before_training
from gymrail.errors import GymrailError, InputError
from gymrail.recipe import Recipe
from gymrail.recipe_data import check_data
from gymrail.spec import EnvironmentSpec
from gymrail_nemo_rl.configuration import configuration
from gymrail_nemo_rl.keys import TESTED_COMMIT
from gymrail_nemo_rl.place import Place, check_gpu
from gymrail_nemo_rl.record import EVALUATION
from gymrail_nemo_rl.results import read_results
from gymrail_nemo_rl.settings import adapter_settings, check_recipe
from gymrail_nemo_rl.tasks import write_tasks

CONFIGURATION, LOG = "nemo_rl.yaml", "nemo_rl.log"
_STOP_SECONDS = 60


def train(recipe: Recipe) -> dict[str, Any]:
    """Run a recipe and return its summary, which is also written to `<run>/metrics.json`.

    Raises:
        InputError: before anything loads: a wrong setting, no NeMo RL, no GPU, an environment that fails its check, an
            existing run directory.
        GymrailError: NeMo RL ended with an error; its last words are in the text.
    """
    check_recipe(recipe)
    check_data(recipe, ("nemo-rl",))
    ours = adapter_settings(recipe)
    place = Place.find()
    if not ours.check_only:
        check_gpu()
    commit = place.other_commit()
    if commit is not None:
        sys.stderr.write(f"Note: NeMo RL is at {commit[:12]}; this adapter was tested with {TESTED_COMMIT[:12]}.\n")
    specs = recipe.specs()
    for note in check_before_training(recipe, specs):
        sys.stderr.write(f"Note: {note}\n")
    place.check_imports()
    make_run(recipe, specs)
    path = write_inputs(recipe, specs, place.source)
    with ExitStack() as stack:
        if recipe.algorithm == "grpo" and ours.path == "nemo_gym" and not ours.check_only:
            from gymrail_nemo_rl.agent import serving

            stack.enter_context(serving(recipe))
        _run(recipe, place, path, ours.check_only)
    if ours.check_only:
        return {"configuration": str(path)}
    return read_results(recipe, specs)


def make_run(recipe: Recipe, specs: Sequence[EnvironmentSpec]) -> None:
    """Make the run directory, and that of held-out rollouts in it; who plays them writes them.

    Raises:
        InputError: it holds a run, and the recipe does not resume.
    """
    config = recipe.model_dump(mode="json", exclude={"resume", "check"})
    is_held_out = recipe.algorithm == "grpo" and recipe.evaluation is not None
    for path in (recipe.directory, *([recipe.directory / EVALUATION] if is_held_out else [])):
        RunDirectory.create(path, config, environments=specs, resume=recipe.resume).close()


def write_inputs(recipe: Recipe, specs: Sequence[EnvironmentSpec], source: Path) -> Path:
    """Write the data files and the configuration; return the configuration's path.

    Raises:
        InputError: there is nothing to train on.
    """
    directory = recipe.directory.resolve()
    folder = directory / "data"
    data = write_tasks(recipe, specs, folder) if recipe.algorithm == "grpo" else _export(recipe, specs, folder)
    path = directory / CONFIGURATION
    text = yaml.safe_dump(configuration(recipe, specs, source, data), sort_keys=False)
    path.write_text(text, encoding="utf-8")
    return path


def _export(recipe: Recipe, specs: Sequence[EnvironmentSpec], folder: Path) -> dict[str, Path]:
    from gymrail.data.export import Dpo, Selection, Sft, export
    from gymrail.data.export.made import is_export, open_export

    sources = [Path(source) for source in recipe.data]
    ready = [source for source in sources if is_export(source) or source.suffix == ".jsonl"]
    if ready:
        if len(sources) > 1:
            raise InputError(
                "data: NeMo RL reads one export; name one, or the run directories that it is to be made of."
            )
        summary = open_export(ready[0], recipe.algorithm, ("nemo-rl",)) if is_export(ready[0]) else {}
        _refuse_filters(recipe, ready[0], {**summary.get("selection", {}), **summary.get("settings", {})})
        return {"train": (ready[0] / "train.jsonl" if ready[0].is_dir() else ready[0]).resolve()}
    kind = Sft() if recipe.algorithm == "sft" else Dpo(margin=recipe.margin)
    selection = Selection(min_reward=recipe.min_reward) if recipe.algorithm == "sft" else Selection()
    known = {spec.name: spec for spec in specs} or None
    export(sources, folder, kind, selection=selection, destination="nemo-rl", specs=known, overwrite=True)
    return {"train": folder / "train.jsonl"}


def _refuse_filters(recipe: Recipe, source: Path, asked: Mapping[str, float]) -> None:
    """NeMo RL reads rows as they are, so what the recipe asks of them must have been asked when they were exported."""
    for name, none in (("min_reward", "null"), ("margin", "0")):
        wanted = getattr(recipe, name)
        if wanted and not asked.get(name, -math.inf) >= wanted:
            raise InputError(
                f"{name} is {wanted!r}, and NeMo RL trains on all rows of '{source}', which were not chosen by it; "
                f"export with --{name.replace('_', '-')} {wanted:g}, or set {name}={none}."
            )


def _run(recipe: Recipe, place: Place, path: Path, check_only: bool) -> None:
    command = [
        str(place.python),
        "-m",
        "gymrail_nemo_rl.launch",
        "--algorithm",
        recipe.algorithm,
        "--config",
        str(path),
    ]
    command += ["--check-only"] if check_only else []
    log = path.with_name(LOG)
    last: list[str] = []
    with (
        log.open("a", encoding="utf-8") as file,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=place.source,
            env=place.variables(), start_new_session=True,
        ) as process,
    ):  # fmt: skip
        assert process.stdout is not None
        try:
            for line in process.stdout:
                file.write(line)
                sys.stderr.write(line)
                last = [*last[-4:], line.strip()]
            code = process.wait()
        finally:
            if process.poll() is None:  # interrupted
                _stop(process)
    if code != 0:
        said = " / ".join(word for word in last if word)
        raise GymrailError(f"NeMo RL ended with status {code}: {said or 'it said nothing'}. See '{log}'.")


def _stop(process: subprocess.Popen[str]) -> None:
    """End NeMo RL and what it started, politely first: it saves nothing on the way, but Ray leaves its workers."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
