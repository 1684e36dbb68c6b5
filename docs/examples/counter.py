from gymrail import Environment, Task, call, tool

class Counter(Environment):
    count = 0

    @classmethod
    def generate(cls, rng):
        return Task.ask(f"Count to {(goal := rng.randint(10, 99))}.", goal=goal)

    @tool
    def increment(self, by: int) -> int:
        """Add to the counter and return its new value."""
        self.count += by
        return self.count

    def verify(self, rollout):
        return float(self.count == self.task.goal)

    def solve(self):  # the gold policy, for `check` and for teachers
        yield call("increment", by=self.task.goal)
