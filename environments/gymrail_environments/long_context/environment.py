"""A fact, or a chain of facts, hidden in a long text among facts that look like them.

One row:

    {"responses_create_params": {"input": "...Ada Venn handed the iron key to Leon Rudd.... What number ...?"},
     "question": "...", "needles": ["Ada Venn handed the iron key to Leon Rudd.", "... has the number 4711."],
     "answer": "4711", "words": 2000, "depth": 0.4}
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Generator
from random import Random

from pydantic import Field

from gymrail import Config, Environment, Rollout, Task, Verdict
from gymrail.environment import Turn
from gymrail.verifiers.answer import says
from gymrail_environments.long_context.prose import LOG, names, sentences

_NUMBER = re.compile(r"\b\d{4}\b")
_PARAGRAPH = 6


class LongContextConfig(Config):
    words: int = Field(2000, ge=50, le=2_000_000)
    """Length of the text; a word is about 1.3 tokens."""
    needles: int = Field(3, ge=1, le=20)
    """Facts that must be put together: so many minus one hand-overs and a number."""
    near_misses: int = Field(8, ge=0, le=500)
    """Facts of the same form that lead nowhere: other people, other objects, people with the same first or last
    name."""
    depth: float | None = Field(None, ge=0, le=1)
    """Where the needles stand, 0 for the beginning and 1 for the end; spread at random by default."""


DEFAULTS = LongContextConfig()  # pyright: ignore[reportCallIssue]


class LongContextTask(Task):
    question: str
    needles: list[str]
    answer: str
    words: int | None = None
    depth: float | None = None


class LongContext(Environment[LongContextTask]):
    """Right when the answer gives the number, and no other."""

    Config = LongContextConfig

    @classmethod
    def generate(cls, rng: Random, config: LongContextConfig = DEFAULTS) -> LongContextTask:
        thing = rng.choice(LOG["objects"])
        chain = names(rng, config.needles)
        numbers = [f"{number}" for number in rng.sample(range(1000, 10000), 1 + config.near_misses)]
        needles = [
            LOG["handed"].format(giver=giver, thing=thing, taker=taker) for giver, taker in itertools.pairwise(chain)
        ]
        needles.append(LOG["locker"].format(owner=chain[-1], number=numbers[0]))
        misses = [_near_miss(rng, thing, chain, number) for number in numbers[1:]]
        question = LOG["ask_one" if len(needles) == 1 else "ask_chain"].format(start=chain[0], thing=thing)
        depth = config.depth
        prompt = LOG["prompt"].format(text=hide(rng, needles, misses, config.words, depth), question=question)
        return LongContextTask.ask(
            prompt, question=question, needles=needles, answer=numbers[0], words=config.words, depth=depth
        )

    def verify(self, rollout: Rollout) -> Verdict:
        task = self.task
        is_right = says(rollout.final_text, task.answer)
        metrics = {"words": task.words, "needles": len(task.needles), "depth": task.depth}
        return Verdict(float(is_right), metrics=metrics, reason=None if is_right else f"expected {task.answer}")

    def solve(self) -> Generator[Turn, str, None]:
        yield f"Answer: {self.task.answer}"

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Give another number of the text: a near miss."""
        prompt = str(self.task.responses_create_params["input"])
        others = sorted(set(_NUMBER.findall(prompt)) - {self.task.answer}) or ["1234"]
        return f"Answer: {rng.choice(others)}"


def hide(rng: Random, needles: list[str], misses: list[str], words: int, depth: float | None) -> str:
    """Return a text of at least so many words that holds every needle once, in any order, among the near misses."""
    log: list[str] = []
    left = words - sum(len(text.split()) for text in (*needles, *misses))
    prose = sentences(rng)
    while left > 0:
        log.append(next(prose))
        left -= len(log[-1].split())
    places = [(rng.random(), text) for text in misses]
    places += [(rng.random() if depth is None else depth, text) for text in rng.sample(needles, len(needles))]
    size = len(log)
    for place, text in sorted(places, key=lambda pair: -pair[0]):
        log.insert(round(place * size), text)
    return "\n\n".join(" ".join(log[start : start + _PARAGRAPH]) for start in range(0, len(log), _PARAGRAPH))


def _near_miss(rng: Random, thing: str, chain: list[str], number: str) -> str:
    """A fact that is true and does not matter: no hand-over of the thing begins with somebody of the chain, and no
    number is the locker of one."""
    first, last = rng.choice(chain).split(" ")
    like = rng.choice((f"{first} {rng.choice(LOG['surnames'])}", f"{rng.choice(LOG['first_names'])} {last}"))
    if like in chain:
        like = next(name for name in names(rng, len(chain) + 1) if name not in chain)
    other = rng.choice([one for one in LOG["objects"] if one != thing])
    form = rng.randrange(4)
    if form == 0:
        return LOG["handed"].format(giver=rng.choice(chain), thing=other, taker=like)
    if form == 1:
        return LOG["trunk"].format(owner=rng.choice(chain), number=number)
    return LOG["locker"].format(owner=like, number=number)
