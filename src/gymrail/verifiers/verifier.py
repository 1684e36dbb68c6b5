"""What every verifier of this folder is: an async callable from an answer and the row's fields to a `Verdict`.

    verifier = ExactAnswer(extract="boxed")
    verdict = await verifier(r"so it is \\boxed{4}", expected_answer="4")     # Verdict(reward=1.0, ...)

An environment calls it from `verify`; `gymrail.verifiers.reward.reward_function` makes a TRL reward function of it,
whose dataset columns are the fields.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from gymrail.rollout import Verdict


@runtime_checkable
class Verifier(Protocol):
    """Scores one answer. Whoever implements it declares the row fields it needs as keyword parameters.

    Raises:
        VerifierError: it could not judge (a judge that is down or answers nonsense): a failure, never a score.
        InputError: a field has a value that cannot be judged by.
    """

    async def __call__(self, answer: str, /, **fields: Any) -> Verdict:
        """Judge the text of an answer; `fields` are named as in the task row (`expected_answer`, `question`, ...)."""
        ...
