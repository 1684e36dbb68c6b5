"""Tasks: rows in, rows out, and what a bad row says."""

from random import Random
from typing import Any

import orjson
import pytest
from openai.types.responses.response_create_params import ResponseCreateParamsBase, ResponseCreateParamsStreaming

from gymrail import Environment, Task
from gymrail.errors import InputError
from gymrail.spec import EnvironmentSpec
from gymrail.task import RESPONSES_PARAMETERS


class Counting(Task):
    initial_count: int
    expected_count: int


ROW = {
    "responses_create_params": {"input": [{"role": "user", "content": "Make it 7."}], "temperature": 0.5},
    "verifier_metadata": {"initial_count": 3, "expected_count": 7, "other": [1]},
    "uuid": "a-1",
    "_ng_note": None,
}


def test_a_row_is_read_typed_and_given_back_exactly() -> None:
    row = orjson.loads(orjson.dumps(ROW))
    task = Counting.from_row(row, "tasks.jsonl:1")
    assert (task.initial_count, task.expected_count) == (3, 7)
    assert task.model_extra is not None
    assert task.model_extra["uuid"] == "a-1"
    assert task.row == ROW
    assert list(task.row) == list(ROW)
    assert Counting.from_row(task.row).id == task.id


def test_a_top_level_field_wins_over_verifier_metadata() -> None:
    task = Counting.from_row({**ROW, "initial_count": 4})
    assert (task.initial_count, task.expected_count) == (4, 7)


def test_an_error_names_the_place_the_field_and_the_value() -> None:
    with pytest.raises(InputError) as error:
        Counting.from_row({"responses_create_params": {"input": "x"}, "initial_count": "three"}, "tasks.jsonl:12")
    assert str(error.value) == (
        "tasks.jsonl:12: field 'initial_count': Input should be a valid integer, unable to parse string as an integer "
        "(value 'three'); field 'expected_count': Field required."
    )


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"input": "x", "temprature": 1}, "'temprature' is no Responses parameter. Did you mean 'temperature'?"),
        ({"input": 7}, "'input' is 7; it must be a string or a list of items"),
        ({"input": ["x"]}, "'input' is ['x']; it must be a string or a list of items"),
        ({"input": "x", "tools": {"name": "a"}}, "'tools' is {'name': 'a'}; it must be a list of function tools"),
    ],
)
def test_wrong_responses_parameters_say_what_is_allowed(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError) as error:
        Task.from_row({"responses_create_params": parameters}, "t.jsonl:3")
    assert text in str(error.value)
    assert str(error.value).startswith("t.jsonl:3: field 'responses_create_params'")


def test_the_known_parameters_are_those_of_the_openai_package() -> None:
    known = {*ResponseCreateParamsBase.__annotations__, *ResponseCreateParamsStreaming.__annotations__}
    assert known == RESPONSES_PARAMETERS


def test_a_huge_value_is_shortened_in_the_error() -> None:
    with pytest.raises(InputError) as error:
        Counting.from_row(
            {"responses_create_params": {"input": "x"}, "initial_count": "9" * 10**6, "expected_count": 1}
        )
    assert len(str(error.value)) < 500


def test_the_id_depends_on_content_and_not_on_key_order_or_private_fields() -> None:
    task = Counting.from_row(ROW)
    again = {key: ROW[key] for key in reversed(ROW)}
    again["responses_create_params"] = dict(reversed(ROW["responses_create_params"].items()))  # type: ignore[attr-defined]
    assert Counting.from_row({**again, "_ng_task_index": 5}).id == task.id
    assert Counting.from_row({**ROW, "uuid": "a-2"}).id != task.id
    assert (
        Task.from_row({"responses_create_params": {"input": "x"}}).id == "ff9a8036b33a3001"
    )  # the same on every machine, for ever


def test_a_task_made_in_code_survives_a_round_trip_through_its_row() -> None:
    task = Counting.ask(
        "Go", system="Be brief.", parameters={"temperature": 0}, initial_count=1, expected_count=2, extra={"a": [1]}
    )
    assert task.input_items == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Go"}]
    back = Counting.from_row(orjson.loads(orjson.dumps(task.row)))
    assert (back, back.id, back.row) == (task, task.id, task.row)


def test_a_changed_copy_is_another_task() -> None:
    task = Counting.from_row(ROW)
    copied = task.model_copy(update={"initial_count": 5})
    assert task.id != copied.id
    assert copied.row["initial_count"] == 5
    assert task.row == ROW


def test_a_row_that_json_cannot_carry_says_so() -> None:
    with pytest.raises(InputError, match="A task's row must be JSON"):
        _ = Task.from_row({"responses_create_params": {"input": "x"}, "image": b"\x00"}).id


class Tiny(Environment[Task]):
    """Sixty tasks in all."""

    @classmethod
    def generate(cls, rng: Random) -> Task:
        return Task.ask(f"Task {rng.randrange(60)}")


class Single(Tiny):
    @classmethod
    def generate(cls, rng: Random) -> Task:
        return Task.ask("Always the same")


class Wrong(Tiny):
    @classmethod
    def generate(cls, rng: Random) -> Task:
        return {"input": "x"}  # type: ignore[return-value]


def test_named_fields_alone_decide_the_split_of_a_generated_task() -> None:
    class Graded(Task):
        question: int
        level: int

    class Quiz(Environment[Graded]):
        split_by = ("question",)

        @classmethod
        def generate(cls, rng: Random) -> Graded:
            question = rng.randint(0, 50)
            return Graded.ask(f"{question}?", question=question, level=rng.randint(1, 9))

    spec = EnvironmentSpec("quiz", Quiz)
    splits = ("train", "validation", "test")
    asked = {split: {spec.generate(split, index).row["question"] for index in range(200)} for split in splits}
    assert all(asked.values())
    assert sum(map(len, asked.values())) == len(set().union(*asked.values()))
    Quiz.split_by = ("questoin",)
    with pytest.raises(InputError, match=r"split_by names 'questoin', which its .* task does not have.*question"):
        spec.generate("train", 0)


def test_generated_splits_never_overlap_even_where_there_are_few_tasks() -> None:
    spec = EnvironmentSpec("tiny", Tiny)
    ids = {
        split: {task.id for task in spec.tasks(split, limit=200, seed=seed)}
        for seed in (0, 1)
        for split in ("train", "validation", "test")
    }
    assert all(ids.values())
    assert not ids["train"] & ids["validation"]
    assert not ids["train"] & ids["test"]
    assert not ids["validation"] & ids["test"]
    assert [task.id for task in spec.tasks("test", limit=9)] == [
        task.id for task in EnvironmentSpec("b", Tiny).tasks("test", limit=9)
    ]


def test_a_generator_that_makes_too_few_tasks_says_so_and_so_does_a_wrong_one() -> None:
    spec = EnvironmentSpec("single", Single)
    refused = []
    for split in ("train", "validation", "test"):
        try:
            spec.generate(split, 0)
        except InputError as error:
            refused.append(str(error))
    assert len(refused) == 2
    assert all("the generator makes too few different tasks" in text for text in refused)
    with pytest.raises(InputError, match=r"Wrong\.generate returned .*; it must return a Task"):
        EnvironmentSpec("wrong", Wrong).generate("train", 0)
    with pytest.raises(InputError, match="Did you mean 'train'"):
        spec.generate("trian", 0)
