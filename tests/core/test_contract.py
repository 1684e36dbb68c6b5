"""The contract catches each kind of broken environment by exactly its own check."""

import asyncio
import itertools
import random
from collections.abc import Generator
from random import Random
from typing import Any, ClassVar

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gymrail import Environment, Rollout, Task, ToolError, Verdict, call, tool
from gymrail.contract import Report, check_environment
from gymrail.contract_policies import random_value
from gymrail.schema_check import schema_problems
from gymrail.spec import EnvironmentSpec, Manifest

CLAUSES = [
    "properties", "tools", "same seed", "splits", "duplicates", "gold", "empty answer", "wrong answer", "format only",
    "random calls", "malformed calls", "replay", "determinism", "interleaving", "cancellation", "row", "leak",
]  # fmt: skip


class SumTask(Task):
    a: int
    b: int
    expected_answer: str


class Sound(Environment[SumTask]):
    """A sound environment; each broken one below differs from it in one thing."""

    @classmethod
    def generate(cls, rng: Random) -> SumTask:
        a, b = rng.randint(100, 999), rng.randint(100, 999)
        return SumTask.ask(f"Store the sum of {a} and {b}.", a=a, b=b, expected_answer=str(a + b))

    def seed(self) -> None:
        self.stored: int | None = None

    @tool
    def store(self, value: int) -> str:
        """Store a number."""
        self.stored = value
        return "stored"

    @tool(read_only=True)
    def look(self) -> str:
        """Look what is stored."""
        return str(self.stored)

    def verify(self, rollout: Rollout) -> Verdict:
        return Verdict(float(self.stored == self.task.a + self.task.b))

    def solve(self) -> Generator[Any, str, None]:
        yield call("store", value=self.task.a + self.task.b)
        yield call("look")
        yield "Done."


class SharesState(Sound):
    shared_stored: ClassVar[dict[str, int]] = {}

    @tool
    def store(self, value: int) -> str:
        """Store a number."""
        self.shared_stored["value"] = value
        return "stored"

    def verify(self, rollout: Rollout) -> Verdict:
        return Verdict(float(self.shared_stored.get("value") == self.task.a + self.task.b))


class GeneratesAnew(Sound):
    @classmethod
    def generate(cls, rng: Random) -> SumTask:
        return Sound.generate.__func__(cls, random.Random())  # not seeded


class GoldFails(Sound):
    def solve(self) -> Generator[Any, str, None]:
        yield call("store", value=self.task.a + self.task.b + 1)
        yield "Done."


class GoldNeverEnds(Sound):
    def solve(self) -> Generator[Any, str, None]:
        yield call("store", value=self.task.a + self.task.b)
        while True:
            yield call("look")


class ReplaysDifferently(Sound):
    ticks: ClassVar[Any] = itertools.count()

    @tool(read_only=True)
    def look(self) -> str:
        """Look at the clock."""
        # What the clock says depends on the episodes before, as a wall clock would have it.
        return "stored" if next(self.ticks) < 32 else f"tick {next(self.ticks)}"


class LeaksInPrompt(Sound):
    @classmethod
    def generate(cls, rng: Random) -> SumTask:
        task = Sound.generate.__func__(cls, rng)
        return SumTask.ask(
            f"Store {task.a} + {task.b} = {task.expected_answer}.",
            a=task.a,
            b=task.b,
            expected_answer=task.expected_answer,
        )


class LeaksInTool(Sound):
    @classmethod
    def generate(cls, rng: Random) -> SumTask:
        a = rng.randint(1, 999)
        return SumTask.ask(f"Store the sum of {a} and the rest to a thousand.", a=a, b=1000 - a, expected_answer="1000")

    @tool
    def store(self, value: int) -> str:
        """Store a number, such as 1000."""
        self.stored = value
        return "stored"


class PaysForNothing(Sound):
    def verify(self, rollout: Rollout) -> Verdict:
        return Verdict(float(self.stored == self.task.a + self.task.b or not rollout.final_text))


class PaysForWords(Sound):
    def verify(self, rollout: Rollout) -> Verdict:
        is_long = len(rollout.final_text) > 70
        return Verdict(float(self.stored == self.task.a + self.task.b or is_long))


class PaysForForm(Sound):
    def verify(self, rollout: Rollout) -> Verdict:
        is_form = not rollout.calls and 0 < len(rollout.final_text) <= 70
        return Verdict(float(self.stored == self.task.a + self.task.b or is_form))


class PaysForAnyCall(Sound):
    def verify(self, rollout: Rollout) -> Verdict:
        return Verdict(float(any(not made.is_error for made in rollout.calls)))


class BreaksOnMalformedCalls(Sound):
    def verify(self, rollout: Rollout) -> Verdict:
        for made in rollout.calls_of("store"):
            made.parsed["value"]
        return super().verify(rollout)


class DoesNotDescribe(Sound):
    @tool
    def look(self) -> str:
        return str(self.stored)


def checked(cls: type[Environment[Any]], **manifest: Any) -> Report:
    return asyncio.run(check_environment(EnvironmentSpec("planted", cls, Manifest(**manifest))))


def failed(report: Report) -> list[str]:
    return [check.name for check in report.failures]


def test_a_sound_environment_passes_every_clause() -> None:
    report = checked(Sound)
    assert [check.name for check in report.checks] == CLAUSES
    assert report.failures == report.warnings == ()
    assert report.passed


@pytest.mark.parametrize(
    ("cls", "clause", "detail"),
    [
        (SharesState, "interleaving", "keep state on self"),
        (GoldFails, "gold", "earned 0.0, not 1"),
        (GoldNeverEnds, "gold", "was truncated (max_steps)"),
        (ReplaysDifferently, "replay", "gives 'tick"),
        (LeaksInPrompt, "leak", "16 of 16 tasks"),
        (LeaksInTool, "leak", "16 of 16 tasks"),
        (PaysForNothing, "empty answer", "mean reward 1"),
        (PaysForWords, "wrong answer", "mean reward 1"),
        (PaysForForm, "format only", "mean reward 1"),
        (PaysForAnyCall, "random calls", "mean reward"),
        (BreaksOnMalformedCalls, "malformed calls", "KeyError: 'value'"),
        (DoesNotDescribe, "tools", "tool 'look' has no description"),
    ],
)
def test_each_fault_fails_exactly_its_own_clause(cls: type[Environment[Any]], clause: str, detail: str) -> None:
    report = checked(cls)
    assert failed(report) == [clause]
    assert detail in report.failures[0].detail
    assert not report.passed


def test_a_generator_that_ignores_its_seed_is_found() -> None:
    report = checked(GeneratesAnew)
    assert failed(report) == ["same seed"]
    assert "draw from `rng` alone" in report.failures[0].detail


def test_splits_that_overlap_are_found(tmp_path: Any) -> None:
    task = Sound.generate(Random(1))
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(task.model_dump_json().encode() + b"\n")
    datasets = [
        {"name": split, "split": split, "path": str(rows), "license": "MIT"} for split in ("train", "validation")
    ]
    report = asyncio.run(
        check_environment(EnvironmentSpec("planted", Sound, Manifest(datasets=datasets), path=tmp_path))
    )
    assert failed(report) == ["splits"]
    assert report.failures[0].detail == "1 tasks stand in train and in validation"


def test_a_row_that_does_not_read_back_is_found() -> None:
    class RowChanges(SumTask):
        @property
        def row(self) -> dict[str, Any]:
            return {**super().row, "read": super().row.get("read", 0) + 1}

    class Forgetful(Sound):
        task_type = RowChanges

        @classmethod
        def generate(cls, rng: Random) -> SumTask:
            task = Sound.generate.__func__(cls, rng)
            return RowChanges(**task.row)

    assert failed(checked(Forgetful)) == ["row"]


def test_without_a_gold_policy_the_check_warns_how_to_add_one() -> None:
    class Unsolved(Sound):
        solve = Environment.solve

    report = checked(Unsolved)
    assert report.passed
    assert [check.name for check in report.warnings] == ["gold"]
    assert "define solve(self)" in report.warnings[0].detail


def test_an_environment_that_says_it_cannot_be_replayed_is_not_held_to_it() -> None:
    ReplaysDifferently.ticks = itertools.count()
    report = checked(ReplaysDifferently, reproducible=False)
    assert [check.name for check in report.warnings] == ["replay", "determinism"]
    assert report.passed


def test_a_generator_that_breaks_is_reported_with_its_message() -> None:
    class Breaks(Sound):
        @classmethod
        def generate(cls, rng: Random) -> SumTask:
            raise ZeroDivisionError("no tasks today")

    report = checked(Breaks)
    assert failed(report) == ["tasks"]
    assert report.failures[0].detail == "ZeroDivisionError: no tasks today"


def test_a_gold_policy_that_breaks_is_reported_with_its_message() -> None:
    class Breaks(Sound):
        def solve(self) -> Generator[Any, str, None]:
            yield call("store", value=1 // 0)

    report = checked(Breaks)
    assert "gold" in failed(report)
    assert "ZeroDivisionError" in report.failures[0].detail


def test_a_penalty_moves_the_line_between_low_and_high() -> None:
    class Penalises(Sound):
        reward_range = (-1.0, 1.0)

        def verify(self, rollout: Rollout) -> Verdict:
            return Verdict(1.0 if self.stored == self.task.a + self.task.b else -0.5 if self.stored else 0.0)

    assert checked(Penalises).passed


def test_a_refused_call_is_no_fault() -> None:
    class Refuses(Sound):
        @tool
        def look(self) -> str:
            """Look what is stored."""
            if self.stored is None:
                raise ToolError("Nothing is stored.")
            return str(self.stored)

    assert checked(Refuses).passed


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "int"}}},
        {"type": "object", "properties": {"a": {"type": ["string", "nil"]}}},
        {"type": "object", "properties": {"a": {"anyOf": []}}},
        {"type": "object", "properties": {"a": {"enum": "x"}}},
        {"type": "object", "properties": {"a": {"description": 3}}},
        {"type": "object", "properties": {"a": {"minLength": -1}}},
        {"type": "object", "properties": {"a": {"minimum": "0"}}},
        {"type": "object", "properties": {"a": 3}},
        {"type": "object", "properties": []},
        {"type": "object", "properties": {}, "required": "a"},
        {"type": "object", "properties": {"a": {}}, "required": ["a", "a"]},
        {"type": "object", "$defs": {"X": {"type": "int"}}},
    ],
)
def test_the_structural_check_refuses_what_the_json_schema_standard_refuses(schema: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.SchemaError):
        jsonschema.Draft202012Validator.check_schema(schema)
    assert schema_problems(schema) != []


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/X"}}}, "leads nowhere"),
        ({"type": "object", "properties": {}, "required": ["a"]}, "names 'a', which is no property"),
        ({"type": "array"}, "must be a schema of type 'object'"),
        (None, "must be a schema of type 'object'"),
    ],
)
def test_the_structural_check_refuses_tools_that_no_model_could_call(schema: Any, problem: str) -> None:
    assert any(problem in found for found in schema_problems(schema))


SCHEMAS = st.recursive(
    st.sampled_from([{"type": kind} for kind in ("string", "integer", "number", "boolean", "null")])
    | st.just({"enum": ["a", 1, None]})
    | st.just({"const": 3})
    | st.just({"$ref": "#/$defs/X"})
    | st.just({"type": "integer", "minimum": 3, "maximum": 4})
    | st.just({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}),
    lambda inner: (
        st.builds(lambda part: {"type": "array", "items": part, "minItems": 1, "maxItems": 2}, inner)
        | st.builds(lambda parts: {"anyOf": parts}, st.lists(inner, min_size=1, max_size=3))
        | st.builds(
            lambda parts: {
                "type": "object",
                "properties": parts,
                "required": list(parts),
                "additionalProperties": False,
            },
            st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        )
    ),
    max_leaves=8,
)


@given(SCHEMAS, st.integers())
def test_random_values_fit_the_schema_that_they_are_drawn_for(part: dict[str, Any], seed: int) -> None:
    schema = {
        "type": "object",
        "properties": {"p": part},
        "required": ["p"],
        "$defs": {
            "X": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/X"}, {"type": "null"}]}}}
        },
    }
    assert schema_problems(schema) == []
    value = random_value(schema, schema["$defs"], ["word"], Random(seed))
    jsonschema.Draft202012Validator(schema).validate(value)
