from random import Random

from gymrail import Environment, Rollout, Task, Verdict, call, tool
from gymrail.users.casting import CustomerScenario, UserConfig, cast_user, close_player, open_player
from gymrail.users.scripted import Fact, UserScript


class DeskTask(Task):
    room: int
    nights: int
    user: UserScript
    customer_scenario: CustomerScenario


class Desk(Environment[DeskTask]):
    """Book what the guest wants; the number of nights is told when asked."""

    Config = UserConfig

    @classmethod
    def setup(cls, config: UserConfig):
        return open_player(config)  # the model that plays the user; None for the script

    @classmethod
    async def teardown(cls, shared) -> None:
        await close_player(shared)

    @classmethod
    def generate(cls, rng: Random) -> DeskTask:
        room, nights = rng.randint(10, 99), rng.randint(2, 9)
        opening = f"Hello! I would like to stay in room {room}."
        stay = f"I stay for {nights} nights."
        return DeskTask.ask(
            opening,
            system="You book rooms. Ask for what you must know, book once, and then say so.",
            room=room,
            nights=nights,
            user=UserScript(facts=[Fact(ask=["how many nights", "how long", "nights"], say=stay)]),
            customer_scenario=CustomerScenario(reason_for_contact=opening, customer_details=stay),
        )

    def seed(self) -> None:
        task = self.task
        self.user = cast_user(self.config, self.shared, task.user, task.customer_scenario, task.id)
        self.booked: list[tuple[int, int]] = []

    @tool
    def book(self, room: int, nights: int) -> str:
        """Book a room.

        Args:
            room: Its number.
            nights: How many.
        """
        self.booked.append((room, nights))
        return "booked"

    async def reply(self, rollout: Rollout) -> str | None:
        turn = await self.user.respond(rollout.conversation)
        return None if turn.ends else turn.text

    def verify(self, rollout: Rollout) -> Verdict:
        wanted = [(self.task.room, self.task.nights)]
        return Verdict(float(self.booked == wanted), reason=f"booked {self.booked}, wanted {wanted}")

    def solve(self):
        yield "With pleasure. How many nights will you stay?"
        yield call("book", room=self.task.room, nights=self.task.nights)
        yield f"Room {self.task.room} is yours."
