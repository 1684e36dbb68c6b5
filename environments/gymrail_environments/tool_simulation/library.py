"""Scenarios at the desk of a library: renewals and reservations, some of which the policy forbids."""

from __future__ import annotations

from random import Random
from typing import Any

from pydantic import BaseModel, Field

from gymrail.users.casting import CustomerScenario
from gymrail.users.scripted import Fact, UserScript

POLICY = """You work at the desk of a city library and help its members with the tools.

- Ask every member for the number of the library card, and look the member up, before anything else.
- A loan can be renewed twice. A third renewal is refused with the word LIMIT.
- A loan that another member has reserved is not renewed: refuse with the word RESERVED.
- A member who owes more than 10 euros reserves nothing: refuse with the word FINES.
- Books are known to the tools by their id: find it by the title.
- Tell the member the new due date after a renewal, and the place in the queue after a reservation. Use the words in
  capitals for nothing else, and do nothing that was not asked for."""

WORDS = ("LIMIT", "RESERVED", "FINES")
_TITLES = ("The Salt Road", "Winter Harbour", "A House of Clocks", "Nine Bridges", "The Glass Orchard", "Paper Rivers",
           "The Long Meadow", "Stone and Sparrow", "Under Copper Skies", "The Last Ferry")  # fmt: skip
_NAMES = ("Ada Brandt", "Boris Quinn", "Carla Mendes", "Dario Novak", "Elif Sahin", "Farid Rahimi", "Greta Olsen")
_MONTHS = ("March", "April", "May", "June", "September", "October")
_PERSONAS = ("A patient retired teacher.", "A student in a hurry.", "A parent with a child on the arm, short of time.")


class Record(BaseModel):
    """What a tool answers."""

    name: str
    arguments: dict[str, Any] | None = None
    """To which arguments; None for all."""
    output: Any = None
    error: str | None = None


class Step(BaseModel):
    """A turn of the oracle: a call, or text."""

    name: str | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)
    says: str = ""


def make_scenario(rng: Random) -> tuple[str, str, dict[str, Any]]:
    """Return the opening, the system message and the row's fields."""
    card, name = f"L-{rng.randint(1000, 9999)}", rng.choice(_NAMES)
    titles = rng.sample(_TITLES, 2)
    fines = rng.choice((0.0, 0.0, 3.5, 12.0, 18.5))
    loans: list[dict[str, Any]] = []
    requests, steps, records, calls, told = [], [], [], [], []
    for title in titles[: 1 + (rng.random() < 0.4)]:
        book, is_renewal = f"b{rng.randint(100, 999)}", rng.random() < 0.6
        renewals, reserved = rng.choice((0, 1, 1, 2)), is_renewal and rng.random() < 0.3
        records.append(_record("find_book", {"title": title}, {"book_id": book, "reserved_by_others": reserved}))
        steps.append(Step(name="find_book", arguments={"title": title}))
        if is_renewal:
            loans.append({"book_id": book, "title": title, "renewals": renewals})
            word = "LIMIT" if renewals == 2 else "RESERVED" if reserved else None
            # With both reasons there are two right words, and a task must have one right answer.
            if renewals == 2 and reserved:
                records[-1]["output"]["reserved_by_others"] = False
            due = f"{rng.randint(1, 28)} {rng.choice(_MONTHS)}"
            tool, answer, tell = "renew_loan", {"due": due}, due
            requests.append(f"I would like to renew '{title}'.")
        else:
            word = "FINES" if fines > 10 else None
            place = str(rng.randint(2, 19))
            tool, answer, tell = "reserve_book", {"place_in_queue": int(place)}, place
            requests.append(f"Please reserve '{title}' for me.")
        arguments = {"card": card, "book_id": book}
        records.append(_record(tool, arguments, answer))
        if word is None:
            calls.append({"name": tool, "arguments": arguments})
            steps.append(Step(name=tool, arguments=arguments))
        told.append(word or tell)
        done = f"{'The new due date is' if is_renewal else 'Your place in the queue is'} {tell}."
        steps.append(Step(says=done if word is None else f"That is not possible: {word}."))
    member = _record("find_member", {"card": card}, {"name": name, "fines_in_euros": fines, "loans": loans})
    facts = [Fact(ask=["card", "card number", "membership number"], say=f"My card has the number {card}."),
             Fact(ask=["your name", "full name"], say=f"I am {name}.")]  # fmt: skip
    later = [f"There is something else. {each}" for each in requests[1:]]
    scenario = CustomerScenario(
        customer_persona=f"{name}. {rng.choice(_PERSONAS)}",
        reason_for_contact=" Afterwards: ".join(requests),
        customer_details=" ".join(fact.say for fact in facts),
        unknown_info="The ids of the books, when they are due, and what you owe.",
        task_instructions="Give the card's number when asked. Accept a refusal. Put a second request after the first.",
    )
    ask = [Step(says="May I have the number of your library card?"), Step(name="find_member", arguments={"card": card})]
    return f"Hello! {requests[0]}", POLICY, {
        "policy": POLICY, "tools": TOOLS, "customer_scenario": scenario,
        "user": UserScript(facts=facts, requests=later, patience=12), "records": [member, *records],
        "expected_calls": calls, "free_tools": ["find_member", "find_book"], "must_tell": told,
        "must_not_tell": [word for word in WORDS if word not in told],
        "hidden": [record["output"]["book_id"] for record in records if record["name"] == "find_book"],
        "steps": [*ask, *steps],
    }  # fmt: skip


def _record(name: str, arguments: dict[str, Any], output: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "arguments": arguments, "output": output}


def _tool(name: str, description: str, **parameters: str) -> dict[str, Any]:
    properties = {key: {"type": "string", "description": text} for key, text in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters), "additionalProperties": False}
    return {"type": "function", "name": name, "description": description, "parameters": schema, "strict": True}


_CARD, _BOOK = "The number of the library card, such as L-1234.", "The book's id, such as b123."
TOOLS = [
    _tool("find_member", "Look a member up: name, fines, loans.", card=_CARD),
    _tool("find_book", "Find a book by its title: its id, and whether others have reserved it.", title="The title."),
    _tool("renew_loan", "Renew a loan; the answer has the new due date.", card=_CARD, book_id=_BOOK),
    _tool("reserve_book", "Reserve a book; the answer has the place in the queue.", card=_CARD, book_id=_BOOK),
]
