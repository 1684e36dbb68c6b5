"""The plain HTTP protocol: seed, tools, verify, close, as NeMo Gym's clients and ours use it."""

import asyncio
from typing import Any

import pytest

from gymrail import Environment, Rollout, Task, ToolServer, tool
from gymrail.episode import Limits
from gymrail.errors import InputError
from gymrail.registry import find, find_tool_server
from gymrail.serving.alone import alone
from gymrail.serving.http import create_app
from gymrail.serving.settings import Settings
from gymrail.spec import EnvironmentSpec
from tests.core.serving.office import ANSWER, KEY, OFFICE, ROW, Served, row, run, said, served

OPEN = Settings.for_address("127.0.0.1", is_open=True)


def test_seeding_calling_and_verifying_by_the_capability_url_pays_the_reward() -> None:
    async def test(server: Served) -> None:
        seeded = await server.seed()
        sent = await server.agent.post(f"{seeded['url']}/send", json={"to": "Ana"})
        assert (sent.status_code, sent.text) == (200, "sent to Ana")
        assert (await server.agent.post(f"{seeded['url']}/outbox")).json() == {
            "letters": [{"to": "Ana", "text": ""}], "count": 1,
        }  # fmt: skip
        judged = (await server.verify(seeded, response=said("done"))).json()
        assert judged["reward"] == 1.0
        assert judged["recipient"] == "Ana"
        assert judged["response"] == said("done")
        assert judged["letters"] == 1
        assert judged["gymrail"]["status"] == "scored"

    run(test)


@pytest.mark.parametrize("carrier", ["x-gymrail-episode", "X-NeMo-Gym-Session-Token", "Authorization", "cookie"])
def test_the_credential_works_as_a_header_a_bearer_token_and_a_cookie(carrier: str) -> None:
    async def test(server: Served) -> None:
        answer = await server.control.post("/seed_session", json=ROW)
        token = answer.json()["url"].rpartition("/")[2]
        headers = {carrier: f"Bearer {token}" if carrier == "Authorization" else token}
        if carrier == "cookie":
            headers = {"cookie": f"gymrail_session={answer.cookies['gymrail_session']}"}
        for path in ("/send", "/office/send"):
            sent = await server.agent.post(path, json={"to": "Ana"}, headers=headers)
            assert (sent.status_code, sent.text) == (200, "sent to Ana"), path
        assert len(server.environment(answer.json()).letters) == 2

    run(test)


def test_a_client_of_nemo_gym_needs_nothing_but_its_cookie_jar() -> None:
    def keep_newest(client: Any, answer: Any) -> None:
        jar = dict(answer.cookies)
        client.cookies.clear()
        client.cookies.update(jar)

    async def test(server: Served) -> None:
        client = server.agent
        answer = await client.post("/seed_session", json=ROW)
        for name, arguments in (("send", {"to": "Ana"}), ("no_such_tool", {}), ("outbox", {"wrong": 1})):
            keep_newest(client, answer)
            answer = await client.post(f"/{name}", json=arguments)
        assert "Invalid arguments for tool 'outbox'" in answer.text
        keep_newest(client, answer)
        judged = await client.post("/verify", json=row(response=said("done")))
        assert judged.json()["reward"] == 1.0

    run(test, settings=OPEN)


def test_a_model_that_calls_verify_seed_session_or_close_by_name_changes_nothing() -> None:
    """NeMo Gym's agents post any name that the model calls, with the cookie and the model's arguments."""

    async def test(server: Served) -> None:
        client = server.agent
        seeded = (await client.post("/seed_session", json=ROW)).json()
        await client.post("/send", json={"to": "Bob"})
        arguments = {"responses_create_params": {"input": "x"}, "response": {"output": []}, "recipient": "Bob"}
        for name in ("verify", "seed_session", "close", "verify?close=false"):
            answer = await client.post(f"/{name}", json=arguments)
            assert answer.status_code in (404, 409), name
            assert "reward" not in answer.text
            assert ANSWER not in answer.text
        assert server.environment(seeded).letters[0].to == "Bob"
        assert (await client.post("/verify", json=row(response=said("done")))).json()["reward"] == 0.0

    run(test, settings=OPEN)


def test_what_a_model_reads_is_the_body_and_errors_are_marked_in_a_header() -> None:
    async def test(server: Served) -> None:
        seeded = await server.seed()
        url = seeded["url"]
        refused = await server.agent.post(f"{url}/send", json={"to": ""})
        assert (refused.status_code, refused.text) == (200, "Say to whom.")
        assert refused.headers["x-gymrail-tool-error"] == "true"
        unknown = await server.agent.post(f"{url}/sned", json={})
        assert unknown.status_code == 404
        assert unknown.text == "Unknown tool 'sned'. Did you mean 'send'?"
        no_json = await server.agent.post(f"{url}/send", content=b"{to: Ana}")
        assert "Invalid arguments for tool 'send'" in no_json.text
        picture = (await server.agent.post(f"{url}/picture")).json()
        assert [part["type"] for part in picture] == ["input_text", "input_image"]
        assert "x-gymrail-done" in (await server.agent.post(f"{url}/leave")).headers

    run(test)


def test_a_broken_tool_is_a_5xx_then_and_at_verify_and_never_a_reward() -> None:
    async def test(server: Served) -> None:
        seeded = await server.seed()
        for path in ("crash", "send"):
            broken = await server.agent.post(f"{seeded['url']}/{path}", json={"to": "Ana"} if path == "send" else {})
            assert broken.status_code == 500
            assert broken.json()["error"] == {
                "kind": "tool", "stage": "tool",
                "message": "The environment broke at stage 'tool'; the episode has failed. The server's log says why.",
            }  # fmt: skip
        for _ in range(2):
            judged = await server.verify(seeded, response=said("done"))
            assert judged.status_code == 500
            assert judged.json()["error"]["kind"] == "tool"
            assert "reward" not in judged.json()
            assert ANSWER not in judged.text
            assert ".py" not in judged.text

    run(test)


def test_a_broken_verifier_is_a_5xx_and_its_retry_is_too() -> None:
    async def test(server: Served) -> None:
        seeded = await server.seed()
        for _ in range(2):
            judged = await server.verify(seeded, response=said("break the verifier"))
            assert judged.status_code == 500
            assert (judged.json()["error"]["kind"], judged.json()["error"]["stage"]) == ("verifier", "verify")

    run(test)


def test_a_tool_that_takes_too_long_is_a_504() -> None:
    async def test(server: Served) -> None:
        seeded = await server.seed()
        assert (await server.agent.post(f"{seeded['url']}/file")).status_code == 504

    run(test, settings=Settings(key=KEY, limits=Limits(call_seconds=0.05)))


def test_verify_closes_unless_asked_not_to_and_is_safe_to_retry() -> None:
    async def test(server: Served) -> None:
        seeded = await server.seed()
        environment = server.environment(seeded)
        await server.agent.post(f"{seeded['url']}/send", json={"to": "Ana"})
        kept = await server.verify(seeded, path="/verify?close=false", response=said("done"))
        by_body = await server.verify(seeded, response=said("done"), _gymrail={"close": False})
        assert kept.json() == by_body.json()
        assert not environment.is_closed
        late = await server.agent.post(f"{seeded['url']}/send", json={"to": "Ana"})
        assert late.status_code == 404
        closed, again = [await server.verify(seeded, response=said("done")) for _ in range(2)]
        assert closed.json() == again.json() == kept.json()
        assert environment.is_closed

    run(test)


def test_verifies_at_once_run_the_verifier_once() -> None:
    async def test(server: Served) -> None:
        seeded = await server.seed()
        answers = await asyncio.gather(*(server.verify(seeded, response=said(f"{n}")) for n in range(4)))
        assert {answer.json()["reward"] for answer in answers} == {0.0}
        assert (
            'gymrail_episodes_verified_total{environment="office"} 1.0' in (await server.control.get("/metrics")).text
        )

    run(test)


def test_seeding_again_with_the_same_id_and_row_gives_the_same_episode() -> None:
    async def test(server: Served) -> None:
        headers = {"x-gymrail-episode-id": "run-7.task-3"}

        async def seed(**fields: Any) -> Any:
            return await server.control.post("/seed_session", json=row(**fields), headers=headers)

        answers = await asyncio.gather(*(seed() for _ in range(5)))
        assert [answer.status_code for answer in answers] == [200] * 5
        assert len({answer.text for answer in answers}) == 1
        assert answers[0].json()["episode_id"] == "run-7.task-3"
        assert len(server.service.table) == 1
        server.control.cookies.clear()
        assert (await seed(recipient="Bob")).status_code == 409
        await server.control.post("/close", json={"episode_id": "run-7.task-3"})
        assert (await seed()).status_code == 404

    run(test)


def test_a_call_with_a_known_call_id_is_not_done_twice() -> None:
    async def test(server: Served) -> None:
        seeded = await server.seed()
        url, headers = f"{seeded['url']}/send", {"x-call-id": "call_1"}
        answers = [await server.agent.post(url, json={"to": "Ana"}, headers=headers) for _ in range(3)]
        assert {answer.text for answer in answers} == {"sent to Ana"}
        assert len(server.environment(seeded).letters) == 1
        other = await server.agent.post(url, json={"to": "Bob"}, headers=headers)
        assert other.status_code == 422

    run(test)


def test_a_row_or_an_answer_of_the_wrong_shape_is_a_4xx_that_names_the_field() -> None:
    async def test(server: Served) -> None:
        post = server.control.post
        for body, status, part in (
            (b"{", 400, "no JSON"),
            (b"[]", 422, "list"),
            (b"{}", 422, "responses_create_params"),
            (b'{"responses_create_params": {"input": "x"}}', 422, "recipient"),
            (b'{"responses_create_params": {"input": [{"role": 3}]}, "recipient": "Ana"}', 422, "role"),
            (b'{"responses_create_params": {"tools": [{"function": 3}]}, "recipient": "Ana"}', 422, "tool"),
        ):
            answer = await post("/seed_session", content=body)
            assert (answer.status_code, part in answer.text) == (status, True), answer.text
        seeded = await server.seed()
        for response in ("text", {"output": "x"}, {"output": [3]}, {"output": [{"type": "function_call"}]}):
            assert (await server.verify(seeded, response=response)).status_code == 422
        assert server.service.table.by_id(seeded["episode_id"]) is not None

    run(test)


def test_a_row_that_the_environment_refuses_when_it_seeds_is_a_422_with_its_words() -> None:
    async def test(server: Served) -> None:
        answer = await server.control.post("/seed_session", json={"responses_create_params": {"input": "Rain?"}})
        assert answer.status_code == 422
        assert "add the field 'city' to the row" in answer.json()["error"]["message"]

    run(test, find("single_tool"))


def test_several_environments_are_served_under_their_names_and_not_at_the_root() -> None:
    counter = find("session_counter")

    async def test(server: Served) -> None:
        assert (await server.control.post("/seed_session", json=ROW)).status_code == 404
        office = await server.seed("/office/seed_session")
        task = counter.generate("train", 0).row
        other = (await server.control.post("/session_counter/seed_session", json=task)).json()
        server.control.cookies.clear()
        token = other["url"].rpartition("/")[2]
        assert (await server.agent.post("/office/send", headers={"x-gymrail-episode": token})).status_code == 404
        value = await server.agent.post("/session_counter/get_counter_value", headers={"x-gymrail-episode": token})
        assert value.text == str(task["initial_count"])
        assert (await server.verify(office, path="/session_counter/verify")).status_code == 404
        assert (await server.verify(office, path="/office/verify", response=said("x"))).json()["reward"] == 0.0
        assert (await server.control.get("/nothing/tools")).status_code == 404
        health = (await server.control.get("/health")).json()
        assert health["environments"] == ["office", "session_counter"]

    run(test, OFFICE, counter)


def test_an_environment_without_tools_judges_a_stored_rollout_without_an_episode() -> None:
    async def test(server: Served) -> None:
        assert (await server.control.get("/reverify_mode")).json() == "stateless"
        task = find("mcqa").generate("train", 0)
        turns = find("mcqa").cls()
        turns.task = task
        answer = [turn for turn in turns.solve() if isinstance(turn, str)][-1]
        judged = await server.control.post("/verify", json={**task.row, "response": said(answer)})
        assert judged.json()["reward"] == 1.0
        assert len(server.service.table) == 0

    run(test, find("mcqa"))


def test_a_tool_server_is_served_alone_with_the_rows_fields_and_has_nothing_to_judge() -> None:
    class Memory(ToolServer):
        """Remember."""

        def seed(self, words: list[str]) -> None:
            self.words = words

        @tool
        def recall(self) -> str:
            """Tell the words."""
            return " ".join(self.words)

    async def test(server: Served) -> None:
        seeded = (await server.control.post("/memory/seed_session", json={"words": ["a", "b"]})).json()
        server.control.cookies.clear()
        assert (await server.agent.post(f"{seeded['url']}/recall")).text == "a b"
        assert (await server.verify(seeded, path="/memory/verify")).status_code == 501
        other = (await server.control.post("/calculator/seed_session", json={})).json()
        assert (await server.agent.post(f"{other['url']}/add", json={"a": 1, "b": 2})).text == "3"

    run(test, alone("memory", Memory), alone("calculator", find_tool_server("calculator")))


def test_the_tools_of_an_environment_are_listed_for_the_key_and_those_of_a_task_for_its_agent() -> None:
    async def test(server: Served) -> None:
        tools = [{"type": "function", "name": "send", "description": "Mine.", "parameters": {"type": "object"}}]
        params = {"input": "x", "tools": tools}
        seeded = await server.seed(responses_create_params=params)
        token = seeded["url"].rpartition("/")[2]
        every = (await server.control.get("/tools")).json()["tools"]
        assert {entry["name"] for entry in every} == set(OFFICE.tools)
        own = (await server.agent.get("/tools", headers={"authorization": f"Bearer {token}"})).json()["tools"]
        assert own == seeded["tools"] == tools
        refused = await server.agent.post(f"{seeded['url']}/shred")
        assert refused.status_code == 404
        assert (await server.agent.get("/tools")).status_code == 401

    run(test)


def test_a_tool_or_an_environment_with_the_name_of_a_route_is_not_served() -> None:
    class Verifying(Environment[Task]):
        @tool(name="seed_session")
        def begin(self) -> str:
            """Begin."""
            return ""

        def verify(self, rollout: Rollout) -> float:
            return 1.0

    with pytest.raises(InputError, match="'seed_session' of bad has the name of a route"):
        create_app([EnvironmentSpec("bad", Verifying)])
    with pytest.raises(InputError, match="served as 'health'"):
        create_app([EnvironmentSpec("health", Office := OFFICE.cls)])
    with pytest.raises(InputError, match="Two environments"):
        create_app([OFFICE, EnvironmentSpec("office", Office)])


def test_a_restarted_server_says_that_old_episodes_are_gone() -> None:
    async def inside() -> None:
        async with served() as first:
            answer = await first.control.post("/seed_session", json=ROW)
        seeded, cookies = answer.json(), dict(answer.cookies)
        path = "/e/" + seeded["url"].rpartition("/")[2]
        async with served() as second:
            for request in (
                second.agent.post(f"{path}/outbox"),
                second.agent.post(f"{path}/mcp", json={}),
                second.verify(seeded, response=said("done")),
                second.agent.post("/outbox", headers={"cookie": f"gymrail_session={cookies['gymrail_session']}"}),
            ):
                gone = await request
                assert gone.status_code == 404
                assert "server was started anew" in gone.json()["error"]["message"]
            assert len(second.service.table) == 0

    asyncio.run(inside())


def test_the_numbers_and_the_open_episodes_are_there_for_the_key() -> None:
    async def test(server: Served) -> None:
        seeded = await server.seed()
        await server.agent.post(f"{seeded['url']}/send", json={"to": "Ana"})
        listed = (await server.control.get("/episodes")).json()["episodes"]
        assert [(entry["episode_id"], entry["calls"]) for entry in listed] == [(seeded["episode_id"], 1)]
        page = (await server.control.get("/metrics")).text
        assert 'gymrail_tool_calls_total{environment="office",protocol="http",result="ok"} 1.0' in page
        assert "gymrail_episodes_open 1.0" in page
        assert (await server.agent.get("/metrics")).status_code == 401
        assert "/office/verify" in (await server.agent.get("/openapi.json")).json()["paths"]

    run(test)
