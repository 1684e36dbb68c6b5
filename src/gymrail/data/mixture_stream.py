"""A mixture drawn batch by batch: weights that change over steps, measured tokens, floors, epochs, curriculum.

    stream = MixtureStream(mixture)
    groups = stream.batch(32, step=0)
    ...                                       # play them; `collect.batch.play_batch` does, and observes
    stream.observe([Measured(groups[0], rewards=[0.0, 1.0], tokens=212), ...], step=0)
    stream.state()                            # JSON; with `restore` another process draws what this one would have

What is drawn depends on the mixture, the steps and what was observed, and on nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from gymrail.data.mixture import Group, Mixture
from gymrail.data.subsets import Subsets
from gymrail.data.task_queue import TaskQueue
from gymrail.errors import InputError

_NEWEST = 0.2
"""Weight of a new measurement in a member's tokens per group; it only spreads a batch, the account is exact."""
_NEWEST_SPREAD = 0.05
"""Weight of a new group in a member's share of groups with spread: some twenty groups are remembered."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What became of a group."""

    group: Group
    rewards: list[float]
    """Of the rollouts that have one."""
    tokens: int
    """That were sampled for it, those of rollouts without a reward too."""


@dataclass(slots=True)
class _Account:
    """A member's side of the stream."""

    owed: float = 0.0
    """How much of the mixture, in groups or tokens, it should have had by now and has not."""
    place: int = 0
    """How many places of its tasks' stream are used up."""
    tokens_per_group: float | None = None
    spread: float = 1.0
    """Share of its groups that had spread, the newest counting most; before any was played, all."""


@dataclass(slots=True)
class _Charge:
    member: int
    task_index: int
    amount: float
    shares: list[float] = field(default_factory=list)
    """As they were when the group was drawn."""


class MixtureStream:
    """The state of a mixture that is being drawn from."""

    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture
        self.slots = 0
        """How many groups `batch` has handed out."""
        self.step = 0
        """The step of the last batch."""
        self._drawn = 0
        self._accounts = [_Account() for _ in mixture.members]
        curriculum = mixture.mixing.curriculum
        self._choosers: list[TaskQueue | Subsets] = []
        for member, tasks in zip(mixture.members, mixture.tasks, strict=True) if curriculum else ():
            assert curriculum is not None
            by = member.subset_by
            self._choosers.append(TaskQueue(tasks, curriculum) if by is None else Subsets(tasks, curriculum, by))
        self._charges: dict[int, _Charge] = {}
        self.unplayed: list[Group] = []
        """After `restore`: groups that were drawn and not yet observed when the state was saved, to be played anew."""
        self._members = {member.spec.name: index for index, member in enumerate(mixture.members)}
        self._ties = list(range(len(mixture.members)))
        Random(f"{mixture.seed}:mixture").shuffle(self._ties)

    def batch(self, groups: int, step: int = 0, *, filled: int = 0, beside: Collection[str] = ()) -> list[Group]:
        """Draw the next groups; fewer, or none, once every member's epochs are over.

        Args:
            groups: places of the batch.
            filled: how many of them groups take that were drawn for an earlier batch.
            beside: environments whose groups take none: they are drawn in their turn, up to as many as there are
                places, and played beside the batch; `apart` says which can be.

        Raises:
            InputError: the members' floors ask for more groups than there are.
        """
        self.step = step
        floors = self._floors(step)
        if sum(floors) > groups:
            raise InputError(
                f"The floors of the mixture ask for {sum(floors)} groups in a batch of {groups}; lower them, or raise "
                "the batch (per_device_train_batch_size, steps_per_generation) or lower num_generations."
            )
        shares = self.shares(step, groups)
        aside = {self._members[name] for name in beside}
        drawn: list[Group] = []
        taken = {True: filled, False: 0}  # places, and groups beside them

        def draw(member: int) -> None:
            drawn.append(self._draw(member, shares))
            taken[member not in aside] += 1

        for member, floor in enumerate(floors):
            for _ in range(floor):
                if taken[True] < groups and not self._is_over(member):
                    draw(member)
        while taken[True] < groups:
            if any(share and self._is_over(member) for member, share in enumerate(shares)):
                shares = self.shares(step, groups)
            if not any(shares):
                break
            draw(self._most_owed(shares, aside if taken[False] >= groups else ()))
        self.slots += taken[True]
        return drawn

    def apart(self, names: Collection[str], step: int) -> set[str]:
        """Return those of these environments that a batch can be filled without: none where no other has a share."""
        weights = zip(self.mixture.members, self.mixture.weights_at(step), strict=True)
        others = {member.spec.name for member, weight in weights if weight > 0} - set(names)
        return set(names) if others else set()

    def another(self, group: Group) -> Group | None:
        """Draw a group of the same environment to take a group's place; None when its epochs are over.

        The place is paid for already; where shares count tokens, the new group's tokens are paid for as well.
        """
        member = self._members[group.spec.name]
        if self._is_over(member):
            return None
        charge = self._charges.get(group.index)
        counts_tokens = self.mixture.mixing.unit == "tokens"
        return self._draw(member, charge.shares if charge and counts_tokens else [], is_refill=True)

    def spread(self, environment: str) -> float:
        """Return the share of an environment's groups whose rewards differed lately."""
        return self._accounts[self._members[environment]].spread

    def observe(self, measured: Iterable[Measured], step: int | None = None) -> None:
        """Take in what was played; every group that was drawn is to be observed once."""
        at = self.step if step is None else step
        for entry in measured:
            member = self._members[entry.group.spec.name]
            charge = self._charges.pop(entry.group.index, None)
            account = self._accounts[member]
            if entry.rewards:
                account.spread += _NEWEST_SPREAD * ((len(set(entry.rewards)) > 1) - account.spread)
            if entry.tokens:
                before = account.tokens_per_group
                account.tokens_per_group = (
                    float(entry.tokens) if before is None else before + _NEWEST * (entry.tokens - before)
                )
                if self.mixture.mixing.unit == "tokens" and charge is not None:
                    self._pay(member, entry.tokens - charge.amount, charge.shares)
            if self._choosers:
                self._choosers[member].observe(entry.group, entry.rewards, at)

    def shares(self, step: int, groups: int) -> list[float]:
        """Return each member's share of a batch, in the mixture's order: by weight, and at least its floor, which the
        others make room for; 0 for those whose epochs are over."""
        weights = self.mixture.weights_at(step)
        weights = [0.0 if self._is_over(member) else weight for member, weight in enumerate(weights)]
        if not any(weights):
            return [0.0] * len(weights)
        least = {member: floor / groups for member, floor in enumerate(self._floors(step)) if floor and weights[member]}
        raised: set[int] = set()
        while True:
            room = 1.0 - math.fsum(least[member] for member in raised)
            rest = math.fsum(weight for member, weight in enumerate(weights) if member not in raised)
            shares = [
                least[member] if member in raised else room * weight / rest if rest else 0.0
                for member, weight in enumerate(weights)
            ]
            below = {member for member, floor in least.items() if shares[member] < floor - 1e-12}
            if not below:
                return shares
            raised |= below

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, as JSON values; between batches. What was drawn and is not observed by then,
        because it is played on beside later batches, is played anew after `restore`."""
        return {
            "fingerprint": self.mixture.fingerprint,
            "slots": self.slots,
            "step": self.step,
            "drawn": self._drawn,
            "unplayed": [
                [index, self.mixture.members[charge.member].spec.name, charge.task_index, charge.amount, charge.shares]
                for index, charge in sorted(self._charges.items())
            ],
            "members": {
                member.spec.name: {
                    "owed": account.owed,
                    "place": account.place,
                    "tokens_per_group": account.tokens_per_group,
                    "spread": account.spread,
                    **({"curriculum": self._choosers[index].state()} if self._choosers else {}),
                }
                for index, (member, account) in enumerate(zip(self.mixture.members, self._accounts, strict=True))
            },
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned.

        Raises:
            InputError: the state is of another mixture.
        """
        if state["fingerprint"] != self.mixture.fingerprint:
            raise InputError(
                "The mixture (environments, weights, settings, seed or code) changed since its state was saved; "
                "restore it, or begin a new run."
            )
        self.slots, self.step, self._drawn = state["slots"], state["step"], state["drawn"]
        self._charges, self.unplayed = {}, []
        for name, saved in state["members"].items():
            index = self._members[name]
            self._accounts[index] = _Account(saved["owed"], saved["place"], saved["tokens_per_group"], saved["spread"])
            if self._choosers:
                self._choosers[index].restore(saved["curriculum"])
        unplayed = state["unplayed"] if self.mixture.mixing.carries else []
        for index, name, task_index, amount, shares in unplayed:
            member = self._members[name]
            self.unplayed.append(self._group(member, index, task_index))
            self._charges[index] = _Charge(member, task_index, amount, shares)

    def _draw(self, member: int, shares: list[float], *, is_refill: bool = False) -> Group:
        """Draw a member's next group and charge it; without shares it is not charged."""
        account, tasks = self._accounts[member], self.mixture.tasks[member]
        if self._choosers:
            task_index, account.place = self._choosers[member].choose(account.place, self.step, is_refill=is_refill)
        else:
            task_index, _ = tasks.at(account.place)
            account.place += 1
        group = self._group(member, self._drawn, task_index)
        amount = self._cost(member) if shares else 0.0
        if shares:
            self._pay(member, amount, shares)
        self._charges[group.index] = _Charge(member, task_index, amount, shares)
        self._drawn += 1
        return group

    def _group(self, member: int, index: int, task_index: int) -> Group:
        task = self.mixture.tasks[member].task(task_index)
        group = Group(index, self.mixture.members[member].spec, task, task_index)
        return self._choosers[member].described(group) if self._choosers else group

    def _pay(self, member: int, amount: float, shares: list[float]) -> None:
        for other, share in enumerate(shares):
            self._accounts[other].owed += share * amount
        self._accounts[member].owed -= amount

    def _most_owed(self, shares: list[float], without: Collection[int] = ()) -> int:
        """The member that is behind most, the group that it is about to get included; the seed settles ties."""
        running = [member for member in self._ties if shares[member] > 0 and member not in without]
        return max(running, key=lambda member: self._accounts[member].owed + shares[member] * self._cost(member))

    def _cost(self, member: int) -> float:
        """A group of a member in the mixture's unit; before it was measured, as much as the others' on average."""
        if self.mixture.mixing.unit == "episodes":
            return 1.0
        known = [account.tokens_per_group for account in self._accounts if account.tokens_per_group is not None]
        own = self._accounts[member].tokens_per_group
        return own if own is not None else math.fsum(known) / len(known) if known else 1.0

    def _floors(self, step: int) -> list[int]:
        return [
            member.floor if member.weight_at(step) > 0 and not self._is_over(index) else 0
            for index, member in enumerate(self.mixture.members)
        ]

    def _is_over(self, member: int) -> bool:
        epochs, size = self.mixture.members[member].epochs, self.mixture.tasks[member].size
        return epochs is not None and size is not None and self._accounts[member].place >= epochs * size
