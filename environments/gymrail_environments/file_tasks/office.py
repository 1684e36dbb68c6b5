"""The files of a small office, and requests about them: each with the steps that do it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

KINDS = ("invoice", "letter", "report", "receipt")
CLIENTS = ("alder", "birch", "cedar", "dogwood", "elm", "fir")
PEOPLE = ("Ana", "Ben", "Cora", "Dan", "Eli", "Fay")
_FOLDERS = ("", "inbox/", "desk/", "old/2023/")
Files = dict[str, str]
Steps = list[list[str]]
"""Calls as [tool, argument, ...], in the order of the tool's parameters."""


class Paper(NamedTuple):
    """One file, as its text says."""

    path: str
    kind: str
    client: str
    year: int
    owner: str
    amount: int

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    @property
    def text(self) -> str:
        head = f"Kind: {self.kind}\nClient: {self.client}\nYear: {self.year}\nOwner: {self.owner}\n"
        return f"{head}Amount: {self.amount}\n\nNothing else is noted here.\n"


def make_office(rng: Random, count: int) -> list[Paper]:
    """Return papers whose names do not say what they are."""
    numbers = rng.sample(range(100, 1000), count)
    return [
        Paper(
            f"{rng.choice(_FOLDERS)}paper-{number}.txt", rng.choice(KINDS), rng.choice(CLIENTS),
            rng.randint(2021, 2024), rng.choice(PEOPLE), rng.randint(1, 99) * 10,
        )
        for number in numbers
    ]  # fmt: skip


def make_request(rng: Random, papers: list[Paper]) -> tuple[str, Steps]:
    """Return a request and the steps that do it; the steps may be none where no paper fits."""
    return rng.choice(_REQUESTS)(rng, papers)


def _sort(rng: Random, papers: list[Paper]) -> tuple[str, Steps]:
    kind = rng.choice(KINDS)
    steps = [["move_file", one.path, f"{kind}s/{one.year}/{one.name}"] for one in papers if one.kind == kind]
    return f"Move every {kind} into the folder {kind}s/YEAR, by its year, and keep its name.", steps


def _purge(rng: Random, papers: list[Paper]) -> tuple[str, Steps]:
    client, year = rng.choice(CLIENTS), rng.randint(2022, 2024)
    found = [one for one in papers if one.client == client and one.year < year]
    return f"Delete the papers of the client {client} from before {year}.", [["delete_file", one.path] for one in found]


def _hand_over(rng: Random, papers: list[Paper]) -> tuple[str, Steps]:
    old, new = rng.sample(PEOPLE, 2)
    kind = rng.choice(KINDS)
    found = [one for one in papers if one.owner == old and one.kind == kind]
    steps = [["edit_file", one.path, f"Owner: {old}", f"Owner: {new}"] for one in found]
    return f"{new} takes over from {old}: in each {kind} of {old}, change the owner.", steps


def _index(rng: Random, papers: list[Paper]) -> tuple[str, Steps]:
    client = rng.choice(CLIENTS)
    found = sorted((one for one in papers if one.client == client), key=lambda one: one.name)
    text = "".join(f"{one.name} {one.amount}\n" for one in found)
    return (
        f"Write index-{client}.txt with one line for each paper of the client {client}: its file name, a blank and its "
        "amount, in the order of the names.",
        [["write_file", f"index-{client}.txt", text]] if found else [],
    )


_REQUESTS: tuple[Callable[[Random, list[Paper]], tuple[str, Steps]], ...] = (_sort, _purge, _hand_over, _index)
