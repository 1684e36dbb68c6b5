"""Which rollouts a run has: keys in little room, a few bytes per task instead of an object per rollout.

done = Done(row_keys)
key in done                              # by place and content, as any set of keys
done.places("counter").has_all(17, 8)    # by place alone: all eight repeats of task 17
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Set
from typing import Any

from gymrail.collect.journal import Key

_GAP = 1 << 16
"""How far ahead of the tasks so far a task's index may be and still be kept by its place: thousands of episodes are
played at once and end in any order."""
_MOST_REPEATS = 1 << 12
_ID_DIGITS = 16


class Places:
    """The rollouts of one environment, by place: task index and repeat."""

    def __init__(self) -> None:
        self.count = 0
        self.highest = -1
        """The highest task index."""
        self._ids = array("Q")
        """By task index, what the task's id says in hexadecimal."""
        self._repeats: list[int] = []
        """By task index, a bit per repeat; 0 where there is none. Small numbers are shared, so eight bytes a task."""
        self._others: set[tuple[int, str, int]] = set()
        """What has no room there: a second task of an index, an index far ahead, an id of another form."""

    def add(self, task_index: int, task_id: str, repeat: int) -> None:
        """Note one rollout; a second time changes nothing."""
        number = task_number(task_id)
        if task_index > self.highest:
            self.highest = task_index
        known = len(self._repeats)
        if number is None or not (0 <= task_index < known + _GAP and 0 <= repeat < _MOST_REPEATS):
            self._add_other(task_index, task_id, repeat)
            return
        if self._others and (task_index, task_id, repeat) in self._others:  # noted while its index was far ahead
            return
        if task_index == known:  # the usual case; a resumed run comes here a million times
            self._ids.append(number)
            self._repeats.append(1 << repeat)
            self.count += 1
            return
        if task_index > known:
            missing = task_index + 1 - known
            self._ids.extend(array("Q", bytes(8 * missing)))
            self._repeats.extend([0] * missing)
        mask = self._repeats[task_index]
        if mask and self._ids[task_index] != number:
            self._add_other(task_index, task_id, repeat)
        elif not mask >> repeat & 1:
            self._ids[task_index] = number
            self._repeats[task_index] = mask | 1 << repeat
            self.count += 1

    def has(self, task_index: int, task_id: str, repeat: int) -> bool:
        """Whether this rollout is there."""
        if task_index < len(self._repeats) and min(task_index, repeat) >= 0:
            is_there = self._repeats[task_index] >> repeat & 1
            if is_there and self._ids[task_index] == task_number(task_id):
                return True
        return (task_index, task_id, repeat) in self._others

    def has_all(self, task_index: int, repeats: int) -> bool:
        """Whether the first `repeats` rollouts at this index are there, whatever their task.

        What was noted out of order may be missed; then the answer is False.
        """
        wanted = (1 << repeats) - 1
        return 0 <= task_index < len(self._repeats) and self._repeats[task_index] & wanted == wanted

    def __iter__(self) -> Iterator[tuple[int, str, int]]:
        for index, mask in enumerate(self._repeats):
            repeat = 0
            while mask >> repeat:
                if mask >> repeat & 1:
                    yield index, f"{self._ids[index]:0{_ID_DIGITS}x}", repeat
                repeat += 1
        yield from self._others

    def _add_other(self, task_index: int, task_id: str, repeat: int) -> None:
        if not self.has(task_index, task_id, repeat):
            self._others.add((task_index, task_id, repeat))
            self.count += 1


class TaskNumbers:
    """Numbers one environment's tasks from 0 in the order in which they come; about 16 bytes a task."""

    def __init__(self) -> None:
        self.count = 0
        self._by_index = array("q")
        """By task index, the number of the index's first task; -1 where there is none."""
        self._ids = array("Q")
        """By task index, that task's id."""
        self._others: dict[tuple[int, str], int] = {}

    def of(self, task_index: int, task_id: str) -> int:
        """Return the task's number; a task that is seen for the first time gets the next one."""
        number = task_number(task_id)
        known = len(self._ids)
        if number is None or not 0 <= task_index < known + _GAP:
            return self._other(task_index, task_id)
        if self._others and (task_index, task_id) in self._others:  # seen while its index was far ahead
            return self._others[task_index, task_id]
        if task_index >= known:
            missing = task_index + 1 - known
            self._ids.extend(array("Q", bytes(8 * missing)))
            self._by_index.extend(array("q", (-1,)) * missing)
        if self._by_index[task_index] < 0:
            self._by_index[task_index], self._ids[task_index] = self._next(), number
        elif self._ids[task_index] != number:
            return self._other(task_index, task_id)
        return self._by_index[task_index]

    def _other(self, task_index: int, task_id: str) -> int:
        key = (task_index, task_id)
        if key not in self._others:
            self._others[key] = self._next()
        return self._others[key]

    def _next(self) -> int:
        self.count += 1
        return self.count - 1


class Done(Set[Key]):
    """A set of keys that takes about 16 bytes per task, whatever the number of its repeats."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._environments: dict[str, Places] = {}
        for key in keys:
            self.add(key)

    def add(self, key: Key) -> None:
        """Note a key; a second time changes nothing."""
        places = self._environments.get(key[0])
        if places is None:
            places = self._environments[key[0]] = Places()
        places.add(key[1], key[2], key[3])

    def places(self, environment: str) -> Places:
        """Return one environment's keys; empty where it has none."""
        return self._environments.get(environment) or Places()

    @property
    def environments(self) -> set[str]:
        """Of which environments there are keys."""
        return set(self._environments)

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, tuple) or len(key) != len(Key._fields):
            return False
        environment, task_index, task_id, repeat = key
        places = self._environments.get(environment)
        return places is not None and places.has(task_index, task_id, repeat)

    def __iter__(self) -> Iterator[Key]:
        for environment, places in self._environments.items():
            for task_index, task_id, repeat in places:
                yield Key(environment, task_index, task_id, repeat)

    def __len__(self) -> int:
        return sum(places.count for places in self._environments.values())

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> set[Any]:  # what `&` and `|` of two sets make
        return set(it)


def task_number(task_id: str) -> int | None:
    """Return the number that the hexadecimal digits of a task's id say; None for an id of another form."""
    if len(task_id) != _ID_DIGITS:
        return None
    try:
        number = int(task_id, 16)
    except ValueError:
        return None
    # int() also reads "+f", "0xf" and "f_f"; such an id would not come back as it was.
    return number if f"{number:0{_ID_DIGITS}x}" == task_id else None
