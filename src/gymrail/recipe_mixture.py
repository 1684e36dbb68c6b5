"""A recipe's mixture: the one object that every trainer, warm start, stage and evaluation of it draws from."""

from __future__ import annotations

from collections.abc import Sequence

from gymrail.data.member import Member
from gymrail.data.mixture import Mixture
from gymrail.recipe import Recipe
from gymrail.spec import EnvironmentSpec


def mixture_of(recipe: Recipe, specs: Sequence[EnvironmentSpec], split: str | None = None) -> Mixture:
    """Build the recipe's mixture, or the same weights of another split; profiles choose training tasks only.

    Args:
        specs: the recipe's environments in its order, as `Recipe.specs` loads them.

    Raises:
        InputError: its members, or what it asks of them, do not go together.
    """
    pairs = list(zip(specs, recipe.mixture, strict=True))
    if split is not None:
        return Mixture([Member(spec, entry.weight, split) for spec, entry in pairs], seed=recipe.seed)
    return Mixture([entry.member(spec) for spec, entry in pairs], recipe.seed, recipe.mixing)


def plain_mixture_of(recipe: Recipe, specs: Sequence[EnvironmentSpec]) -> Mixture:
    """Build the recipe's mixture without what changes over steps: a teacher plays it, and later stages go on in it.

    Raises:
        InputError: as `mixture_of`.
    """
    return mixture_of(recipe, specs).plain()
