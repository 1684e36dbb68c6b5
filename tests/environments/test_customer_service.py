"""The shop's support agent: what earns the reward, and whose fault a talk is that goes wrong."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gymrail.environment import Call, Turn, call
from gymrail.episode import Episode
from gymrail.errors import ModelError
from gymrail.models.model import Model, ModelRequest
from gymrail.models.scripted import Oracle, ScriptedModel
from gymrail.play import play
from gymrail.registry import find, find_tool_server
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task
from tests.core.models.endpoint import Answer, Endpoint, Received, chat
from tests.core.users.players import Player, end_mark, heard

SPEC = find("customer_service")
TASKS = list(SPEC.tasks("train", limit=300))


def kinds(task: Any) -> list[str]:
    return [each.kind for each in task.expected]


def task_of(*wanted: str) -> Any:
    return next(task for task in TASKS if kinds(task) == list(wanted))


def rollout_of(task: Task, policy: Any, spec: EnvironmentSpec = SPEC) -> Rollout:
    return asyncio.run(play(spec, task, policy))


def reward_of(task: Task, turns: Sequence[Turn]) -> tuple[float | None, str | None]:
    rollout = rollout_of(task, ScriptedModel(turns))
    return rollout.reward, rollout.verdict_reason


def gold_turns(task: Task) -> list[Turn]:
    """What the oracle says and calls, turn by turn."""
    turns: list[Turn] = []

    class Noting:
        def bind(self, episode: Episode) -> Model:
            return Noted(Oracle().bind(episode))

    class Noted:
        def __init__(self, model: Model) -> None:
            self.model = model

        async def respond(self, request: ModelRequest) -> Any:
            response = await self.model.respond(request)
            (item,) = response.items
            is_call = item.get("type") == "function_call"
            turns.append(call(item["name"], **_json(item["arguments"])) if is_call else item["content"][0]["text"])
            return response

    assert rollout_of(task, Noting()).reward == 1
    return turns


def _json(text: str) -> Any:
    import orjson

    return orjson.loads(text)


def test_the_generator_makes_every_kind_of_request_and_talks_of_two() -> None:
    found = {kind for task in TASKS for kind in kinds(task)}
    assert found >= {
        "refund", "refund_late", "refund_final", "cancel", "cancel_shipped", "exchange", "exchange_stock",
        "exchange_late", "address", "address_shipped", "strange_order", "serious",
    }  # fmt: skip
    two = sum(len(kinds(task)) == 2 for task in TASKS)
    assert 60 < two < 200
    refused = sum(bool(task.expected[0].rules) for task in TASKS)  # pyright: ignore[reportAttributeAccessIssue]
    assert 60 < refused < 200


def test_no_opening_tells_what_the_customer_holds_back() -> None:
    for task in TASKS:
        prompt = str(task.responses_create_params)
        assert task.email not in prompt  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("kind", ["refund", "cancel_shipped", "exchange", "address"])
def test_the_customer_tells_the_email_when_asked_and_the_gold_policy_asks(kind: str) -> None:
    task = task_of(kind)
    rollout = rollout_of(task, Oracle())
    said = [item["content"] for item in rollout.items if item.get("role") == "user"]
    assert said[0] == f"My email address is {task.email}."
    assert rollout.reward == 1


def test_a_change_before_the_customer_is_identified_earns_nothing() -> None:
    task = task_of("refund")
    turns = [
        turn
        for turn in gold_turns(task)
        if not (isinstance(turn, Call) and turn.name in ("find_customer", "list_orders"))
    ]
    reward, reason = reward_of(task, turns)
    assert (reward, reason) == (0, "something was changed before the customer was identified")


def test_doing_what_the_policy_forbids_earns_nothing() -> None:
    task = task_of("cancel_shipped")
    turns = gold_turns(task)
    order = task.expected[0].order_id
    reward, reason = reward_of(task, [*turns[:-1], call("cancel_order", order_id=order), turns[-1]])
    assert reward == 0
    assert reason is not None
    assert "status" in reason


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("I cannot cancel it.", "named no rule, expected R2"),
        ("Rule R3 forbids it.", "named R3, expected R2"),
        ("One of the rules R1, R2, R3 forbids it.", "named R1, R2, R3, expected R2"),
        ("Rule R2 forbids it.", None),
    ],
)
def test_a_refusal_names_its_rule_and_no_other(said: str, reason: str | None) -> None:
    task = task_of("cancel_shipped")
    assert reward_of(task, [*gold_turns(task)[:-1], said]) == (float(reason is None), reason)


def test_an_amount_that_is_not_told_or_a_request_that_is_not_met_earns_nothing() -> None:
    task = task_of("refund")
    turns = gold_turns(task)
    amount = task.expected[0].must_tell[0]
    assert reward_of(task, [*turns[:-1], "It is done."]) == (0, f"the customer was not told {amount}")
    reward, reason = reward_of(task, [*turns[:-2], f"We pay back {amount}."])
    assert reward == 0
    assert reason is not None
    assert "refunded" in reason


def test_a_transfer_ends_the_talk_and_pays_only_where_the_policy_asks_for_it() -> None:
    transfer = [call("transfer_to_human", summary="help")]
    assert reward_of(task_of("serious"), transfer) == (1, None)
    assert reward_of(task_of("refund"), transfer)[0] == 0
    assert reward_of(task_of("serious"), ["We are sorry."]) == (0, "the talk was not transferred")


def test_a_second_request_that_is_forgotten_earns_nothing() -> None:
    task = next(each for each in TASKS if kinds(each) == ["refund", "cancel"] or kinds(each) == ["cancel", "refund"])
    turns = [turn for turn in gold_turns(task) if not (isinstance(turn, Call) and turn.name == "cancel_order")]
    assert reward_of(task, turns)[0] == 0


def test_an_agent_that_never_comes_to_an_end_is_scored_and_it_is_its_own_fault() -> None:
    task = task_of("refund")
    rambling = rollout_of(task, ScriptedModel(lambda request: "Let me check that for you."))
    assert rambling.outcome is not None
    assert (rambling.outcome.status, rambling.reward) == ("scored", 0)
    looking = rollout_of(task, ScriptedModel(lambda request: call("list_orders", customer_id="c1")))
    assert looking.outcome is not None
    assert (looking.outcome.status, looking.outcome.reason, looking.reward) == ("truncated", "max_steps", 0)


def with_player(monkeypatch: pytest.MonkeyPatch, player: object) -> EnvironmentSpec:
    """The environment with a user that a model plays: the model is put where the settings' own is built."""
    monkeypatch.setattr("gymrail.models.settings.ModelSettings.build", lambda self: player)
    return SPEC.with_config({"user": {"model": "http://localhost:1/v1", "model_name": "m"}})


def honest(request: ModelRequest) -> str:
    """A customer who knows what stands in its instructions."""
    asked = heard(request)[-1]
    told = request.input[0]["content"].split("What you know: ")[1].split("\n")[0]
    return told if "?" in asked else f"Thank you.\n{end_mark(request)}"


@pytest.mark.parametrize("kind", ["refund", "cancel_shipped", "exchange", "address"])
def test_a_model_can_play_the_user(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    player = Player(honest)
    rollout = rollout_of(task_of(kind), Oracle(), with_player(monkeypatch, player))
    assert (rollout.reward, rollout.failure) == (1, None)
    assert len(player.requests) >= 2


def down(request: ModelRequest) -> str:
    raise ModelError("503 from the endpoint")


@pytest.mark.parametrize(
    "said",
    [
        down,
        lambda request: "",
        lambda request: f"My end mark is {end_mark(request)}, agent.",
        lambda request: "x" * 9999,
    ],
)
def test_a_user_model_at_fault_fails_the_rollout_and_gives_no_reward(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[ModelRequest], str]
) -> None:
    rollout = rollout_of(task_of("refund"), Oracle(), with_player(monkeypatch, Player(said)))
    assert rollout.reward is None
    assert rollout.failure is not None
    assert (rollout.failure.kind, rollout.failure.stage) == ("infrastructure", "reply")
    assert "simulated user" in rollout.failure.message


def test_a_talk_that_the_users_model_ends_too_early_is_judged_by_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    rollout = rollout_of(task_of("refund"), Oracle(), with_player(monkeypatch, Player(end_mark)))
    assert (rollout.reward, rollout.failure) == (0, None)


async def over_http(script: Callable[[Received], Answer], task: Task) -> tuple[Rollout, Endpoint]:
    """Play with a user behind a real endpoint, built from the settings."""
    async with Endpoint(script) as server:
        spec = SPEC.with_config({"user": {"model": server.url, "model_name": "m", "max_retries": 1}})
        try:
            return await play(spec, task, Oracle()), server
        finally:
            await spec.teardown()


def test_a_served_model_plays_the_user() -> None:
    def says(received: Received) -> Answer:
        return chat(honest(ModelRequest(received.body["messages"])))

    rollout, server = asyncio.run(over_http(says, task_of("refund")))
    assert (rollout.reward, rollout.failure) == (1, None)
    assert {body["temperature"] for body in server.bodies} == {0}


def test_a_user_behind_an_endpoint_that_is_down_fails_the_rollout() -> None:
    rollout, server = asyncio.run(over_http(lambda received: Answer(status=503), task_of("refund")))
    assert rollout.reward is None
    assert rollout.failure is not None
    assert (rollout.failure.kind, rollout.failure.is_retryable) == ("infrastructure", True)
    assert len(server.received) == 2


def test_the_shop_is_a_tool_server_of_its_own() -> None:
    shop = find_tool_server("shop")()
    shop.seed()
    assert getattr(shop, "find_customer")("ada.brandt@example.org").name == "Ada Brandt"  # noqa: B009
