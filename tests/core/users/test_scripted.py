"""The scripted user: facts when asked, one request after the other, an end."""

import asyncio

import pytest

from gymrail.models.model import message
from gymrail.users.scripted import AGREE, DECLINE, GIVE_UP, THANKS, UNKNOWN, WAIT, Fact, ScriptedUser, UserScript
from gymrail.users.user import UserTurn

SCRIPT = UserScript(
    facts=[Fact(ask=["email", "e-mail"], say="It is ada@example.org."), Fact(ask=["size"], say="Size M.")],
    requests=["Also, cancel the lamp."],
)


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("What is your email?", "It is ada@example.org."),
        ("Please tell me your E-Mail address.", "It is ada@example.org."),
        ("I need your email and the size you want.", "It is ada@example.org. Size M."),
        ("Which colour do you want?", UNKNOWN),
        ("Shall I refund it?", AGREE),
        ("Would you like me to refund 60.50 EUR to your card?", AGREE),
        ("Would you like me to transfer you to a human?", DECLINE),
        ("Rule R3 forbids it. Shall I cancel another order instead?", DECLINE),
        ("Could you please let me know your email so I can look you up?", "It is ada@example.org."),
        ("To get started, I'll need the e-mail of your account.", "It is ada@example.org."),
        ("I've refunded 60.50. Please let me know if you have any other questions!", "Also, cancel the lamp."),
        ("You'll get 60.50 within a week. If you need anything else, just ask.", "Also, cancel the lamp."),
        ("Please allow three days for the money to arrive.", "Also, cancel the lamp."),
        ("One moment, let me look.", WAIT),
        ("", WAIT),
        ("It is refunded.", "Also, cancel the lamp."),
        ("It is refunded. Is there anything else?", "Also, cancel the lamp."),
    ],
)
def test_the_user_answers_what_is_said(said: str, answer: str) -> None:
    assert ScriptedUser(SCRIPT).answer(said) == UserTurn(answer)


@pytest.mark.parametrize("said", ["I have emailed you a label.", "I know nothing of sizes.", "This is done."])
def test_a_fact_is_held_back_until_it_is_asked_for(said: str) -> None:
    assert "ada@" not in ScriptedUser(SCRIPT).answer(said).text


def test_the_talk_ends_when_the_last_request_is_settled() -> None:
    user = ScriptedUser(SCRIPT)
    assert user.answer("Refunded.") == UserTurn("Also, cancel the lamp.")
    assert user.answer("Cancelled, too.") == UserTurn(THANKS, ends=True)
    assert not user.has_left


def test_an_agent_that_never_settles_anything_wears_out_the_users_patience() -> None:
    user = ScriptedUser(SCRIPT.model_copy(update={"patience": 2}))
    assert [user.answer("Let me check.").text for _ in range(2)] == [WAIT, WAIT]
    assert user.answer("Let me check.") == UserTurn(GIVE_UP, ends=True)
    assert user.has_left


def test_the_last_message_of_the_agent_is_what_is_answered() -> None:
    items = [message("What is your email?"), {"role": "user", "content": "ada@example.org"}, message("Which size?")]
    assert asyncio.run(ScriptedUser(SCRIPT).respond(items)) == UserTurn("Size M.")
