"""Questions about a company's database, and changes to it, by SQL.

One row:

    {"responses_create_params": {"input": "Delete the cancelled orders of the bell from before month 3 of 2024. ..."},
     "company": 4, "solution": "DELETE FROM orders WHERE ...", "changes": true}
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Generator
from random import Random
from typing import Any

from pydantic import Field

from gymrail import Environment, Rollout, Task, Verdict, call
from gymrail.environment import Call, Turn
from gymrail.verifiers.answer import says
from gymrail.verifiers.state import Rules, changes, compare
from gymrail_environments.database_questions.company import CITIES, DATABASES, PRODUCTS, STATES, company, make_request
from gymrail_mcp_servers.sqlite.server import Sqlite, Template

RULES = Rules(keys={"customers": "customer_id", "products": "product_id", "orders": "order_id"})
HOW = (
    "Use the SQL tools. When you have the answer, or the change is made, end with 'Answer: <value>', or 'Answer: done'."
)


class DatabaseTask(Task):
    company: int = Field(ge=0, lt=DATABASES)
    solution: str
    changes: bool


class DatabaseQuestions(Environment[DatabaseTask]):
    """A question: the right answer, and nothing changed. A change: these rows changed, and nothing else."""

    database: Sqlite

    @classmethod
    def generate(cls, rng: Random) -> DatabaseTask:
        while True:
            number, request = rng.randrange(DATABASES), make_request(rng)
            answer, image = solved(number, request.sql)
            # A question whose answer is nothing, or a change that changes nothing, would pay for doing nothing.
            if image != company(number).image if request.changes else answer not in ("0", "None"):
                break
        prompt = f"{request.text} {HOW}"
        return DatabaseTask.ask(prompt, company=number, solution=request.sql, changes=request.changes)

    async def seed(self) -> None:
        template = await asyncio.to_thread(company, self.task.company)  # made once
        self.database.seed(template=template)

    async def verify(self, rollout: Rollout) -> Verdict:
        return await asyncio.to_thread(self._judge, rollout.final_text)

    def _judge(self, text: str) -> Verdict:
        task = self.task
        answer, image = solved(task.company, task.solution)
        is_answered = task.changes or says(text, answer)
        if self.database.image() == image:  # the same pages hold the same rows, and most episodes end so
            reason = None if is_answered else f"the answer is not {answer!r}"
            return Verdict(float(is_answered), metrics={"partial": float(is_answered)}, reason=reason)
        after = self.database.tables()
        before, wanted = rows_of(company(task.company)), rows_of(Template(image))
        found = compare(changes(before, after, RULES), changes(before, wanted, RULES))
        partial = found.score if task.changes else 0.0
        return Verdict(
            float(found.is_equal and is_answered), metrics={"partial": partial}, reason=found.difference or None
        )

    def solve(self) -> Generator[Turn, str, None]:
        yield call("sql_schema")
        if self.task.changes:
            yield call("sql_execute", sql=self.task.solution)
            yield "Answer: done"
            return
        yield call("sql_query", sql=self.task.solution)
        yield f"Answer: {solved(self.task.company, self.task.solution)[0]}"

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Ask or change with a wrong word in the statement; misread an answer."""
        if isinstance(turn, Call) and "sql" in turn.arguments:
            sql = str(turn.arguments["sql"])
            for words in (CITIES, PRODUCTS, STATES):
                for word in words:
                    if f"'{word}'" in sql:
                        other = rng.choice([one for one in words if one != word])
                        return call(turn.name, sql=sql.replace(f"'{word}'", f"'{other}'"))
        if turn == "Answer: done" or isinstance(turn, Call):
            return turn
        return f"Answer: {rng.choice([*PRODUCTS, str(rng.randint(1, 400))])}"


@functools.lru_cache(maxsize=256)
def solved(number: int, sql: str) -> tuple[str, bytes]:
    """Run a statement on a fresh copy of a company: return the first value, and the database after it."""
    database = Sqlite()
    database.seed(template=company(number))
    try:
        rows = database.sql_execute(sql).get("rows")
        return str(rows[0][0]) if rows else "None", database.image()
    finally:
        database.shut()


def rows_of(template: Template) -> dict[str, list[dict[str, Any]]]:
    """Return every row of every table of a database."""
    database = Sqlite()
    database.seed(template=template)
    try:
        return database.tables()
    finally:
        database.shut()
