"""A small shop's back office: customers, orders, products, refunds, exchanges. The tools check that things exist,
and leave it to whoever calls them to keep the policy."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from gymrail import ToolError, ToolServer, tool


class Customer(BaseModel):
    customer_id: str
    name: str
    email: str


class Line(BaseModel):
    item_id: str
    product_id: str
    option: str
    price: float
    final_sale: bool = False
    status: Literal["bought", "refunded", "exchanged"] = "bought"


class Order(BaseModel):
    order_id: str
    customer_id: str
    status: Literal["processing", "shipped", "delivered", "cancelled"]
    days_since_delivery: int | None = None
    address: str
    items: list[Line]


class Product(BaseModel):
    product_id: str
    name: str
    stock: dict[str, int]
    """Pieces by option, such as a size or a colour."""


class Tables(BaseModel):
    """All that the shop knows."""

    customers: dict[str, Customer]
    orders: dict[str, Order]
    products: dict[str, Product]


DEMO: dict[str, Any] = {
    "customers": {"c1": {"customer_id": "c1", "name": "Ada Brandt", "email": "ada.brandt@example.org"}},
    "orders": {
        "4417": {
            "order_id": "4417", "customer_id": "c1", "status": "delivered", "days_since_delivery": 6,
            "address": "Elm Row 3, Larkfield",
            "items": [{"item_id": "i204", "product_id": "p1", "option": "blue", "price": 23.5}],
        }
    },
    "products": {"p1": {"product_id": "p1", "name": "teapot", "stock": {"blue": 3, "cream": 1}}},
}  # fmt: skip


class Shop(ToolServer):
    """A shop's back office: accounts, orders, refunds, exchanges."""

    def seed(self, tables: Tables | dict[str, Any] | None = None, **state: Any) -> None:
        """Begin with these tables; alone, with a shop of one customer."""
        self.tables = Tables.model_validate(DEMO if tables is None else tables).model_copy(deep=True)
        self.identified: set[str] = set()
        """Customers whose email was looked up."""
        self.changes_before_identification = 0
        self.transferred = False

    @tool(read_only=True)
    def find_customer(self, email: str) -> Customer:
        """Look up a customer account by its email address. This is how a customer is identified.

        Args:
            email: The full address.
        """
        for customer in self.tables.customers.values():
            if customer.email == email.strip().casefold():
                self.identified.add(customer.customer_id)
                return customer
        raise ToolError(f"There is no account with the email {email!r}.")

    @tool(read_only=True)
    def list_orders(self, customer_id: str) -> list[dict[str, Any]]:
        """List a customer's orders: number, status and product names.

        Args:
            customer_id: As find_customer gives it, such as c3.
        """
        if customer_id not in self.tables.customers:
            raise ToolError(f"There is no customer {customer_id!r}.")
        return [
            {
                "order_id": order.order_id,
                "status": order.status,
                "products": [self.tables.products[line.product_id].name for line in order.items],
            }
            for order in self.tables.orders.values()
            if order.customer_id == customer_id
        ]

    @tool(read_only=True)
    def get_order(self, order_id: str) -> Order:
        """Read an order: owner, status, days since delivery, address, items with prices.

        Args:
            order_id: The order's number.
        """
        return self._order(order_id)

    @tool(read_only=True)
    def get_product(self, product_id: str) -> Product:
        """Read a product: its name and how many pieces of each option are in stock.

        Args:
            product_id: As it stands on an order's item.
        """
        product = self.tables.products.get(product_id)
        if product is None:
            raise ToolError(f"There is no product {product_id!r}.")
        return product

    @tool(destructive=True)
    def cancel_order(self, order_id: str) -> Order:
        """Cancel a whole order and pay the money back.

        Args:
            order_id: The order's number.
        """
        order = self._order(order_id)
        self._note_change(order)
        order.status = "cancelled"
        return order

    @tool(destructive=True)
    def refund_item(self, order_id: str, item_id: str) -> Line:
        """Take one item back and refund its price.

        Args:
            order_id: The order's number.
            item_id: The item's id on that order.
        """
        order, line = self._line(order_id, item_id)
        self._note_change(order)
        line.status = "refunded"
        return line

    @tool(destructive=True)
    def exchange_item(self, order_id: str, item_id: str, new_option: str) -> Line:
        """Exchange one item for another option (size or colour) of the same product.

        Args:
            order_id: The order's number.
            item_id: The item's id on that order.
            new_option: The option to send instead.
        """
        order, line = self._line(order_id, item_id)
        stock = self.tables.products[line.product_id].stock
        if new_option not in stock:
            raise ToolError(f"{new_option!r} is no option of this product; it has {', '.join(stock)}.")
        self._note_change(order)
        stock[new_option] -= 1
        stock[line.option] = stock.get(line.option, 0) + 1
        line.option, line.status = new_option, "exchanged"
        return line

    @tool(destructive=True)
    def change_address(self, order_id: str, address: str) -> Order:
        """Change where an order is sent.

        Args:
            order_id: The order's number.
            address: Street and number, and town.
        """
        order = self._order(order_id)
        self._note_change(order)
        order.address = " ".join(address.split())
        return order

    @tool
    def transfer_to_human(self, summary: str) -> str:
        """Hand the conversation over to a human colleague; it ends for you.

        Args:
            summary: What the customer wants, in a sentence.
        """
        self.transferred = True
        return "The conversation was handed over."

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """What the tools can change, as rows to compare; an item is a row of its own."""
        tables = self.tables
        orders = [order.model_dump(exclude={"items"}) for order in tables.orders.values()]
        items = [
            {"order_id": order.order_id, **line.model_dump()}
            for order in tables.orders.values()
            for line in order.items
        ]
        return {"orders": orders, "items": items, "products": [each.model_dump() for each in tables.products.values()]}

    def _order(self, order_id: str) -> Order:
        order = self.tables.orders.get(order_id.strip().lstrip("#"))
        if order is None:
            raise ToolError(f"There is no order {order_id!r}.")
        return order

    def _line(self, order_id: str, item_id: str) -> tuple[Order, Line]:
        order = self._order(order_id)
        for line in order.items:
            if line.item_id == item_id:
                return order, line
        raise ToolError(f"Order {order.order_id} has no item {item_id!r}.")

    def _note_change(self, order: Order) -> None:
        if order.customer_id not in self.identified:
            self.changes_before_identification += 1
