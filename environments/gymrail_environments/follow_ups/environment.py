"""A talk with a scripted user: each answer draws the next follow-up, and the answer to the last one is graded.

One row:

    {"responses_create_params": {"input": "I think of 7. Say ok."},
     "follow_ups": ["I add 5. Say ok.", "What do I have now? Answer with the number alone."], "expected_answer": "12"}
"""

from __future__ import annotations

from collections.abc import Generator
from random import Random

from pydantic import Field

from gymrail import Environment, Rollout, Task, Verdict
from gymrail.environment import Turn
from gymrail.rollout import text_of
from gymrail.verifiers.answer import says

NAMES = ("Ana", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ivo", "Jade", "Kofi", "Lena")
ROOMS = ("attic", "bathroom", "cellar", "garage", "garden", "hall", "kitchen", "library", "office", "stable")


class FollowUpsTask(Task):
    follow_ups: list[str] = Field(min_length=1)
    """The user's further turns, in order."""
    expected_answer: str


class FollowUps(Environment[FollowUpsTask]):
    """The last answer counts, when every follow-up was put."""

    @classmethod
    def generate(cls, rng: Random) -> FollowUpsTask:
        return _sums(rng) if rng.random() < 0.5 else _walks(rng)

    def reply(self, rollout: Rollout) -> str | None:
        put = len(_user_turns(rollout))
        return self.task.follow_ups[put] if put < len(self.task.follow_ups) else None

    def verify(self, rollout: Rollout) -> Verdict:
        put = _user_turns(rollout)
        metrics = {"follow_ups_put": len(put)}
        if put != self.task.follow_ups:
            return Verdict(
                0.0, metrics=metrics, reason=f"{len(put)} of {len(self.task.follow_ups)} follow-ups were put"
            )
        last = _last_answer(rollout)
        is_right = says(last, self.task.expected_answer)
        reason = None if is_right else f"the last answer is {last[:80]!r}, not {self.task.expected_answer!r}"
        return Verdict(float(is_right), metrics=metrics, reason=reason)

    def solve(self) -> Generator[Turn, str, None]:
        for _ in self.task.follow_ups:
            yield "Ok."
        yield self.task.expected_answer

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Lose track: a number that is off, another room."""
        if not isinstance(turn, str) or turn != self.task.expected_answer:
            return turn
        if turn.lstrip("-").isdigit():
            return str(int(turn) + rng.choice((-2, -1, 1, 2)))
        return rng.choice([room for room in ROOMS if room != turn])


def _user_turns(rollout: Rollout) -> list[str]:
    return [text_of(item) for item in rollout.items if item.get("role") == "user"]


def _last_answer(rollout: Rollout) -> str:
    """What the model said to the last follow-up; "" where it was never answered."""
    last = rollout.items[-1] if rollout.items else {}
    return text_of(last) if last.get("role") == "assistant" else ""


def _sums(rng: Random) -> FollowUpsTask:
    value = rng.randint(1, 50)
    prompt, follow_ups = f"I think of {value}. Say ok.", []
    for _ in range(rng.randint(1, 3)):
        change = rng.randint(1, 40)
        is_more = rng.random() < 0.6
        value += change if is_more else -change
        follow_ups.append(f"I {'add' if is_more else 'take away'} {change}. Say ok.")
    follow_ups.append("What do I have now? Answer with the number alone.")
    return FollowUpsTask.ask(prompt, follow_ups=follow_ups, expected_answer=str(value))


def _walks(rng: Random) -> FollowUpsTask:
    people = rng.sample(NAMES, 2)
    places = rng.sample(ROOMS, 2)
    prompt = f"{people[0]} is in the {places[0]} and {people[1]} is in the {places[1]}. Say ok."
    follow_ups = []
    for _ in range(rng.randint(1, 3)):
        who = rng.randrange(2)
        places[who] = rng.choice([room for room in ROOMS if room not in places])
        follow_ups.append(f"{people[who]} goes to the {places[who]}. Say ok.")
    asked = rng.randrange(2)
    follow_ups.append(f"In which room is {people[asked]}? Answer with the room alone.")
    return FollowUpsTask.ask(prompt, follow_ups=follow_ups, expected_answer=places[asked])
