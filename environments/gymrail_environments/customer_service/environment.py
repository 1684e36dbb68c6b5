"""Customer service under a written policy: real tools, a user who tells what it is asked, refusals.

One row, shortened:

    {"responses_create_params": {"input": [{"role": "system", "content": "...policy..."}, {"role": "user", "content":
     "Hello! I want to send back the teapot and get my money back."}]}, "tables": {...}, "customer_scenario": {...},
     "user": {"facts": [{"ask": ["email"], "say": "My email address is lea.fontaine31@example.org."}]}, "email":
     "lea.fontaine31@example.org", "expected": [{"kind": "refund", "order_id": "4417", "must_tell": ["23.50"],
     "calls": [{"name": "refund_item", "arguments": {"order_id": "4417", "item_id": "i204"}}]}]}
"""

from __future__ import annotations

import re
from collections.abc import Generator
from random import Random
from typing import Any

import orjson
from pydantic import Field

from gymrail import Environment, Rollout, Task, Verdict, call
from gymrail.environment import Call, Turn
from gymrail.models.model import Model
from gymrail.rollout import ToolCall
from gymrail.users.casting import CustomerScenario, UserConfig, cast_user, close_player, open_player
from gymrail.users.scripted import UserScript
from gymrail.users.user import User
from gymrail.verifiers.answer import numbers_in
from gymrail.verifiers.state import Rules, changes, compare
from gymrail_environments.customer_service.scenarios import POLICY, Expected, make_scenario
from gymrail_mcp_servers.shop.server import Shop, Tables

RULES = Rules(keys={"orders": "order_id", "items": ("order_id", "item_id"), "products": "product_id"}, fold_case=True)


class ServiceTask(Task):
    tables: Tables
    user: UserScript
    customer_scenario: CustomerScenario
    expected: list[Expected] = Field(min_length=1)
    """What is to come of each request."""
    email: str
    """How the customer is identified."""


class CustomerService(Environment[ServiceTask]):
    """The final tables, the rules named, the amounts told, and the transfer must be what the policy asks for."""

    Config = UserConfig
    shared: Model | None
    office: Shop
    user: User

    @classmethod
    def setup(cls, config: UserConfig) -> Model | None:
        return open_player(config)

    @classmethod
    async def teardown(cls, shared: Model | None) -> None:
        await close_player(shared)

    @classmethod
    def generate(cls, rng: Random) -> ServiceTask:
        fields = make_scenario(rng)
        return ServiceTask.ask(fields.pop("opening"), system=POLICY, **fields)

    def seed(self) -> None:
        task = self.task
        self.office.seed(task.tables)
        self.user = cast_user(self.config, self.shared, task.user, task.customer_scenario, task.id)
        self.has_ended = False

    def after_call(self, call: ToolCall) -> None:
        self.done = self.office.transferred

    async def reply(self, rollout: Rollout) -> str | None:
        turn = await self.user.respond(rollout.conversation)
        self.has_ended = turn.ends
        return None if turn.ends else turn.text

    def verify(self, rollout: Rollout) -> Verdict:
        faults = list(self._faults(" ".join(rollout.answers)))
        return Verdict(
            float(not faults),
            metrics={"turns": len(rollout.answers), "kind": self.task.expected[0].kind},
            reason="; ".join(faults) or None,
        )

    def _faults(self, said: str) -> Generator[str]:
        expected, office = self.task.expected, self.office
        gold = Shop()
        gold.seed(self.task.tables)
        before = gold.rows()
        for step in (step for each in expected for step in each.calls):
            getattr(gold, step["name"])(**step["arguments"])
        found = compare(changes(before, office.rows(), RULES), changes(before, gold.rows(), RULES))
        if found.difference:
            yield found.difference
        if office.changes_before_identification:
            yield "something was changed before the customer was identified"
        if office.transferred != any(each.transfers for each in expected):
            yield "the talk was transferred" if office.transferred else "the talk was not transferred"
        elif not office.transferred and not self.has_ended:
            yield "the talk has not come to its end"
        named, rules = set(re.findall(r"\bR[1-7]\b", said)), {rule for each in expected for rule in each.rules}
        if named != rules:
            yield f"named {', '.join(sorted(named)) or 'no rule'}, expected {', '.join(sorted(rules)) or 'none'}"
        untold = [amount for each in expected for amount in each.must_tell if float(amount) not in numbers_in(said)]
        if untold:
            yield f"the customer was not told {', '.join(untold)}"

    def solve(self) -> Generator[Turn, Any, None]:
        expected, is_put_later = self.task.expected, "One more thing." in str(self.task.user.requests)
        groups = [[each] for each in expected] if is_put_later else [expected]
        if not expected[0].transfers:
            yield "Gladly. What is the email of your account, please?"
            customer = yield call("find_customer", email=self.task.email)
            yield call("list_orders", customer_id=orjson.loads(customer)["customer_id"])
        for group in groups:
            for each in group:
                yield from self._settle(each)
            if group[-1].transfers:
                return
            rules, told = [rule for each in group for rule in each.rules], [a for each in group for a in each.must_tell]
            yield " ".join(
                ([f"I cannot do that: {' and '.join(f'rule {rule}' for rule in rules)} forbids it."] if rules else [])
                + (["What could be done is done."] if any(each.calls for each in group) else [])
                + ([f"We pay back {' and '.join(told)}."] if told else [])
            )
        if not is_put_later and self.task.user.requests:
            yield "Yes, both are settled."

    def _settle(self, each: Expected) -> Generator[Turn, Any, None]:
        if each.transfers:
            yield call("transfer_to_human", summary="The customer has a claim that I may not settle.")
            return
        order = orjson.loads((yield call("get_order", order_id=each.order_id)))
        if each.question:
            yield each.question
        if each.kind.startswith("exchange"):
            yield call("get_product", product_id=order["items"][0]["product_id"])
        for step in each.calls:
            yield call(step["name"], **step["arguments"])

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Give up on a change, name another rule, or keep an amount to oneself."""
        if isinstance(turn, Call):
            return turn if self.office.tools[turn.name].options.read_only else "I am afraid that this cannot be done."
        if not isinstance(turn, str) or turn.endswith("?"):
            return turn
        turn = re.sub(r"\bR([1-7])\b", lambda rule: f"R{int(rule[1]) % 7 + 1}", turn)
        return re.sub(r"\d+\.\d\d", "some money", turn)
