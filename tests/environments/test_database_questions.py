"""database_questions: these rows changed and nothing else, however it was done; answers from the data alone."""

import asyncio

import pytest

from gymrail import Rollout, call
from gymrail.environment import Turn
from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail_environments.database_questions.company import company
from gymrail_environments.database_questions.environment import DatabaseTask, rows_of, solved

SPEC = find("database_questions")
QUESTION = DatabaseTask.ask(
    "How many customers are there?", company=3, solution="SELECT count(*) FROM customers", changes=False
)
CHANGE = DatabaseTask.ask(
    "Raise every credit by 5.", company=3, solution="UPDATE customers SET credit = credit + 5", changes=True
)


def played(task: DatabaseTask, *turns: Turn) -> Rollout:
    rollout = asyncio.run(play(SPEC, task, ScriptedModel(turns)))
    assert rollout.failure is None
    return rollout


def run(sql: str) -> Turn:
    return call("sql_execute", sql=sql)


def test_a_question_is_answered_from_the_data() -> None:
    ask = call("sql_query", sql="SELECT count(*) FROM customers")
    assert played(QUESTION, ask, "Answer: 40").reward == 1.0
    assert played(QUESTION, ask, "Answer: 41").reward == 0.0
    assert played(QUESTION, ask, "Answer: 40 or 41").reward == 0.0


def test_a_right_answer_earns_nothing_where_something_was_changed() -> None:
    rollout = played(QUESTION, run("DELETE FROM orders WHERE order_id = 1"), "Answer: 40")
    assert rollout.reward == 0.0
    assert "orders 1: its deletion was not expected" in (rollout.verdict_reason or "")


@pytest.mark.parametrize(
    "statements",
    [
        ["UPDATE customers SET credit = credit + 5"],
        [f"UPDATE customers SET credit = credit + 5 WHERE customer_id {half} 20" for half in ("<=", ">")],
        ["UPDATE customers SET credit = 0", "UPDATE customers SET credit = 1"],
        ["UPDATE customers SET credit = credit + 5", "UPDATE products SET stock = stock + 1"],
        ["UPDATE customers SET credit = credit + 5 WHERE customer_id < 40"],
        ["UPDATE customers SET credit = credit + 5", "CREATE TABLE extra (x)", "INSERT INTO extra VALUES (1)"],
        [],
    ],
)
def test_a_change_is_judged_by_the_rows_and_not_by_the_statements(statements: list[str]) -> None:
    rollout = played(CHANGE, *map(run, statements), "Answer: done")
    is_right = statements and all("credit + 5" in one for one in statements) and "< 40" not in statements[0]
    assert rollout.reward == float(bool(is_right))
    assert (rollout.verdict_reason is None) == bool(is_right)


def test_a_change_that_was_undone_leaves_a_right_state() -> None:
    turns = [
        run(sql) for sql in ("UPDATE orders SET quantity = quantity + 1", "UPDATE orders SET quantity = quantity - 1")
    ]
    assert played(QUESTION, *turns, "Answer: 40").reward == 1.0


def test_no_generated_task_is_solved_by_doing_nothing() -> None:
    for index in range(80):
        task = SPEC.generate("train", index)
        answer, image = solved(task.company, task.solution)
        assert (image != company(task.company).image) == task.changes
        assert task.changes or answer not in ("0", "None", "")
        assert task.solution not in task.responses_create_params["input"]


def test_companies_are_the_same_from_the_same_number_and_differ_from_each_other() -> None:
    assert rows_of(company(1)) == rows_of(company.__wrapped__(1))
    assert rows_of(company(1)) != rows_of(company(2))
    assert {name: len(rows) for name, rows in rows_of(company(0)).items()} == {
        "customers": 40, "orders": 160, "products": 12,
    }  # fmt: skip
