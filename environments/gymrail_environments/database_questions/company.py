"""Small companies as SQLite databases, and what is asked about them: a statement of SQL beside each request."""

from __future__ import annotations

import functools
from random import Random
from typing import NamedTuple

from gymrail_mcp_servers.sqlite.server import Template

DATABASES = 32
"""Different companies; each is made once per process."""
CITIES = ("Bergen", "Cadiz", "Ghent", "Leeds", "Lyon", "Porto", "Riga", "Turin")
PRODUCTS = (
    "anchor", "bell", "candle", "drum", "easel", "funnel", "globe", "hammock", "inkwell", "kettle", "lantern", "mirror",
)  # fmt: skip
STATES = ("open", "shipped", "cancelled")
_FIRST = ("Ada", "Bo", "Cleo", "Dirk", "Eva", "Finn", "Gus", "Hanna", "Ivo", "June", "Kai", "Lena")
_LAST = ("Abel", "Berg", "Cole", "Dahl", "Eck", "Falk", "Gray", "Hahn")
_TABLES = """
CREATE TABLE customers (
    customer_id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT NOT NULL, credit INTEGER NOT NULL
);
CREATE TABLE products (
    product_id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, price INTEGER NOT NULL, stock INTEGER NOT NULL
);
CREATE TABLE orders (
    order_id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customers,
    product_id INTEGER NOT NULL REFERENCES products, quantity INTEGER NOT NULL, state TEXT NOT NULL,
    ordered_on TEXT NOT NULL
);
"""


class Request(NamedTuple):
    """What is asked, and the SQL that does it."""

    text: str
    sql: str
    changes: bool


@functools.cache
def company(number: int) -> Template:
    """Return a company's database."""
    rng = Random(f"company:{number}")
    people = rng.sample([f"{first} {last}" for first in _FIRST for last in _LAST], 40)
    customers = [(name, rng.choice(CITIES), rng.randint(0, 90) * 10) for name in people]
    products = [(name, rng.randint(3, 99), rng.randint(0, 60)) for name in PRODUCTS]
    orders = [
        (
            rng.randint(1, len(people)),
            rng.randint(1, len(PRODUCTS)),
            rng.randint(1, 9),
            rng.choice(STATES),
            f"2024-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}",
        )
        for _ in range(160)
    ]
    tables = (("customers", customers), ("products", products), ("orders", orders))
    # A row of plain texts and numbers is written in Python as it is in SQL.
    rows = [f"INSERT INTO {name} VALUES {(n, *row)};" for name, table in tables for n, row in enumerate(table, 1)]
    return Template.from_script("\n".join([_TABLES, "BEGIN;", *rows, "COMMIT;"]))


def make_request(rng: Random) -> Request:
    """Return a request at random."""
    return rng.choice(_QUESTIONS if rng.random() < 0.6 else _CHANGES)(rng)


def _revenue(rng: Random) -> Request:
    city, state = rng.choice(CITIES), rng.choice(STATES)
    return Request(
        f"What are the {state} orders of customers in {city} worth in total, at the products' prices?",
        "SELECT coalesce(sum(o.quantity * p.price), 0) FROM orders o JOIN products p USING (product_id) "
        f"JOIN customers c USING (customer_id) WHERE c.city = '{city}' AND o.state = '{state}'",
        False,
    )


def _count(rng: Random) -> Request:
    product, month = rng.choice(PRODUCTS), rng.randint(1, 12)
    return Request(
        f"How many different customers ordered a {product} in month {month} of 2024 or later that year?",
        "SELECT count(DISTINCT customer_id) FROM orders JOIN products p USING (product_id) "
        f"WHERE p.name = '{product}' AND ordered_on >= '2024-{month:02d}-01'",
        False,
    )


def _best(rng: Random) -> Request:
    state = rng.choice(STATES)
    return Request(
        f"Which product was ordered most by quantity, counting {state} orders alone? Among equals, the first by name.",
        "SELECT p.name FROM orders JOIN products p USING (product_id) "
        f"WHERE state = '{state}' GROUP BY p.name ORDER BY sum(quantity) DESC, p.name LIMIT 1",
        False,
    )


def _short(rng: Random) -> Request:
    return Request(
        "How many products have open orders for more pieces than there are in stock?",
        "SELECT count(*) FROM (SELECT product_id FROM orders JOIN products p USING (product_id) WHERE state = 'open' "
        "GROUP BY product_id HAVING sum(quantity) > max(p.stock))",
        False,
    )


def _cancel(rng: Random) -> Request:
    city, product = rng.choice(CITIES), rng.choice(PRODUCTS)
    return Request(
        f"Set every open order of a {product} by a customer in {city} to cancelled.",
        "UPDATE orders SET state = 'cancelled' WHERE state = 'open' AND product_id = "
        f"(SELECT product_id FROM products WHERE name = '{product}') "
        f"AND customer_id IN (SELECT customer_id FROM customers WHERE city = '{city}')",
        True,
    )


def _credit(rng: Random) -> Request:
    city, amount = rng.choice(CITIES), rng.randint(1, 9) * 5
    return Request(
        f"Give {amount} more credit to each customer in {city} who has at least one shipped order.",
        f"UPDATE customers SET credit = credit + {amount} WHERE city = '{city}' AND customer_id IN "
        "(SELECT customer_id FROM orders WHERE state = 'shipped')",
        True,
    )


def _tidy(rng: Random) -> Request:
    month, product = rng.randint(2, 12), rng.choice(PRODUCTS)
    return Request(
        f"Delete the cancelled orders of the {product} from before month {month} of 2024.",
        f"DELETE FROM orders WHERE state = 'cancelled' AND ordered_on < '2024-{month:02d}-01' AND product_id = "
        f"(SELECT product_id FROM products WHERE name = '{product}')",
        True,
    )


_QUESTIONS = (_revenue, _count, _best, _short)
_CHANGES = (_cancel, _credit, _tidy)
