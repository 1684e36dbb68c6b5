"""State comparison: these rows changed and nothing else.

    rules = Rules(keys={"tasks": "task_id"}, generated={"tasks": frozenset({"task_id"})})
    found = compare(changes(before, after, rules), changes(before, wanted, rules))
    found.is_equal, found.score, found.difference     # False, 0.5, "tasks 12: board is 'Design', expected 'Back end'"

A state is tables, a table is rows, a row is a mapping. What is compared are the changes since the start, so neither the
order of rows nor that of the calls that made them counts, and a side effect is a difference. Any environment can use
it: over its own structures, an SQLite file's rows, or JSON that a model wrote.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from gymrail.errors import InputError
from gymrail.rollout import Verdict

Row = Mapping[str, Any]
Tables = Mapping[str, Iterable[Row]]
Pair = tuple[Row | None, Row | None]
"""A row before and after; None where it did not exist."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What makes two rows the same row, and two values the same value."""

    keys: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    """The column or columns that identify a row, by table; the rows of other tables are told apart by content alone."""
    generated: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Columns, by table, that the system fills in when a row is made (numbers, times): they depend on the order of
    calls, so they do not count in new rows."""
    ignored: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Columns, by table, that never count."""
    fold_case: bool = False
    """Whether text is compared without regard to case."""
    exact: frozenset[str] = frozenset()
    """Columns whose case counts all the same."""

    def value(self, column: str, value: Any) -> Any:
        """Return a value as it is compared."""
        if isinstance(value, str):
            return value.lower() if self.fold_case and column not in self.exact else value
        if value is None or isinstance(value, int | float):
            return value
        return _Text(json.dumps(value, sort_keys=True, default=str))


class Change(NamedTuple):
    """One thing that is different from the start: a row made, a row gone, or one column of a row set anew."""

    table: str
    kind: Literal["created", "deleted", "updated"]
    key: tuple[Any, ...]
    """What identifies the row; empty for a new row."""
    column: str
    """The column set anew; empty for a row made or gone."""
    value: Any
    """The column's new value, or the content of a row made, or of one gone from a table without keys."""


Changes = Counter[Change]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two sets of changes differ."""

    matched: int
    missing: tuple[Change, ...]
    """Expected, and not done."""
    unexpected: tuple[Change, ...]
    """Done, and not expected."""

    @property
    def is_equal(self) -> bool:
        return not self.missing and not self.unexpected

    @property
    def score(self) -> float:
        """Partial credit: the share of matched changes among all that were expected or done; 1 only where equal."""
        total = self.matched + len(self.missing) + len(self.unexpected)
        return self.matched / total if total else 1.0

    @property
    def difference(self) -> str:
        """What differs, in one line; empty where nothing does."""
        return "; ".join(_sentences(self))


def changes(before: Tables, after: Tables, rules: Rules) -> Changes:
    """Return what changed between two states.

    Raises:
        InputError: a row lacks a key column, or two rows of a table have one key.
    """
    found: Changes = Counter()
    for table in dict.fromkeys((*before, *after)):
        rows = (before.get(table, ()), after.get(table, ()))
        if table in rules.keys:
            pairs = _paired(table, *(_by_key(table, part, rules) for part in rows))
        else:
            pairs = _unkeyed(table, *rows, rules)
        found.update(row_changes(table, pairs, rules))
    return found


def row_changes(table: str, pairs: Iterable[Pair], rules: Rules) -> Iterator[Change]:
    """Yield the changes of rows that are known to be the same row before and after; for states that keep track."""
    ignored = rules.ignored.get(table, frozenset())
    for before, after in pairs:
        if after is None:
            if before is not None:
                yield Change(table, "deleted", _key(table, before, rules) or _content(before, ignored, rules), "", None)
        elif before is None:
            left_out = ignored | rules.generated.get(table, frozenset())
            yield Change(table, "created", (), "", _content(after, left_out, rules))
        else:
            key = _key(table, before, rules)
            for column in dict.fromkeys((*before, *after)):
                value = rules.value(column, after.get(column))
                if column not in ignored and value != rules.value(column, before.get(column)):
                    yield Change(table, "updated", key, column, value)


def compare(actual: Changes, *expected: Changes) -> Comparison:
    """Compare what was done with what should have been; with several alternatives, with the nearest one.

    Raises:
        InputError: there is nothing to compare with.
    """
    if not expected:
        raise InputError("compare() was given no expected changes; pass at least one set, empty where none is wanted.")
    found = (
        Comparison(
            sum((actual & wanted).values()),
            tuple((wanted - actual).elements()),
            tuple((actual - wanted).elements()),
        )
        for wanted in expected
    )
    return max(found, key=lambda one: (one.is_equal, one.score, -len(one.missing) - len(one.unexpected)))


@dataclass(frozen=True, slots=True)
class StateComparison:
    """The verifier: the final state must differ from the initial one as an expected state does, and in nothing else.

    Without `final_state` the answer itself is the state: the JSON object of tables that it holds.
    """

    rules: Rules = field(default_factory=Rules)
    partial_credit: bool = False
    """Whether a state that is partly right earns its share; otherwise 1 or 0."""

    async def __call__(
        self,
        answer: str,
        /,
        *,
        expected_state: Tables | Sequence[Tables],
        initial_state: Tables | None = None,
        final_state: Tables | None = None,
        **fields: Any,
    ) -> Verdict:
        """Judge a state; a list as `expected_state` holds alternatives."""
        alternatives = [expected_state] if isinstance(expected_state, Mapping) else list(expected_state)
        before = initial_state or {}
        if final_state is None:
            final_state = _tables_in(answer)
            if final_state is None:
                return Verdict(0.0, reason="the answer holds no JSON object of tables", metrics={"partial": 0.0})
            try:
                done = changes(before, final_state, self.rules)
            except InputError as error:  # the model's own rows, not ours
                return Verdict(0.0, reason=str(error), metrics={"partial": 0.0})
        else:
            done = changes(before, final_state, self.rules)
        return self.verdict(compare(done, *(changes(before, state, self.rules) for state in alternatives)))

    def verdict(self, found: Comparison) -> Verdict:
        """Return the verdict on a comparison."""
        reward = found.score if self.partial_credit else float(found.is_equal)
        counts = {"partial": found.score, "missing": len(found.missing), "unexpected": len(found.unexpected)}
        return Verdict(reward, reason=found.difference or None, metrics=counts)


class _Text(str):
    """A nested value, written down: it equals no plain text."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Text) and str.__eq__(self, other)

    def __hash__(self) -> int:
        return str.__hash__(self)

    __repr__ = str.__str__


def _key(table: str, row: Row, rules: Rules) -> tuple[Any, ...]:
    columns = rules.keys.get(table, ())
    columns = (columns,) if isinstance(columns, str) else columns
    for column in columns:
        if column not in row:
            raise InputError(f"A row of table {table!r} has no key column {column!r}; it has {', '.join(row)}.")
    values = (row[column] for column in columns)
    # A key is compared as written: it is not text that somebody phrased.
    return tuple(value if isinstance(value, str) else rules.value("", value) for value in values)


def _content(row: Row, left_out: frozenset[str], rules: Rules) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((column, rules.value(column, row[column])) for column in row if column not in left_out))


def _by_key(table: str, rows: Iterable[Row], rules: Rules) -> dict[tuple[Any, ...], Row]:
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        key = _key(table, row, rules)
        if key in found:
            raise InputError(f"Table {table!r} has two rows with the key {_named(key)}; a key belongs to one row.")
        found[key] = row
    return found


def _paired(table: str, before: Mapping[Any, Row], after: Mapping[Any, Row]) -> Iterator[Pair]:
    for key, row in before.items():
        other = after.get(key)
        if row is not other:
            yield row, other
    yield from ((None, row) for key, row in after.items() if key not in before)


def _unkeyed(table: str, before: Iterable[Row], after: Iterable[Row], rules: Rules) -> Iterator[Pair]:
    """Rows without identity are a bag: what is there more often was made, what is there less often is gone."""
    ignored = rules.ignored.get(table, frozenset())
    left: dict[Any, list[Row]] = {}
    for row in before:
        left.setdefault(_content(row, ignored, rules), []).append(row)
    for row in after:
        same = left.get(_content(row, ignored, rules))
        if same:
            same.pop()
        else:
            yield None, row
    yield from ((row, None) for rows in left.values() for row in rows)


def _tables_in(answer: str) -> dict[str, list[Row]] | None:
    """The tables that an answer holds: its outermost braces, fenced or not."""
    start, end = answer.find("{"), answer.rfind("}")
    try:
        value = json.loads(answer[start : end + 1]) if 0 <= start < end else None
    except (ValueError, RecursionError):
        return None
    is_state = isinstance(value, dict) and all(
        isinstance(rows, list) and all(isinstance(row, dict) for row in rows) for rows in value.values()
    )
    return value if is_state else None


def _sentences(found: Comparison) -> Iterator[str]:
    """Say what differs; what stands on both sides of one row or column is said once."""
    unexpected = list(found.unexpected)
    for wanted in found.missing:
        other = _counterpart(wanted, unexpected)
        if other is None:
            yield f"{_place(wanted)}: {_deed(wanted)} is missing"
            continue
        unexpected.remove(other)
        if wanted.kind == "created":
            has, wants = dict(other.value), dict(wanted.value)
            columns = [name for name in dict.fromkeys((*wants, *has)) if has.get(name) != wants.get(name)]
            texts = [f"{name} is {has.get(name)!r}, expected {wants.get(name)!r}" for name in columns]
            yield f"{_place(wanted)}: {', '.join(texts)}"
        else:
            yield f"{_place(wanted)}: {wanted.column} is {other.value!r}, expected {wanted.value!r}"
    for change in unexpected:
        yield f"{_place(change)}: {_deed(change)} was not expected"


def _counterpart(wanted: Change, unexpected: Sequence[Change]) -> Change | None:
    """The unexpected change that stands in the place of a missing one: the same column, or the most similar new row."""
    if wanted.kind == "deleted":
        return None
    same = [change for change in unexpected if change[:4] == wanted[:4]]
    if wanted.kind == "updated" or not same:
        return same[0] if same else None
    return max(same, key=lambda change: len(set(change.value) & set(wanted.value)))


def _place(change: Change) -> str:
    return f"{change.table} {_named(change.key)}" if change.key else f"{change.table}, new row"


def _named(key: tuple[Any, ...]) -> str:
    return ", ".join(f"{part[0]}={part[1]!r}" if isinstance(part, tuple) else str(part) for part in key)


def _deed(change: Change) -> str:
    if change.kind == "updated":
        return f"{change.column} {change.value!r}"
    if change.kind == "deleted":
        return "its deletion"
    return "{" + ", ".join(f"{name}: {value!r}" for name, value in change.value) + "}"
