"""Questions over a generated corpus, whose answer takes several documents: each says where to look next.

One row:

    {"responses_create_params": {"input": "In which year was the town where Alma Keleth was born founded? ..."},
     "start": "Alma Keleth", "path": ["birthplace", "founded"], "answer": "1432"}
"""

from __future__ import annotations

import functools
from collections.abc import Generator
from random import Random

from pydantic import Field

from gymrail import Config, Environment, Rollout, Task, Verdict, call
from gymrail.environment import Call, Turn
from gymrail.errors import InputError, did_you_mean
from gymrail.verifiers.answer import says
from gymrail_environments.search_qa.world import ENDS, LINKS, World, make_world
from gymrail_mcp_servers.search.corpus import Corpus
from gymrail_mcp_servers.search.server import Search

TOWNS = 80
HOW = "Search the documents; nothing else is known of this country. End with 'Answer: <year>'."


class SearchQaConfig(Config):
    hops: tuple[int, int] = (2, 4)
    """Fewest and most documents that a question takes."""
    world: int = 0
    """Which country is generated."""
    towns: int = Field(TOWNS, ge=2, le=250)
    """Its size; there are five documents for each town, and not many more names than for 250."""


DEFAULTS = SearchQaConfig()  # pyright: ignore[reportCallIssue]


class SearchQaTask(Task):
    start: str
    path: list[str] = Field(min_length=1)
    answer: str


class SearchQa(Environment[SearchQaTask]):
    """Right when the answer gives the year, and no other."""

    Config = SearchQaConfig
    library: Search
    shared: Corpus

    @classmethod
    def setup(cls, config: SearchQaConfig) -> Corpus:
        return Corpus.of(country(config.world, config.towns).documents)

    @classmethod
    def generate(cls, rng: Random, config: SearchQaConfig = DEFAULTS) -> SearchQaTask:
        world = country(config.world, config.towns)
        while True:
            start, path = rng.choice(world.people), list[str]()
            subject, phrase, seen = start, start, {start}
            for _ in range(rng.randint(*config.hops) - 1):
                relation = rng.choice([name for name in world.facts[subject] if name in LINKS])
                path.append(relation)
                subject, phrase = world.facts[subject][relation], LINKS[relation].format(x=phrase)
                seen.add(subject)
            ends = [name for name in world.facts[subject] if name in ENDS]
            if ends and len(seen) == len(path) + 1:  # a question must not come back to where it was
                break
        prompt = f"{ENDS[ends[0]].format(x=phrase)} {HOW}"
        return SearchQaTask.ask(prompt, start=start, path=[*path, ends[0]], answer=world.facts[subject][ends[0]])

    async def seed(self) -> None:
        await self.library.seed(index=self.shared)
        facts = country(self.config.world, self.config.towns).facts
        if self.task.start not in facts:
            near = did_you_mean(self.task.start, facts)
            raise InputError(f"Task {self.task.id} starts with {self.task.start!r}, who is not in this country. {near}")

    def verify(self, rollout: Rollout) -> Verdict:
        is_right = says(rollout.final_text, self.task.answer)
        opened = {str(one.parsed.get("document_id")) for one in rollout.calls_of("open_document")}
        metrics = {"hops": len(self.task.path), "documents_opened": len(opened)}
        return Verdict(float(is_right), metrics=metrics, reason=None if is_right else f"expected {self.task.answer}")

    def solve(self) -> Generator[Turn, str, None]:
        facts = country(self.config.world, self.config.towns).facts
        ids = {document.title: document.id for document in self.shared.documents}
        subject = self.task.start
        for relation in self.task.path:
            yield call("search", query=subject, k=3)
            yield call("open_document", document_id=ids[subject])
            subject = facts[subject][relation]
        yield f"Answer: {subject}"

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Search for something else, or answer before all has been read."""
        if isinstance(turn, Call) and rng.random() < 0.85:
            return call("search", query=rng.choice([*LINKS, *ENDS]), k=3)
        return f"Answer: {rng.randint(1100, 1999)}"


@functools.lru_cache(maxsize=8)
def country(number: int, towns: int) -> World:
    """Return a country, made once per process."""
    return make_world(number, towns)
