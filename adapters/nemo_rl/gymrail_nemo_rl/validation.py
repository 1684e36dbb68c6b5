"""`gymrail validate-trainer` with NeMo RL: the policy's lines on a stand-in, the rows that NeMo RL would train on, and
the recipe in the hands of NeMo RL's own loader where there is one. Its training loop needs a GPU: not run here."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gymrail.errors import GymrailError, InputError
from gymrail.recipe import Recipe
from gymrail.rollout import Rollout
from gymrail.serving.trained import trained_row
from gymrail.tokens import token_problem, training_row
from gymrail.validation.plan import Plan
from gymrail.validation.report import GROUPS, Line, Points
from gymrail.validation.sampled import sampled_of
from gymrail_nemo_rl.keys import TESTED_COMMIT
from gymrail_nemo_rl.place import Place
from gymrail_nemo_rl.settings import check_recipe
from gymrail_nemo_rl.train import train

TOKENS, LOOP = Points("tokens"), Points("loop")
_TRL = "pip install 'gymrail[trl]'"
_RUN = "On a machine with GPUs and NeMo RL: gymrail train RECIPE; docs/nemo_rl.md says what of this is tested without."


def check_trainer(plan: Plan) -> Iterator[Line]:
    """Yield the lines of the endpoint, of token ids and of the training loop."""
    played: list[Rollout] = []
    try:
        from gymrail_trl.validation import check_policy

        plan.notes.append("a policy behind our own endpoint, in the place of NeMo RL's vLLM")
        yield from check_policy(plan, played=played)
    except ImportError as error:
        for group in ("endpoint", "tokens"):
            yield Points(group).skipped(GROUPS[group].lower(), f"no policy can be made: {error}", _TRL)
    yield _rows(played)
    yield TOKENS.skipped("log-probs", "NeMo RL's training forward needs a GPU and its environment", _RUN)
    yield from _configuration(plan)
    yield LOOP.skipped("steps, weights, rewards, checkpoint, stop and resume", "NeMo RL trains on GPUs", _RUN)


def _rows(played: list[Rollout]) -> Line:
    """Hold both of NeMo RL's rows, the message log and the answer to `/run`, against what the sampler gave."""
    if not played:
        return TOKENS.skipped("trained tokens", "no episode was played", _TRL)
    problems: list[str] = []
    tokens = 0
    for rollout in played:
        where = f"{rollout.environment}, task {rollout.task_index}"
        found = sampled_of(rollout)
        if found is None:
            continue
        sequence, sampled = found
        tokens += len(sampled)
        row = training_row(rollout, placeholder_id=0).sequence
        if tuple(row.input_ids) != sequence or _assistant_places(row.segments) != sampled:
            problems.append(f"{where}: the message log is not what was sampled")
        problems += [f"{where}: {problem}" for problem in _answer_problems(rollout)]
    detail = f"{len(played)} rollouts, {tokens} sampled tokens: the same in the message log and in the answers to /run"
    return TOKENS.judged(
        "trained tokens", problems, detail, "Report this; make interop-nemo-rl holds it against NeMo RL."
    )


def _assistant_places(segments: Any) -> dict[int, float]:
    places: dict[int, float] = {}
    at = 0
    for segment in segments:
        if segment.role == "assistant":
            places |= {at + place: value for place, value in enumerate(segment.log_probs)}
        at += len(segment.token_ids)
    return places


def _answer_problems(rollout: Rollout) -> Iterator[str]:
    """What NeMo RL's post-processing asserts or takes in silence: each prompt goes on from what stands before it, and
    there are as many log-probs as ids."""
    items = trained_row(rollout, {"reward": rollout.reward, "response": {}})["response"]["output"]
    seen: list[int] = []
    for item in items:
        if not item.get("generation_token_ids"):
            continue
        prompt, ids = item["prompt_token_ids"], item["generation_token_ids"]
        problem = token_problem(prompt, ids, item.get("generation_log_probs"))
        if problem is not None:
            yield f"the answer to /run: {problem}"
        if prompt[: len(seen)] != seen:
            yield "the answer to /run is not contiguous, which ends NeMo RL's batch"
        seen = [*prompt, *ids]


def _configuration(plan: Plan) -> Iterator[Line]:
    fix = "Correct the recipe's settings; docs/nemo_rl.md has the keys."
    try:
        check_recipe(plan.recipe)
    except InputError as error:
        yield LOOP.failed("configuration", str(error), fix)
        return
    yield LOOP.passed("configuration", f"every key is one of NeMo RL's at {TESTED_COMMIT[:12]}")
    name = "NeMo RL's own check"
    try:
        place = Place.find()
    except InputError as error:
        yield LOOP.skipped(name, "there is no NeMo RL here", str(error))
        return
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # NeMo RL talks much; the log keeps it
            recipe = _for_check(plan)
            train(recipe)
    except GymrailError as error:
        yield LOOP.failed(name, str(error), fix)
        return
    commit = place.other_commit()
    whose = f"commit {commit[:12]}, tested was {TESTED_COMMIT[:12]}" if commit else f"commit {TESTED_COMMIT[:12]}"
    yield LOOP.passed(name, f"its loader and its classes take the configuration ({whose})")


def _for_check(plan: Plan) -> Recipe:
    """The recipe, to be checked alone and written elsewhere; a teacher's rollouts stand for its data."""
    settings = {**plan.recipe.settings, "gymrail": {**(plan.recipe.settings.get("gymrail") or {}), "check_only": True}}
    changes: dict[str, Any] = {"settings": settings, "output": str(plan.directory / "nemo_rl"), "resume": False}
    if plan.recipe.data and not all(Path(source).exists() for source in plan.recipe.data):
        changes["data"] = [str(_rollouts(plan))]
        plan.notes.append("a teacher's rollouts instead of the recipe's data")
    return plan.recipe.model_copy(update=changes)


def _rollouts(plan: Plan) -> Path:
    from gymrail.collect.event_loop import run_async
    from gymrail.collect.run_directory import RunDirectory
    from gymrail.models.scripted import Oracle
    from gymrail.validation.plan import play_plan

    path = plan.directory / "data"
    with RunDirectory.create(path, {"recipe": plan.recipe.name}, environments=plan.specs) as run:
        for rollout in run_async(play_plan(plan, Oracle(0.5, plan.recipe.seed), groups=16, repeats=4)):
            run.record(rollout)
    return path
