"""Games of our own with Gymnasium's API: `reset(seed=)`, `step(action)`, `action_space`. Observations are text.

Each game's rewards add up to 1 for the best play and never to more; `solution` says what that is, for the gold policy.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any, Protocol

Step = tuple[str, float, bool, bool, dict[str, Any]]
"""Observation, reward, terminated, truncated, info."""


class Discrete:
    """Actions 0 to n - 1, as `gymnasium.spaces.Discrete`."""

    def __init__(self, n: int, start: int = 0) -> None:
        self.n = n
        self.start = start

    def contains(self, action: Any) -> bool:
        return isinstance(action, int) and self.start <= action < self.start + self.n


class Text:
    """Actions of up to so many characters, as `gymnasium.spaces.Text`."""

    def __init__(self, max_length: int) -> None:
        self.max_length = max_length

    def contains(self, action: Any) -> bool:
        return isinstance(action, str) and 0 < len(action) <= self.max_length


class Game(Protocol):
    """What the environment needs of a game."""

    @property
    def rules(self) -> str: ...
    @property
    def action_names(self) -> tuple[str, ...]: ...
    @property
    def action_space(self) -> Any: ...

    def reset(self, *, seed: int) -> tuple[str, dict[str, Any]]: ...
    def step(self, action: Any) -> Step: ...
    def solution(self) -> str:
        """The best action now, as an agent writes it."""
        ...


class Maze:
    """Walk from S to E between walls. Half of the reward is paid on the way, for getting nearer than ever before."""

    rules = "Walk through the maze from your place @ to the exit E. # is a wall."
    action_names = ("up", "right", "down", "left")
    action_space = Discrete(4)
    _moves = ((-1, 0), (0, 1), (1, 0), (0, -1))
    _rooms, _most_steps = 4, 30

    def reset(self, *, seed: int) -> tuple[str, dict[str, Any]]:
        rng = Random(f"maze:{seed}")
        size = 2 * self._rooms + 1
        self.walls = {(row, column) for row in range(size) for column in range(size)}
        self._carve(rng, (1, 1))
        rooms = sorted(place for place in self._all_rooms() if place != (1, 1))
        self.exit, self.place = rng.choice(rooms), (1, 1)
        self.far = self.nearest = self._distances()[self.place]
        self.steps = 0
        return self._show(), {}

    def step(self, action: int) -> Step:
        row, column = self._moves[action]
        target = (self.place[0] + row, self.place[1] + column)
        self.steps += 1
        if target not in self.walls:
            self.place = target
        left = self._distances()[self.place]
        reward = 0.5 * max(0, self.nearest - left) / self.far + 0.5 * (left == 0)
        self.nearest = min(self.nearest, left)
        said = "A wall.\n" if target in self.walls else ""
        return said + self._show(), reward, left == 0, self.steps >= self._most_steps, {}

    def solution(self) -> str:
        distances = self._distances()
        nearer = ((self.place[0] + row, self.place[1] + column) for row, column in self._moves)
        return next(
            name
            for name, place in zip(self.action_names, nearer, strict=True)
            if distances.get(place, -1) == distances[self.place] - 1
        )

    def _carve(self, rng: Random, start: tuple[int, int]) -> None:
        self.walls.discard(start)
        stack = [start]
        rooms = self._all_rooms()
        while stack:
            row, column = stack[-1]
            free = [(row + 2 * y, column + 2 * x) for y, x in self._moves]
            free = [place for place in free if place in rooms and place in self.walls]
            if not free:
                stack.pop()
                continue
            chosen = rng.choice(free)
            self.walls -= {chosen, ((row + chosen[0]) // 2, (column + chosen[1]) // 2)}
            stack.append(chosen)

    def _all_rooms(self) -> set[tuple[int, int]]:
        return {(2 * row + 1, 2 * column + 1) for row in range(self._rooms) for column in range(self._rooms)}

    def _distances(self) -> dict[tuple[int, int], int]:
        found, waiting = {self.exit: 0}, deque([self.exit])
        while waiting:
            row, column = waiting.popleft()
            for y, x in self._moves:
                place = (row + y, column + x)
                if place not in found and place not in self.walls:
                    found[place] = found[row, column] + 1
                    waiting.append(place)
        return found

    def _show(self) -> str:
        signs = {self.exit: "E", self.place: "@"}
        size = range(2 * self._rooms + 1)
        return "\n".join(
            "".join(signs.get((row, column), "#" if (row, column) in self.walls else ".") for column in size)
            for row in size
        )


class Guess:
    """Find a number in seven guesses; an answer tells higher or lower."""

    rules = "Guess my number from 1 to 100 in seven guesses."
    action_names = ()
    action_space = Discrete(100, start=1)
    _most_guesses = 7

    def reset(self, *, seed: int) -> tuple[str, dict[str, Any]]:
        self.secret = Random(f"guess:{seed}").randint(1, 100)
        self.low, self.high, self.guesses = 1, 100, 0
        return f"{self._most_guesses} guesses left.", {}

    def step(self, action: int) -> Step:
        self.guesses += 1
        left = self._most_guesses - self.guesses
        if action == self.secret:
            return "Right.", 1.0, True, False, {}
        if action < self.secret:
            self.low = max(self.low, action + 1)
        else:
            self.high = min(self.high, action - 1)
        hint = "Higher" if action < self.secret else "Lower"
        return f"{hint}. {left} guesses left.", 0.0, left == 0, False, {}

    def solution(self) -> str:
        return str((self.low + self.high) // 2)


class Nim:
    """Take the last stone, against an opponent who plays perfectly from a position that can be won."""

    rules = (
        "Three heaps of stones. We take turns; a turn takes any number of stones, at least one, from one heap. "
        "Whoever takes the last stone wins. Write a turn as HEAP COUNT, such as '2 3' for three stones of heap 2."
    )
    action_names = ()
    action_space = Text(10)

    def reset(self, *, seed: int) -> tuple[str, dict[str, Any]]:
        rng = Random(f"nim:{seed}")
        while True:
            self.heaps = [rng.randint(1, 7) for _ in range(3)]
            if self._balance() != 0:
                return self._show("Your turn."), {}

    def step(self, action: str) -> Step:
        heap, count = self._read(action)
        if not count:
            return self._show("That turn is not possible, and you lose."), 0.0, True, False, {}
        self.heaps[heap] -= count
        if not any(self.heaps):
            return self._show("You took the last stone and win."), 1.0, True, False, {}
        heap, count = self._best()
        self.heaps[heap] -= count
        said = f"I take {count} of heap {heap + 1}."
        if not any(self.heaps):
            return self._show(f"{said} That was the last stone, and I win."), 0.0, True, False, {}
        return self._show(f"{said} Your turn."), 0.0, False, False, {}

    def solution(self) -> str:
        heap, count = self._best()
        return f"{heap + 1} {count}"

    def _read(self, action: str) -> tuple[int, int]:
        words = action.replace(",", " ").split()
        numbers = [int(word) for word in words if word.isdecimal()]
        if len(words) != 2 or len(numbers) != 2 or not 1 <= numbers[0] <= 3:
            return 0, 0
        heap, count = numbers[0] - 1, numbers[1]
        return (heap, count) if 1 <= count <= self.heaps[heap] else (0, 0)

    def _balance(self) -> int:
        """The nim sum: 0 where whoever has to move loses."""
        return self.heaps[0] ^ self.heaps[1] ^ self.heaps[2]

    def _best(self) -> tuple[int, int]:
        for heap, stones in enumerate(self.heaps):
            wanted = stones ^ self._balance()
            if wanted < stones:
                return heap, stones - wanted
        heap = max(range(3), key=lambda place: self.heaps[place])
        return heap, 1

    def _show(self, said: str) -> str:
        heaps = ", ".join(f"heap {place}: {stones}" for place, stones in enumerate(self.heaps, 1))
        return f"{heaps}. {said}"
