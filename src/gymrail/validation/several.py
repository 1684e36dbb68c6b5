"""Several environments at once: one batch has them all, by weight, and what one lacks breaks no other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from gymrail.collect.batch_metrics import batch_metrics
from gymrail.collect.event_loop import run_async
from gymrail.data.mixture_stream import MixtureStream
from gymrail.environment import Environment
from gymrail.errors import VerifierError
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec
from gymrail.validation.plan import Gold, Plan, play_plan
from gymrail.validation.report import Line, Points

POINTS = Points("several")
_BATCHES = 8


def check_several(plan: Plan) -> Iterator[Line]:
    """Play a batch of the mixture with the gold policies, and once more with one environment broken."""
    if len(plan.specs) < 2:
        why = "the recipe has one environment; there is nothing to mix"
        yield POINTS.skipped("one batch", why)
        yield POINTS.skipped("a missing metric", why)
        return
    mixture = plan.mixture
    groups = plan.groups(mixture)
    rollouts = run_async(play_plan(plan, Gold(), groups=groups, repeats=2))
    yield _one_batch(plan, groups, rollouts)
    yield _missing_metric(plan, rollouts)


def _one_batch(plan: Plan, groups: int, rollouts: list[Rollout]) -> Line:
    mixture = plan.mixture
    names = [member.spec.name for member in mixture.members]
    shares = dict(zip(names, MixtureStream(mixture).shares(0, groups), strict=True))
    played: Counter[str] = Counter()
    for name, _ in {(rollout.environment, rollout.task_index) for rollout in rollouts}:
        played[name] += 1
    problems = []
    for rollout in rollouts:
        if rollout.failure is not None:
            problems.append(f"{rollout.environment}, task {rollout.task_index} failed: {rollout.failure.message}")
    for name, share in shares.items():
        # By tokens, the first batch is drawn before any was counted: by groups as well.
        if abs(played[name] - share * groups) > 1 + 1e-9:
            problems.append(f"{name} has {played[name]} of {groups} groups, and its weight asks for {share * groups:g}")
        if share * groups >= 1 and not played[name]:
            problems.append(f"{name} has no group in a batch of {groups}")
    shown = ", ".join(f"{name} {played[name]} ({share * groups:.1f} asked)" for name, share in shares.items())
    fix = "See the mixture's weights, floors and schedule, and docs/trl.md, Mixtures."
    return POINTS.judged("one batch", problems, f"{groups} groups of 2: {shown}; {_drift(plan, groups)}", fix)


def _drift(plan: Plan, groups: int) -> str:
    mixture = plan.mixture
    if not mixture.is_plain:
        return "drawn batch by batch"
    asked, counts = mixture.shares(0), mixture.counts(groups * _BATCHES)
    off = max(abs(counts[name] - share * groups * _BATCHES) for name, share in asked.items())
    return f"over {_BATCHES} batches at most {off:.1f} groups off"


def _missing_metric(plan: Plan, rollouts: list[Rollout]) -> Line:
    """Break the verifier of the environment that comes last and hold the others' metrics against what they were."""
    victim = max({rollout.environment for rollout in rollouts})
    groups = plan.groups(plan.mixture)
    broken = Plan(
        plan.recipe, [_without_verdict(spec) if spec.name == victim else spec for spec in plan.specs], plan.model,
        plan.steps, plan.directory,
    )  # fmt: skip
    failed = [
        rollout
        for rollout in run_async(play_plan(broken, Gold(), groups=groups, repeats=2))
        if rollout.environment == victim
    ]
    others = [rollout for rollout in rollouts if rollout.environment != victim]
    before, after = batch_metrics(rollouts), batch_metrics([*others, *failed])
    problems = [f"{victim}: a verifier that broke gave the reward {r.reward}" for r in failed if r.reward is not None]
    for key, value in before.items():
        if not key.startswith(f"env/{victim}/") and not key.endswith("/share") and after.get(key) != value:
            problems.append(f"{key} changes from {value:g} to {after.get(key)} when {victim} has no reward")
    if f"env/{victim}/reward" in after:
        problems.append(f"env/{victim}/reward is reported as {after[f'env/{victim}/reward']:g} without any verdict")
    kept = sum(not key.startswith(f"env/{victim}/") for key in before)
    detail = f"without a verdict of {victim}: {len(failed)} rollouts failed, {kept} metrics of the others unchanged"
    return POINTS.judged(
        "a missing metric", problems, detail, "Report this: metrics of one environment reach another's."
    )


def _without_verdict(spec: EnvironmentSpec) -> EnvironmentSpec:
    async def verify(self: Environment[Any], rollout: Rollout) -> float:
        raise VerifierError("validate-trainer broke this verifier on purpose")

    cls = type(spec.cls.__name__, (spec.cls,), {"verify": verify})
    return EnvironmentSpec(spec.name, cls, spec.manifest, spec.config, spec.path, spec.source)
