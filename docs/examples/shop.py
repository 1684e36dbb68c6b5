from random import Random

from gymrail import Environment, Rollout, Task, ToolError, ToolServer, Verdict, call, tool

PRICES = {"apple": 2, "bread": 3, "cheese": 7, "milk": 1}


class ShopTask(Task):
    item: str
    budget: int
    cost: int


class Till(ToolServer):
    """A tool server: tools over shared state, for any environment that composes it."""

    def __init__(self) -> None:
        self.bought: dict[str, int] = {}

    @tool(read_only=True)
    def price(self, item: str) -> int:
        """Look up what one piece costs.

        Args:
            item: Name of the good, in the singular.
        """
        if item not in PRICES:
            raise ToolError(f"We do not sell {item!r}; we have {', '.join(PRICES)}.")
        return PRICES[item]

    @tool
    def buy(self, item: str, count: int = 1) -> str:
        """Buy some pieces.

        Args:
            item: Name of the good, in the singular.
            count: How many.
        """
        self.price(item)
        self.bought[item] = self.bought.get(item, 0) + count
        return f"{count} {item} for {count * PRICES[item]}"


class Shop(Environment[ShopTask]):
    """Spend a budget on as many pieces of one good as it buys."""

    till: Till

    @classmethod
    def generate(cls, rng: Random) -> ShopTask:
        item, budget = rng.choice(sorted(PRICES)), rng.randint(10, 99)
        prompt = f"You have {budget} coins. Buy as many {item}s as you can."
        return ShopTask.ask(prompt, item=item, budget=budget, cost=PRICES[item])

    def verify(self, rollout: Rollout) -> Verdict:
        best = self.task.budget // self.task.cost
        others = set(self.till.bought) - {self.task.item}
        count = self.till.bought.get(self.task.item, 0)
        reward = count / best if count <= best and not others else 0.0
        return Verdict(reward, metrics={"count": count}, reason=f"bought {self.till.bought}, best was {best}")

    def solve(self):
        price = yield call("price", item=self.task.item)
        yield call("buy", item=self.task.item, count=self.task.budget // int(price))
        yield "Done."
