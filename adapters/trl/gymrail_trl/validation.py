"""`gymrail validate-trainer` with TRL: the lines that need a policy, an endpoint or a trainer.

A recipe is made small (`scaled_down`) and run through what `gymrail train` runs it through; `watched` looks into the
trainer meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gymrail.errors import GymrailError, InputError
from gymrail.models.transformers import load_tokenizer
from gymrail.recipe import Recipe
from gymrail.rollout import Rollout
from gymrail.template_check import Finding, check_template
from gymrail.validation.endpoint import check_endpoint
from gymrail.validation.plan import TINY, Plan
from gymrail.validation.report import GROUPS, Line, Points
from gymrail_trl.requirements import check_packages
from gymrail_trl.scaled_down import Load, Scaled, scale_down
from gymrail_trl.settings import build_config
from gymrail_trl.train import _quiet

if TYPE_CHECKING:
    from gymrail_trl.stages import Policy

TOKENS, LOOP = Points("tokens"), Points("loop")
Way = Literal["rollouts", "messages"]


def check_trainer(plan: Plan, load: Load | None = None) -> Iterator[Line]:
    """Yield the lines of the endpoint, of token ids and of the training loop.

    Args:
        load: as `gymrail_trl.train.train_checked` takes it.

    Raises:
        InputError: TRL is missing or out of range.
    """
    from gymrail_trl.loop import check_loop

    _quiet()
    if load is None:  # who loads has checked what that needs
        check_packages()
    refused = _configuration_problem(plan)
    if refused is not None:
        yield LOOP.failed("configuration", refused, "Correct the recipe's settings; docs/trl.md has the keys.")
        yield from left_out(("endpoint", "tokens"), "the recipe's settings are refused", "See Training loop.")
        return
    scaled = yield from check_policy(plan, load)
    if scaled is None:
        yield from left_out(("loop",), "there is no policy to train", "See OpenAI-compatible endpoint.")
        return
    sections = [plan.recipe, *(stage.sft or stage.dpo for stage in plan.recipe.stages)]
    settings = sum(len(section.settings) for section in sections if section is not None)
    accepted = LOOP.passed("configuration", f"the trainer takes the recipe's {settings} settings")
    plan.say("Training, and going on from a checkpoint")
    is_told = False
    for line in check_loop(scaled, load or load_with_transformers):
        if line.group == "loop" and not is_told:
            is_told = True
            yield accepted
        yield line


def check_policy(
    plan: Plan, load: Load | None = None, played: list[Rollout] | None = None
) -> Generator[Line, None, Scaled | None]:
    """Yield the lines that need a policy and no trainer, and return what to train, or None where there is no policy.

    Args:
        played: filled with the episodes that were played over the endpoint.
    """
    from gymrail_trl.stages import prepare_process, sampled

    _quiet()
    load = load or load_with_transformers
    try:
        prepare_process(plan.recipe)
        scaled = scale_down(plan, load)
        policy = load(scaled.plan.recipe, scaled.path)
        model = sampled(scaled.plan.recipe, policy)
    except GymrailError as error:
        yield from left_out(("endpoint", "tokens"), f"there is no policy to ask: {error}", "Name one: --model PATH.")
        return None
    yield from check_endpoint(scaled.plan, model, played)
    yield from _templates(plan, scaled)
    return scaled


def load_with_transformers(recipe: Recipe, path: str) -> Policy:
    """Load a policy as `gymrail train` with TRL does."""
    from gymrail_trl.stages import load_policy

    return load_policy(recipe, path)


def left_out(groups: tuple[str, ...], why: str, fix: str) -> Iterator[Line]:
    """Yield one line for each group that cannot be run."""
    for group in groups:
        yield Points(group).skipped(GROUPS[group].lower(), why, fix)


def _configuration_problem(plan: Plan) -> str | None:
    """What the trainer's own classes say to the recipe as it stands, before anything is made smaller."""
    from gymrail_trl.grpo import check_config, check_mixture

    recipe, output = plan.recipe, plan.directory / "unused"
    try:
        if recipe.algorithm == "iterated":
            for stage in recipe.stages:
                section = stage.sft or stage.dpo
                if section is not None:
                    build_config(recipe, stage.kind, section.settings, output)
            return None
        config = build_config(recipe, recipe.algorithm, recipe.settings, output)
        if recipe.warm_start is not None:
            build_config(recipe, "sft", recipe.warm_start.settings, output)
        if recipe.algorithm == "grpo":
            check_config(config)
            check_mixture(recipe, plan.specs, config)
    except InputError as error:
        return str(error)
    return None


def _templates(plan: Plan, scaled: Scaled) -> Iterator[Line]:
    # What is trained on messages is rendered by the recipe's own template; the stand-in's says nothing of that.
    way: Way = "rollouts" if plan.recipe.algorithm == "grpo" else "messages"
    if plan.model != TINY:
        yield _template(plan.model, plan.model, "chat template", way)
        return
    yield _template(scaled.path, "the tiny policy", "chat template", "rollouts")
    own = plan.recipe.model
    if own == TINY:
        return
    if Path(own).is_dir():
        yield _template(own, own, "the recipe's template", way)
    else:
        command = f"gymrail tokens check {own} --train {way}"
        yield TOKENS.skipped("the recipe's template", f"{own} is no folder on this machine", command)


def _template(path: str, shown: str, name: str, way: Way) -> Line:
    tokenizer, ends = load_tokenizer(path)
    report = asyncio.run(check_template(tokenizer, sorted(ends)))
    problems = [_said(finding) for finding in report.failures(way)]
    detail = (
        f"{shown}: {report.episodes} scripted episodes, {report.sampled_tokens} tokens, each trained once, nothing else"
    )
    fix = (
        f"gymrail tokens check {path} --train {way}"
        if shown == path
        else "See it with --keep DIR: gymrail tokens check DIR/start"
    )
    return TOKENS.judged(name, problems, detail, fix)


def _said(finding: Finding) -> str:
    is_sentence = finding.cause[:1].isupper()
    return f"{finding.cause if is_sentence else f'the template {finding.cause}'} (episode: {finding.probe})"
