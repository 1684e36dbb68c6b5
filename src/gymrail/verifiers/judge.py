"""A language model as a judge: it is asked for one of a few labels, and each label has a score.

    model = OpenAIModel("Qwen/Qwen3-8B", "http://localhost:8000/v1")
    judge = Judge(model, EQUIVALENCE, swap=("answer", "expected_answer"))
    verdict = await judge("half past two", question="What time is it?", expected_answer="14:30")

A judge that fails, runs out of money or keeps answering without a label raises `VerifierError`: the rollout is a
failure and has no score. What the graded text may try is told in `judge_prompt`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from pydantic import Field, field_validator

from gymrail.charges import charge
from gymrail.errors import ContextOverflow, InputError, ModelError, VerifierError
from gymrail.limits import Prices
from gymrail.models.model import Model, ModelRequest
from gymrail.models.settings import ModelSettings
from gymrail.rollout import NO_USAGE, Usage, Verdict, text_of
from gymrail.verifiers.judge_prompt import EQUIVALENCE, JudgePrompt
from gymrail.verifiers.together import all_of

GREEDY: Mapping[str, Any] = {"temperature": 0.0}


class Opinion(NamedTuple):
    """What the votes came to."""

    label: str
    score: float
    votes: Mapping[str, int]
    """By label; those that could not change the result were not asked for."""
    agrees: bool | None = None
    """Whether the swapped order gave the same score; None where it was not asked."""


@dataclass(slots=True)
class Spending:
    """What a judge has used up; one object may be shared by several."""

    calls: int = 0
    usage: Usage = NO_USAGE
    cost: float = 0.0
    """US dollars, where there are prices."""


@dataclass(frozen=True)
class Judge:
    """Asks a model for a label. One instance serves many episodes and event loops at once."""

    model: Model
    prompt: JudgePrompt = EQUIVALENCE
    swap: tuple[str, str] | None = None
    """Two fields that are exchanged to ask again after a label that pays: a verdict that depends on the order pays
    `reward_if_swap_fails`."""
    reward_if_swap_fails: float = 0.0
    votes: int = 1
    """Opinions per order, of which most win; give the model a temperature above 0 with more than one. A tie goes to the
    lower score."""
    retries: int = 2
    """Further requests where an answer has no label."""
    parameters: Mapping[str, Any] = field(default_factory=lambda: GREEDY)
    """Responses parameters of every request."""
    max_concurrency: int = 64
    """Requests at once, per event loop."""
    timeout_seconds: float = 120.0
    """One request, the model's own retries included."""
    prices: Prices | None = None
    cost_limit: float | None = None
    """US dollars that this judge may cost as long as it lives; requests under way are finished."""
    spending: Spending = field(default_factory=Spending)
    _gates: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for name, least in (("votes", 1), ("retries", 0), ("max_concurrency", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be at least {least}.")
        if self.cost_limit is not None and (self.prices is None or not self.cost_limit > 0):
            raise InputError(f"cost_limit is {self.cost_limit!r}; it must be above 0, and goes with prices.")
        for name in self.swap or ():
            if name not in self.prompt.fields:
                raise InputError(
                    f"swap names {name!r}, which the prompt has not; it has {', '.join(self.prompt.fields)}."
                )

    async def __call__(self, answer: str, /, **fields: Any) -> Verdict:
        """Judge an answer, which the prompt calls `{answer}`.

        Raises:
            VerifierError: there is no verdict.
            InputError: a field of the prompt is missing.
        """
        opinion = await self.opinion({**fields, "answer": answer})
        reward = self.reward_if_swap_fails if opinion.agrees is False else opinion.score
        reason = f"the judge says {opinion.label}"
        if opinion.agrees is False:
            reason += ", and something else when the texts are exchanged"
        metrics = {"judge_label": opinion.label, "judge_votes": opinion.votes[opinion.label]}
        if opinion.agrees is not None:
            metrics["swap_agrees"] = opinion.agrees
        return Verdict(reward, metrics=metrics, reason=reason)

    async def opinion(self, fields: Mapping[str, Any]) -> Opinion:
        """Ask, in both orders where `swap` says so and the first label pays more than the least.

        Raises:
            VerifierError: there is no verdict.
            InputError: a field of the prompt is missing.
        """
        first = await self._vote(fields)
        if self.swap is None or first.score <= min(self.prompt.labels.values()):
            return first
        one, other = self.swap
        again = await self._vote({**fields, one: fields.get(other), other: fields.get(one)})
        return first._replace(agrees=again.score == first.score)

    async def aclose(self) -> None:
        """Close the model's connections; a later request opens new ones."""
        close = getattr(self.model, "close", None)
        if close is not None:
            await close()

    async def _vote(self, fields: Mapping[str, Any]) -> Opinion:
        counts: Counter[str] = Counter()
        while (missing := self._undecided(counts)) > 0:
            counts.update(await all_of(self._label(fields) for _ in range(missing)))
        best = min(counts, key=lambda label: (-counts[label], self.prompt.labels[label], label))
        return Opinion(best, self.prompt.labels[best], dict(counts))

    def _undecided(self, counts: Counter[str]) -> int:
        """How many more votes are needed before the result can be known."""
        left = self.votes - counts.total()
        lead = max(counts.values(), default=0)
        return min(left, max(0, self.votes // 2 + 1 - lead))

    async def _label(self, fields: Mapping[str, Any]) -> str:
        said = ""
        for _ in range(self.retries + 1):
            said = await self._ask(fields)
            label = self.prompt.label_in(said)
            if label is not None:
                return label
        labels = ", ".join(self.prompt.labels)
        raise VerifierError(
            f"The judge gave no verdict in {self.retries + 1} answers; the last was {_shorten(said)}, "
            f"without any of {labels}."
        )

    async def _ask(self, fields: Mapping[str, Any]) -> str:
        # A new fence each time, so that a model which always answers alike is not asked the same again.
        request = ModelRequest(
            self.prompt.messages(fields), parameters=self.parameters, timeout_seconds=self.timeout_seconds
        )
        loop = asyncio.get_running_loop()
        gate = self._gates.get(loop) or self._gates.setdefault(loop, asyncio.Semaphore(self.max_concurrency))
        async with gate:
            self._check_budget()
            try:
                async with asyncio.timeout(self.timeout_seconds):
                    response = await self.model.respond(request)
            except TimeoutError:
                raise VerifierError(f"The judge gave no answer within {self.timeout_seconds:g} seconds.") from None
            except (ModelError, ContextOverflow, InputError) as error:
                raise VerifierError(f"The judge failed: {error}") from error
            self._count(response.usage)
        return "\n".join(text_of(item) for item in response.items if item.get("role") == "assistant")

    def _check_budget(self) -> None:
        if self.cost_limit is not None and self.spending.cost >= self.cost_limit:
            raise VerifierError(
                f"The judge has cost ${self.spending.cost:.4g}, and its cost_limit is ${self.cost_limit:g}; "
                "raise it to go on."
            )

    def _count(self, usage: Usage) -> None:
        spending = self.spending
        spending.calls += 1
        spending.usage = spending.usage.plus(usage)
        dollars = self.prices.cost(usage) if self.prices is not None else 0.0
        spending.cost += dollars
        charge(usage, dollars)
        if self.cost_limit is not None and usage == NO_USAGE:
            raise VerifierError(
                "The judge's endpoint does not say how many tokens it used, so cost_limit cannot be kept."
            )


class JudgeSettings(ModelSettings):
    """A judge in an environment's settings."""

    parameters: dict[str, Any] = Field(default_factory=lambda: dict(GREEDY))
    votes: int = Field(1, ge=1)
    retries: int = Field(2, ge=0)
    """Further requests where an answer has no label."""
    max_concurrency: int = Field(64, ge=1)
    prices: Prices | None = None
    """US dollars per million tokens: `{input: 0.4, output: 1.6}`."""
    cost_limit: float | None = Field(None, gt=0)
    """US dollars per process; past it rollouts fail, and are not scored."""

    @field_validator("cost_limit")
    @classmethod
    def _has_prices(cls, limit: float | None, info: Any) -> float | None:
        if limit is not None and info.data.get("prices") is None:
            raise ValueError("nothing has a price; give 'prices' too")
        return limit

    def judge(
        self,
        prompt: JudgePrompt = EQUIVALENCE,
        *,
        swap: tuple[str, str] | None = None,
        reward_if_swap_fails: float = 0.0,
    ) -> Judge:
        """Return the judge; `aclose` is the caller's to call.

        Raises:
            InputError: there is no such model, or its key is missing.
        """
        return Judge(
            self.build(), prompt, swap=swap, reward_if_swap_fails=reward_if_swap_fails, votes=self.votes,
            retries=self.retries, parameters=self.parameters, max_concurrency=self.max_concurrency,
            timeout_seconds=self.timeout_seconds, prices=self.prices, cost_limit=self.cost_limit,
        )  # fmt: skip


def _shorten(text: str, limit: int = 120) -> str:
    shown = repr(text)
    return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."
