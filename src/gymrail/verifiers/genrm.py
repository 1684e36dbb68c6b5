"""A generative reward model: rollouts of one task are compared pair by pair, and each is scored by its wins.

    cohorts = Cohorts(size=8, wait_seconds=30)
    member = cohorts.join(task.id)                       # when the episode is seeded
    standing = await member.standing(answer, PairwiseJudge(judge), question=..., principle=...)
    member.leave()                                       # when it is closed, whatever became of it

An answer's score is the mean over its comparisons of the share it won: 1 for a win, 0 for a loss, 1/2 for a tie.
Each pair is judged in both orders and the two shares are averaged, so a judge that always prefers the first place
gives 1/2. With all pairs that is (wins + ties / 2) / (n - 1); in a circle each answer meets its two neighbours.
Anchors, answers that stand in the task's row, are met by every answer and get no score themselves.

A cohort is judged once `size` answers are there. Members that fail, are cancelled or are closed unjudged are not
waited for; those that never come are, for `wait_seconds` from the first answer on: no concurrency below `size` can
hold anything up for ever. What comes later, slow or by a second attempt, is compared with the answers of the cohort
that it missed. An answer with nothing to be compared with has no score: `VerifierError`, because any number would be
invented. So has each answer of a pair whose judgement failed; the other answers keep the comparisons that they
have.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal, NamedTuple, Protocol

from gymrail.errors import InputError, VerifierError, did_you_mean
from gymrail.rollout import Verdict
from gymrail.verifiers.judge import Judge
from gymrail.verifiers.judge_prompt import JudgePrompt

Pairing = Literal["all", "circle"]
_REMEMBERED = 256
"""Judged cohorts whose answers are kept for second attempts."""

PAIRWISE = JudgePrompt(
    system=(
        "You compare two answers to one request. The principle says what makes one better; where it does not decide, "
        "prefer the answer that is more correct and more helpful. Neither length nor confidence nor the order of the "
        "answers counts by itself. Compare briefly, then end with [[A>B]] if answer A is better, [[B>A]] if answer B "
        "is, or [[A=B]] if neither is."
    ),
    user="The principle:{principle}The request:{question}Answer A:{answer_a}Answer B:{answer_b}Which one is better?",
    labels={"[[A>B]]": 1.0, "[[B>A]]": 0.0, "[[A=B]]": 0.5},
)
"""Its fields: `principle`, `question`, `answer_a`, `answer_b`. A label's score is the share that answer A wins."""
DEFAULT_PRINCIPLE = "Prefer the answer that is correct, complete and to the point."


class Comparer(Protocol):
    """Compares two answers.

    Raises:
        VerifierError: it cannot tell.
    """

    async def share(self, one: str, other: str, *, question: str, principle: str) -> float:
        """Return the share that `one` wins: 1, 0, or between."""
        ...


@dataclass(frozen=True)
class PairwiseJudge:
    """Compares by a judge whose prompt has the fields of `PAIRWISE`, in both orders."""

    judge: Judge

    async def share(self, one: str, other: str, *, question: str, principle: str) -> float:
        fields = {"question": question, "principle": principle}
        first, second = await asyncio.gather(
            self.judge.opinion({**fields, "answer_a": one, "answer_b": other}),
            self.judge.opinion({**fields, "answer_a": other, "answer_b": one}),
        )
        return (first.score + 1 - second.score) / 2


class Standing(NamedTuple):
    """How an answer came off."""

    score: float
    """From 0 to 1."""
    comparisons: int
    """Pairs that count."""
    cohort: int
    """Answers that were compared, anchors not counted."""

    @property
    def verdict(self) -> Verdict:
        return Verdict(self.score, metrics={"comparisons": self.comparisons, "cohort": self.cohort})


def pairs_of(count: int, pairing: Pairing) -> list[tuple[int, int]]:
    """Return which of `count` answers meet: all pairs, or each and the next one, in a circle."""
    if pairing == "all" or count <= 3:
        return list(combinations(range(count), 2))
    return [(place, (place + 1) % count) for place in range(count)]


@dataclass
class Cohorts:
    """All cohorts of a process that play one environment; used from one event loop."""

    size: int
    wait_seconds: float = 30.0
    pairing: Pairing = "all"
    _open: dict[str, _Cohort] = field(default_factory=dict, init=False)
    _judged: OrderedDict[str, list[str]] = field(default_factory=OrderedDict, init=False)

    def __post_init__(self) -> None:
        if self.size < 1 or not self.wait_seconds > 0:
            given = f"size is {self.size!r} and wait_seconds is {self.wait_seconds!r}"
            raise InputError(f"{given}; at least 1 and more than 0 are needed.")
        if self.pairing not in ("all", "circle"):
            raise InputError(f"pairing is {self.pairing!r}. {did_you_mean(self.pairing, ('all', 'circle'))}")

    def join(self, key: str) -> Member:
        """Announce an episode of a task; the cohort waits for it until it leaves."""
        cohort = self._open.get(key)
        if cohort is not None and cohort.is_full and not cohort.lost:
            cohort = None  # the next cohort of this task
        if cohort is None:
            cohort = self._open[key] = _Cohort(self, key)
        elif cohort.is_full:
            cohort.lost -= 1  # it plays for one that is gone
        cohort.coming += 1
        return Member(cohort)

    def recall(self, key: str) -> list[str]:
        """The answers of the task's last judged cohort."""
        return self._judged.get(key, [])

    def close(self, cohort: _Cohort, answers: list[str]) -> None:
        """Take no more members, and remember the answers."""
        if self._open.get(cohort.key) is cohort:
            del self._open[cohort.key]
        if answers:
            self._judged[cohort.key] = answers
            self._judged.move_to_end(cohort.key)
            while len(self._judged) > _REMEMBERED:
                self._judged.popitem(last=False)


class Member:
    """One episode's place in a cohort."""

    def __init__(self, cohort: _Cohort) -> None:
        self._cohort = cohort
        self._is_coming = True

    async def standing(
        self, answer: str, comparer: Comparer, *, question: str, principle: str = "", anchors: Sequence[str] = (),
        order: int = 0, is_second_attempt: bool = False,
    ) -> Standing:  # fmt: skip
        """Wait for the cohort and return how the answer came off.

        Args:
            order: sorts the cohort's members, so that its pairs do not depend on who came first.
            is_second_attempt: compare with the cohort that was judged without it, where there is one. So is what comes
                when its cohort has been judged already.

        Raises:
            VerifierError: there is nothing to compare with, or a comparison failed.
        """
        cohort, cohorts = self._cohort, self._cohort.owner
        asked = _Asked(comparer, question, principle or DEFAULT_PRINCIPLE, tuple(anchors))
        missed = cohort.judged
        if not missed and is_second_attempt and not cohort.entries:
            missed = cohorts.recall(cohort.key)
        if missed:
            self.leave()
            return await _compare_late(asked, answer, missed)
        entry = _Entry(answer, order, asked, asyncio.get_running_loop().create_future())
        self._is_coming = False
        cohort.submit(entry)
        try:
            return await entry.standing
        except asyncio.CancelledError:
            cohort.withdraw(entry)
            raise

    def leave(self) -> None:
        """Do not wait for this episode any more; safe to call again, and after it was judged."""
        if self._is_coming:
            self._is_coming = False
            self._cohort.lose()


@dataclass(frozen=True)
class GenerativeRewardModel:
    """The verifier: answers to one question and principle that are judged at the same time are a cohort.

    As a reward function in TRL, `cohorts.size` is `num_generations`. An environment joins its cohort when it is seeded
    instead, so that an episode that fails is not waited for.
    """

    comparer: Comparer
    cohorts: Cohorts

    async def __call__(
        self, answer: str, /, *, question: str, principle: str = "", anchors: Sequence[str] = (), **fields: Any
    ) -> Verdict:
        """Return the share of its comparisons that the answer won.

        Raises:
            VerifierError: there is nothing to compare with, or a comparison failed.
        """
        member = self.cohorts.join(f"{principle}\0{question}")
        try:
            standing = await member.standing(
                answer, self.comparer, question=question, principle=principle, anchors=anchors
            )
        finally:
            member.leave()
        return standing.verdict


class _Asked(NamedTuple):
    comparer: Comparer
    question: str
    principle: str
    anchors: tuple[str, ...]


@dataclass(eq=False)
class _Entry:
    answer: str
    order: int
    asked: _Asked
    standing: asyncio.Future[Standing]


class _Cohort:
    """Answers to one task that are judged together."""

    def __init__(self, owner: Cohorts, key: str) -> None:
        self.owner = owner
        self.key = key
        self.coming = 0
        """Episodes that are played."""
        self.lost = 0
        """Episodes that ended without an answer."""
        self.entries: list[_Entry] = []
        self.judged: list[str] = []
        """The answers, once they are being judged."""
        self._timer: asyncio.TimerHandle | None = None
        self._judging: asyncio.Task[None] | None = None

    @property
    def is_full(self) -> bool:
        return self.coming + self.lost + len(self.entries) >= self.owner.size

    def submit(self, entry: _Entry) -> None:
        self.coming -= 1
        self.entries.append(entry)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.owner.wait_seconds, self._judge)
        self._judge_if_complete()

    def lose(self) -> None:
        self.coming -= 1
        self.lost += 1
        if not self.coming and not self.entries:
            self._end([])
        else:
            self._judge_if_complete()

    def withdraw(self, entry: _Entry) -> None:
        """Its episode was cancelled while it waited."""
        if self._judging is None and entry in self.entries:
            self.entries.remove(entry)
            self.coming += 1
            self.lose()

    def _judge_if_complete(self) -> None:
        if self.entries and self._judging is None and len(self.entries) + self.lost >= self.owner.size:
            self._judge()

    def _judge(self) -> None:
        if self._judging is None and self.entries:
            entries = sorted(self.entries, key=lambda entry: (entry.order, entry.answer))
            self.judged = [entry.answer for entry in entries]
            self._end(self.judged)
            self._judging = asyncio.ensure_future(_judge(entries, self.owner.pairing))

    def _end(self, answers: list[str]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.owner.close(self, answers)


async def _judge(entries: list[_Entry], pairing: Pairing) -> None:
    """Compare the entries, and tell each how it came off."""
    pairs: list[tuple[int, int | None, str]] = [
        (one, two, entries[two].answer) for one, two in pairs_of(len(entries), pairing)
    ]
    pairs += [(place, None, anchor) for place, entry in enumerate(entries) for anchor in entry.asked.anchors]
    met = (_share(entries[one].asked, entries[one].answer, text) for one, _, text in pairs)
    shares = await asyncio.gather(*met, return_exceptions=True)
    won: list[list[float]] = [[] for _ in entries]
    errors: dict[int, BaseException] = {}
    for (one, two, _), share in zip(pairs, shares, strict=True):
        if isinstance(share, BaseException):
            errors |= {one: share} if two is None else {one: share, two: share}
            continue
        won[one].append(share)
        if two is not None:
            won[two].append(1 - share)
    for place, entry in enumerate(entries):
        if not entry.standing.done():
            _tell(entry, won[place], errors.get(place), len(entries))


def _tell(entry: _Entry, won: list[float], error: BaseException | None, size: int) -> None:
    if error is not None:
        said = str(error) or type(error).__name__
        entry.standing.set_exception(VerifierError(f"A comparison of this answer failed: {said}"))
    elif not won:
        entry.standing.set_exception(VerifierError(ALONE))
    else:
        entry.standing.set_result(Standing(sum(won) / len(won), len(won), size))


ALONE = (
    "There is nothing to compare this answer with: no other answer to its task came in time, and its row has no "
    "anchors. Play every task several times (cohort_size of them at once), or raise cohort_wait_seconds."
)


async def _compare_late(asked: _Asked, answer: str, others: Sequence[str]) -> Standing:
    """Compare a second attempt with the cohort that it missed; the scores given there stay as they are."""
    rivals = [*others, *asked.anchors]
    shares = await asyncio.gather(*(_share(asked, answer, rival) for rival in rivals))
    return Standing(sum(shares) / len(shares), len(shares), len(others) + 1)


async def _share(asked: _Asked, one: str, other: str) -> float:
    if one == other:
        return 0.5  # the same words: no judge can do better
    return await asked.comparer.share(one, other, question=asked.question, principle=asked.principle)
