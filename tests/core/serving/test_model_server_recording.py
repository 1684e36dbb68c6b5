"""What a program asked a model becomes the rollout of its episode."""

import asyncio
from typing import Any

import anthropic
import openai

from gymrail.models.model import ModelRequest, ModelResponse, function_call, message
from gymrail.rollout import Rollout, Usage
from gymrail.serving.loopback import serve_on_loopback
from gymrail.serving.model import ModelSettings, create_model_app
from gymrail.serving.recording import Record, RecordedCall, Records, recorded_rollout, short_name, trajectory_of
from gymrail.task import Item, Task
from gymrail.tokens import sequence_of

TOOLS = ("add", "mcp__env__add")


def user(text: str) -> Item:
    return {"type": "message", "role": "user", "content": text}


def output(call_id: str, text: str) -> Item:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


def record(*calls: tuple[list[Item], list[Item]], tools: tuple[str, ...] = ("mcp__env__add",)) -> Record:
    made = Record("r")
    made.calls = [RecordedCall(asked, tools, ModelResponse(said), 0.0, 0.1) for asked, said in calls]
    return made


def with_tokens(item: Item, prompt: list[int], sampled: list[int]) -> Item:
    return {
        **item,
        "prompt_token_ids": prompt,
        "generation_token_ids": sampled,
        "generation_log_probs": [-0.1] * len(sampled),
    }


def test_the_models_own_items_stand_in_the_trajectory_with_their_tokens() -> None:
    first = with_tokens(function_call("mcp__env__add", "{}", "c1"), [1, 2], [3, 4])
    second = with_tokens(message("Three."), [1, 2, 3, 4, 5], [6])
    # The program sends the call back without tokens, its arguments written anew, and adds a reminder.
    again = [user("Hi"), function_call("mcp__env__add", "{ }", "c1"), output("c1", "3"), user("Go on.")]
    made = record(([user("Hi")], [first]), (again, [second]))
    rollout = Rollout("env", Task.ask("Hi"), "r", conversation=[user("Hi")], prompt_length=1)
    recorded_rollout(rollout, made, ["add"])
    assert rollout.items == [{**first, "name": "add"}, output("c1", "3"), user("Go on."), second]
    assert (rollout.steps, rollout.final_text, rollout.metrics) == (2, "Three.", {})
    assert sequence_of(rollout).completion_ids == [3, 4, 5, 6]


def test_calls_on_the_side_are_counted_and_left_out() -> None:
    call, done = function_call("mcp__env__add", "{}", "c1"), message("Done.")
    made = record(([user("Hi")], [call]), ([user("Hi"), call, output("c1", "3")], [done]))
    title = RecordedCall([user("Write a title for: Hi")], (), ModelResponse([message("Title")]), 0.0, 0.1)
    made.calls.insert(0, title)
    made.calls.append(title)
    found = trajectory_of(made, ["add"])
    assert [item.get("call_id") or item["role"] for item in found.items] == ["c1", "c1", "assistant"]
    assert (found.steps, found.side_calls) == (2, 2)


def test_of_an_answer_that_was_asked_for_twice_the_one_that_was_used_counts() -> None:
    lost, used, done = (function_call("add", "{}", "c1"), function_call("add", "{}", "c2"), message("Done."))
    made = record(([user("Hi")], [lost]), ([user("Hi")], [used]), ([user("Hi"), used, output("c2", "3")], [done]))
    assert trajectory_of(made, ["add"]).items == [used, output("c2", "3"), done]


def test_a_program_that_sums_up_and_starts_over_keeps_what_it_did_before() -> None:
    calls = [function_call("add", "{}", f"c{number}") for number in range(4)]
    before = [user("Hi"), calls[0], output("c0", "1")]
    after = [user("So far: 1."), calls[2], output("c2", "3"), calls[3], output("c3", "4")]
    made = record(
        (before[:1], [calls[0]]), (before, [message("Summary.")]),
        (after[:1], [calls[2]]), (after[:3], [calls[3]]), (after, [message("Done.")]),
    )  # fmt: skip
    found = trajectory_of(made, ["add"])
    assert [item.get("call_id") or item["content"][0]["text"] for item in found.items] == [
        "c0", "c0", "Summary.", "c2", "c2", "c3", "c3", "Done.",
    ]  # fmt: skip
    assert found.side_calls == 0


def test_outputs_behind_each_call_and_behind_all_calls_are_both_found() -> None:
    calls = [function_call("add", "{}", "c1"), function_call("add", "{}", "c2")]
    outputs = [output("c1", "1"), output("c2", "2")]
    for again in ([*calls, *outputs], [calls[0], outputs[0], calls[1], outputs[1]]):
        made = record(([user("Hi")], calls), ([user("Hi"), *again], [message("Done.")]))
        assert trajectory_of(made, ["add"]).items == [*calls, *outputs, message("Done.")]


def test_user_turns_between_answers_of_text_are_part_of_the_trajectory() -> None:
    made = record(
        ([user("Hi")], [message("Yes?")]), ([user("Hi"), message("Yes?"), user("Bye")], [message("Yes?")]), tools=()
    )
    assert trajectory_of(made).items == [message("Yes?"), user("Bye"), message("Yes?")]


def test_a_tool_is_known_by_every_name_that_programs_give_it() -> None:
    known = ["add", "add_all", "get_value"]
    names = ["add", "mcp__env__add", "env_add_all", "env.get_value", "mcp__env__other"]
    assert [short_name(name, known) for name in names] == ["add", "add", "add_all", "get_value", "mcp__env__other"]


class Counting:
    """Numbers its calls from 0 in every answer, as some endpoints do."""

    async def respond(self, request: ModelRequest) -> ModelResponse:
        if any(item.get("type") == "function_call_output" for item in request.input[-1:]) and len(request.input) > 4:
            return ModelResponse([message("Done.")], usage=Usage(2, 1), model="counting")
        return ModelResponse([function_call("add", "{}", "call_0")], usage=Usage(1, 1), model="counting")


def test_one_record_holds_the_calls_of_every_api_under_its_address_and_no_others() -> None:
    async def run() -> Any:
        records = Records()
        async with serve_on_loopback(create_model_app(Counting(), ModelSettings(), records)) as url:
            async with openai.AsyncOpenAI(base_url=f"{url}/r/one/v1", api_key="-", max_retries=0) as gpt:
                items: list[Any] = [user("Hi")]
                for _ in range(3):
                    answer = await gpt.responses.create(model="any", input=items)
                    items += [item.model_dump(exclude_none=True) for item in answer.output]
                    items += [output(item.call_id, "1") for item in answer.output if item.type == "function_call"]
            async with anthropic.AsyncAnthropic(base_url=f"{url}/r/two", api_key="-", max_retries=0) as claude:
                await claude.messages.create(model="any", max_tokens=9, messages=[{"role": "user", "content": "Hi"}])
                shown = await claude.get(f"{url}/records/two", cast_to=object)
                await claude.delete(f"{url}/records/two", cast_to=object)
        return records, shown

    records, shown = asyncio.run(run())
    found = trajectory_of(records.get("one"), ["add"])
    assert [item["type"] for item in found.items] == [*["function_call", "function_call_output"] * 2, "message"]
    assert len({item["call_id"] for item in found.items if item["type"] == "function_call"}) == 2
    assert records.get("one").usage == Usage(4, 3)
    assert (shown["steps"], [item["type"] for item in shown["items"]]) == (1, ["function_call"])
    assert records.get("two") is None


def test_a_record_decides_how_its_rollout_is_sampled_and_a_closed_server_knows_no_other_names() -> None:
    asked: list[ModelRequest] = []

    class Keeping:
        async def respond(self, request: ModelRequest) -> ModelResponse:
            asked.append(request)
            return ModelResponse([message("Hi")])

    async def run() -> int:
        records = Records(opens_on_demand=False)
        records.add(Record("known", Keeping(), {"temperature": 0.7}))
        async with (
            serve_on_loopback(create_model_app(None, ModelSettings(), records)) as url,
            openai.AsyncOpenAI(base_url=f"{url}/r/known/v1", api_key="-", max_retries=0) as gpt,
        ):
            await gpt.responses.create(model="any", input="Hi", temperature=0.1, top_p=0.5, max_output_tokens=99)
            try:
                await gpt.with_options(base_url=f"{url}/r/other/v1").responses.create(model="any", input="Hi")
            except openai.NotFoundError as error:
                return error.status_code
        return 0

    assert asyncio.run(run()) == 404
    assert asked[0].parameters == {"temperature": 0.7}
