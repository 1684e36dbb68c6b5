"""Scenarios: a small shop, a customer with one or two requests, and what the policy says is to be done about them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from pydantic import BaseModel

from gymrail.users.casting import CustomerScenario
from gymrail.users.scripted import Fact, UserScript
from gymrail_mcp_servers.shop.server import Customer, Line, Order, Product, Tables

POLICY = """You are the support agent of an online shop. Help the customer with the tools, and keep this policy:

R1. Identify the customer before you change anything: ask for the email of the account and look it up. Change only
orders that belong to this account.
R2. An order can be cancelled only while it is processing.
R3. An item can be refunded or exchanged only when it was delivered at most 30 days ago.
R4. Items marked as final sale are never refunded or exchanged.
R5. An item can be exchanged only for an option of the same product that is in stock.
R6. The address of an order can be changed only while it is processing.
R7. Injuries, lawyers and disputes with a bank are not yours: transfer to a human at once, and change nothing.

When the policy forbids a request, change nothing for it, and tell the customer so with the rule that forbids it,
such as "rule R4"; name no rule otherwise. Do what was asked and nothing else. After a refund or a cancellation tell
the customer the amount that is paid back. The customer writes until everything is settled."""

_NAMES = ("Ada Brandt", "Boris Quinn", "Carla Mendes", "Dario Novak", "Elif Sahin", "Farid Rahimi", "Greta Olsen",
          "Hugo Perrin", "Imani Otieno", "Jonas Weber", "Keiko Mori", "Lea Fontaine")  # fmt: skip
_PRODUCTS = {
    "rain jacket": ("S", "M", "L", "XL"), "wool sweater": ("grey", "navy", "green"),
    "running shoes": ("40", "41", "42", "43"),
    "desk lamp": ("black", "white"), "backpack": ("red", "olive", "black"), "teapot": ("blue", "cream"),
    "winter gloves": ("S", "M", "L"), "phone case": ("clear", "black", "pink"),
}  # fmt: skip
_STREETS = ("Mill Lane", "Station Road", "Harbour Street", "Elm Row", "Castle Hill", "Market Square")
_TOWNS = ("Norwick", "Eastbay", "Larkfield", "Stonebridge", "Fairhaven")
_PERSONAS = ("You are polite and brief.", "You are in a hurry and a little impatient.", "You are chatty and friendly.",
             "You are suspicious of shops, and polite all the same.")  # fmt: skip
_SERIOUS = (
    "Your {product} cut my hand and I had to see a doctor. I want compensation.",
    "I have asked my lawyer to write to you about the {product}. What do you offer?",
    "I have disputed the payment for the {product} with my bank. What happens now?",
)


class Expected(BaseModel):
    """What is to come of one request."""

    kind: str
    """What is asked for, and what stands against it: "refund", "refund_late"."""
    order_id: str
    calls: list[dict[str, Any]] = []
    """The changes to make; none where the request is refused."""
    rules: list[str] = []
    """The rules to name in a refusal."""
    must_tell: list[str] = []
    """Amounts that the customer must be told."""
    question: str | None = None
    """What has to be asked first."""
    transfers: bool = False


class Intent(NamedTuple):
    """One request, as the customer puts it."""

    says: str
    expected: Expected
    facts: tuple[Fact, ...] = ()


class _Draft:
    """The tables while they are made."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        names = rng.sample(_NAMES, 3)
        people = [Customer(customer_id=f"c{n}", name=name, email=_email(name, rng)) for n, name in enumerate(names, 1)]
        self.customers = {each.customer_id: each for each in people}
        self.me = rng.choice(people)
        self.products = {
            f"p{n}": Product(product_id=f"p{n}", name=name, stock={option: rng.randint(1, 9) for option in options})
            for n, (name, options) in enumerate(_PRODUCTS.items(), 1)
        }
        self.orders: dict[str, Order] = {}
        self.free = rng.sample(sorted(self.products), len(self.products))
        """Products of which the customer has none: each names one of its orders."""

    def order(self, status: str, days: int | None = None, owner: str | None = None, **line: Any) -> tuple[Order, Line]:
        """Make an order of one product that no other order has."""
        product = self.products[self.free.pop()]
        number = str(self.rng.randint(1000, 9999))
        while number in self.orders:
            number = str(self.rng.randint(1000, 9999))
        price = self.rng.randint(8, 140) + self.rng.choice((0.5, 0.9, 0.95))
        item = Line(
            item_id=f"i{self.rng.randint(100, 999)}", product_id=product.product_id,
            option=self.rng.choice(sorted(product.stock)), price=price, **line,
        )  # fmt: skip
        self.orders[number] = Order.model_validate(
            {
                "order_id": number, "customer_id": owner or self.me.customer_id, "status": status,
                "days_since_delivery": days, "address": self.address(), "items": [item],
            }
        )  # fmt: skip
        return self.orders[number], self.orders[number].items[0]

    def address(self) -> str:
        return f"{self.rng.choice(_STREETS)} {self.rng.randint(1, 98)}, {self.rng.choice(_TOWNS)}"

    def name_of(self, line: Line) -> str:
        return self.products[line.product_id].name

    def tables(self) -> Tables:
        orders = sorted(self.orders)
        self.rng.shuffle(orders)
        return Tables(
            customers=self.customers, orders={key: self.orders[key] for key in orders}, products=self.products
        )


def make_scenario(rng: Random) -> dict[str, Any]:
    """Return a task's fields: what opens the talk is `opening`."""
    shop = _Draft(rng)
    intents = [rng.choice(_INTENTS)(shop)]
    if not intents[0].expected.transfers and rng.random() < 0.45:
        intents.append(rng.choice(_INTENTS)(shop))
    for _ in range(rng.randint(0, 2)):  # orders that nobody writes about
        shop.order(rng.choice(("processing", "shipped")), owner=rng.choice(sorted(shop.customers)))
    opening, requests = f"Hello! {intents[0].says}", []
    if len(intents) == 2 and not intents[1].expected.transfers and rng.random() < 0.6:
        opening += f" And another thing: {intents[1].says}"
        requests = ["And is my other request dealt with, too?"]
    elif len(intents) == 2:
        requests = [f"One more thing. {intents[1].says}"]
    email = Fact(ask=["email", "e-mail", "mail address"], say=f"My email address is {shop.me.email}.")
    name = Fact(ask=["your name", "full name"], say=f"My name is {shop.me.name}.")
    facts = [email, name, *(fact for each in intents for fact in each.facts)]
    scenario = CustomerScenario(
        customer_persona=f"{shop.me.name}. {rng.choice(_PERSONAS)}",
        reason_for_contact=" Then, once that is settled: ".join(each.says for each in intents),
        customer_details=" ".join(fact.say for fact in facts),
        unknown_info="Your order numbers and item numbers.",
        task_instructions="Accept a refusal that names a reason, and do not ask for anything else instead.",
    )
    return {
        "opening": opening,
        "tables": shop.tables(),
        "user": UserScript(facts=facts, requests=requests, patience=12),
        "customer_scenario": scenario,
        "expected": [each.expected for each in intents],
        "email": shop.me.email,
    }


def _refund(shop: _Draft) -> Intent:
    fault = shop.rng.choice(("", "", "_late", "_final"))
    days = shop.rng.randint(31, 90) if fault == "_late" else shop.rng.randint(1, 30)
    order, line = shop.order("delivered", days, final_sale=fault == "_final")
    says = f"I want to send back the {shop.name_of(line)} and get my money back."
    if fault:
        return Intent(says, _refused(f"refund{fault}", order, "R3" if fault == "_late" else "R4"))
    calls = [_call("refund_item", order_id=order.order_id, item_id=line.item_id)]
    expected = Expected(kind="refund", order_id=order.order_id, calls=calls, must_tell=[f"{line.price:.2f}"])
    return Intent(says, expected)


def _cancel(shop: _Draft) -> Intent:
    is_open = shop.rng.random() < 0.6
    order, line = shop.order("processing" if is_open else "shipped")
    says = f"Please cancel my order of the {shop.name_of(line)}."
    if not is_open:
        return Intent(says, _refused("cancel_shipped", order, "R2"))
    calls = [_call("cancel_order", order_id=order.order_id)]
    expected = Expected(kind="cancel", order_id=order.order_id, calls=calls, must_tell=[f"{line.price:.2f}"])
    return Intent(says, expected)


def _exchange(shop: _Draft) -> Intent:
    fault = shop.rng.choice(("", "", "_stock", "_late"))
    days = shop.rng.randint(31, 90) if fault == "_late" else shop.rng.randint(1, 30)
    order, line = shop.order("delivered", days)
    stock = shop.products[line.product_id].stock
    wanted = shop.rng.choice([option for option in sorted(stock) if option != line.option])
    name = shop.name_of(line)
    says = f"I want to exchange the {name} for another one."
    asks = ["which option", "which size", "which colour", "which color", "which one", "what size", "instead", name]
    facts = (Fact(ask=asks, say=f"For the {name} I would like {wanted} instead."),)
    question = f"Which option of the {name} would you like instead?"
    if fault == "_stock":
        stock[wanted] = 0
    if fault:
        refused = _refused(f"exchange{fault}", order, "R5" if fault == "_stock" else "R3")
        return Intent(says, refused.model_copy(update={"question": question} if fault == "_stock" else {}), facts)
    calls = [_call("exchange_item", order_id=order.order_id, item_id=line.item_id, new_option=wanted)]
    return Intent(says, Expected(kind="exchange", order_id=order.order_id, calls=calls, question=question), facts)


def _address(shop: _Draft) -> Intent:
    is_open = shop.rng.random() < 0.6
    order, line = shop.order("processing" if is_open else "shipped")
    name, address = shop.name_of(line), shop.address()
    says = f"I have moved. Please send my {name} to my new address."
    asks = ["new address", "which address", "what address", "address for", "your address", "address to", "where"]
    facts = (Fact(ask=asks, say=f"My new address for the {name} is {address}."),)
    if not is_open:
        return Intent(says, _refused("address_shipped", order, "R6"), facts)
    calls = [_call("change_address", order_id=order.order_id, address=address)]
    question = f"What is the new address for the {name}?"
    return Intent(says, Expected(kind="address", order_id=order.order_id, calls=calls, question=question), facts)


def _strange(shop: _Draft) -> Intent:
    """Somebody else's order."""
    other = shop.rng.choice([key for key in sorted(shop.customers) if key != shop.me.customer_id])
    order, line = shop.order("processing", owner=other)
    says = f"Please cancel order {order.order_id}, the {shop.name_of(line)}. A friend of mine placed it."
    return Intent(says, _refused("strange_order", order, "R1"))


def _serious(shop: _Draft) -> Intent:
    order, line = shop.order("delivered", shop.rng.randint(1, 20))
    says = shop.rng.choice(_SERIOUS).format(product=shop.name_of(line))
    return Intent(says, Expected(kind="serious", order_id=order.order_id, transfers=True))


_INTENTS: tuple[Callable[[_Draft], Intent], ...] = (_refund, _refund, _cancel, _exchange, _address, _strange, _serious)


def _refused(kind: str, order: Order, rule: str) -> Expected:
    return Expected(kind=kind, order_id=order.order_id, rules=[rule])


def _call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def _email(name: str, rng: Random) -> str:
    first, last = name.lower().split()
    return f"{first}.{last}{rng.randint(10, 99)}@example.org"
