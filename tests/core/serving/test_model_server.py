"""The model server before the clients that people have: OpenAI's and Anthropic's own."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import openai
import pytest

from gymrail.environment import call
from gymrail.errors import ContextOverflow, ModelError
from gymrail.messages import reasoning_item
from gymrail.models.model import ModelRequest, ModelResponse, function_call, message
from gymrail.models.scripted import ScriptedModel
from gymrail.rollout import Usage
from gymrail.serving.loopback import serve_on_loopback
from gymrail.serving.model import ModelSettings, create_model_app

FUNCTION = {
    "name": "add",
    "description": "Add.",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
}
PIXEL = base64.b64encode(b"not looked into").decode()


class Fixed:
    """Gives one answer, and keeps what it was asked."""

    def __init__(self, *items: dict[str, Any], finish_reason: Any = "stop") -> None:
        self.response = ModelResponse(list(items), finish_reason, Usage(7, 3), "fixed")
        self.asked: list[ModelRequest] = []

    async def respond(self, request: ModelRequest) -> ModelResponse:
        self.asked.append(request)
        return self.response


class Broken:
    def __init__(self, error: Exception) -> None:
        self.error = error

    async def respond(self, request: ModelRequest) -> ModelResponse:
        raise self.error


def ask(
    model: Any, question: Callable[[openai.AsyncOpenAI, anthropic.AsyncAnthropic], Awaitable[Any]], **settings: Any
) -> Any:
    async def run() -> Any:
        async with (
            serve_on_loopback(create_model_app(model, ModelSettings(**settings))) as url,
            openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="key", max_retries=0) as gpt,
            anthropic.AsyncAnthropic(base_url=url, api_key="key", max_retries=0) as claude,
            asyncio.timeout(120),
        ):
            return await question(gpt, claude)

    return asyncio.run(run())


def answer_of_everything() -> Fixed:
    return Fixed(
        reasoning_item("Let me think."),
        message("I add."),
        function_call("add", '{"a":1}', "call_a"),
        function_call("add", '{"a":2}', "call_b"),
    )


def test_the_openai_client_reads_a_whole_response() -> None:
    async def question(gpt: openai.AsyncOpenAI, claude: Any) -> Any:
        return await gpt.responses.create(
            model="any", input="Hi", tools=[{"type": "function", "strict": False, **FUNCTION}]
        )

    response = ask(answer_of_everything(), question)
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call", "function_call"]
    assert (response.output_text, response.status, response.usage.total_tokens) == ("I add.", "completed", 10)
    assert [(item.call_id, item.arguments) for item in response.output[2:]] == [
        ("call_a", '{"a":1}'),
        ("call_b", '{"a":2}'),
    ]


def test_the_openai_client_reads_a_streamed_response() -> None:
    async def question(gpt: openai.AsyncOpenAI, claude: Any) -> Any:
        async with gpt.responses.stream(model="any", input="Hi") as stream:
            events = [event async for event in stream]
            return events, await stream.get_final_response()

    events, response = ask(answer_of_everything(), question)
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "I add."
    assert [event.arguments for event in events if event.type == "response.function_call_arguments.done"] == [
        '{"a":1}',
        '{"a":2}',
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call", "function_call"]


def test_the_openai_client_reads_a_whole_chat_completion() -> None:
    async def question(gpt: openai.AsyncOpenAI, claude: Any) -> Any:
        return await gpt.chat.completions.create(
            model="any",
            messages=[{"role": "user", "content": "Hi"}],
            tools=[{"type": "function", "function": FUNCTION}],
        )

    completion = ask(answer_of_everything(), question)
    choice = completion.choices[0]
    assert (choice.finish_reason, choice.message.content, choice.message.reasoning_content) == (
        "tool_calls",
        "I add.",
        "Let me think.",
    )
    assert [(entry.id, entry.function.arguments) for entry in choice.message.tool_calls] == [
        ("call_a", '{"a":1}'),
        ("call_b", '{"a":2}'),
    ]
    assert completion.usage.total_tokens == 10


def test_the_openai_client_reads_a_streamed_chat_completion() -> None:
    async def question(gpt: openai.AsyncOpenAI, claude: Any) -> Any:
        asked: Any = {
            "model": "any",
            "messages": [{"role": "user", "content": "Hi"}],
            "stream_options": {"include_usage": True},
        }
        async with gpt.chat.completions.stream(**asked) as stream:
            async for _ in stream:
                pass
            return await stream.get_final_completion()

    completion = ask(answer_of_everything(), question)
    choice = completion.choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "I add.")
    assert [(entry.id, entry.function.name, entry.function.arguments) for entry in choice.message.tool_calls] == [
        ("call_a", "add", '{"a":1}'),
        ("call_b", "add", '{"a":2}'),
    ]
    assert completion.usage.total_tokens == 10


def test_the_anthropic_client_reads_a_whole_message() -> None:
    async def question(gpt: Any, claude: anthropic.AsyncAnthropic) -> Any:
        return await claude.messages.create(model="any", max_tokens=99, messages=[{"role": "user", "content": "Hi"}])

    answer = ask(answer_of_everything(), question)
    assert [block.type for block in answer.content] == ["text", "tool_use", "tool_use"]
    assert (answer.content[0].text, answer.content[1].input, answer.stop_reason) == ("I add.", {"a": 1}, "tool_use")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (7, 3)


def test_the_anthropic_client_reads_a_streamed_message_with_thinking() -> None:
    async def question(gpt: Any, claude: anthropic.AsyncAnthropic) -> Any:
        asked: Any = {"model": "any", "max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1024}}
        async with claude.messages.stream(messages=[{"role": "user", "content": "Hi"}], **asked) as stream:
            return "".join([text async for text in stream.text_stream]), await stream.get_final_message()

    text, answer = ask(answer_of_everything(), question)
    assert text == "I add."
    assert [block.type for block in answer.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert (answer.content[0].thinking, answer.content[3].input) == ("Let me think.", {"a": 2})
    assert (answer.stop_reason, answer.usage.output_tokens) == ("tool_use", 3)


@pytest.mark.parametrize("reason", ["max_output_tokens", "content_filter"])
def test_an_answer_that_was_cut_off_says_so_in_every_api(reason: str) -> None:
    async def question(gpt: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic) -> Any:
        turn: Any = [{"role": "user", "content": "Hi"}]
        response = await gpt.responses.create(model="any", input="Hi")
        async with gpt.responses.stream(model="any", input="Hi") as stream:
            last = [event async for event in stream][-1]
        completion = await gpt.chat.completions.create(model="any", messages=turn)
        answer = await claude.messages.create(model="any", max_tokens=9, messages=turn)
        assert response.incomplete_details is not None
        return (
            response.status,
            response.incomplete_details.reason,
            last.type,
            completion.choices[0].finish_reason,
            answer.stop_reason,
        )

    found = ask(Fixed(message("Half a"), finish_reason=reason), question)
    words = {"max_output_tokens": ("length", "max_tokens"), "content_filter": ("content_filter", "refusal")}[reason]
    assert found == ("incomplete", reason, "response.incomplete", *words)


def test_a_conversation_reaches_the_model_the_same_from_every_api() -> None:
    model = Fixed(message("Done."))

    async def question(gpt: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic) -> None:
        call = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a":1}'}
        items: Any = [
            {"role": "user", "content": "Hi"},
            call,
            {"type": "function_call_output", "call_id": "c1", "output": "1"},
        ]
        function: Any = {"type": "function", "strict": False, **FUNCTION}
        same: Any = {"model": "m", "tool_choice": "required"}
        await gpt.responses.create(
            input=items, instructions="Be brief.", max_output_tokens=50, tools=[function], **same
        )
        tool_calls = [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}]
        turns: Any = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": None, "tool_calls": tool_calls},
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
        ]
        chat_tools: Any = [{"type": "function", "function": FUNCTION}]
        await gpt.chat.completions.create(messages=turns, max_completion_tokens=50, tools=chat_tools, **same)
        result = {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "1"}]}
        blocks: Any = [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}}]},
            {"role": "user", "content": [result]},
        ]
        tool: Any = {"name": "add", "description": "Add.", "input_schema": FUNCTION["parameters"]}
        await claude.messages.create(
            model="m", max_tokens=50, system="Be brief.", messages=blocks, tool_choice={"type": "any"}, tools=[tool]
        )

    ask(model, question)
    assert len(model.asked) == 3
    for request in model.asked:
        items = [item for item in request.input if item.get("role") != "system"]
        assert (items[0]["role"], items[0]["content"]) == ("user", "Hi")
        assert [items[1][name] for name in ("type", "call_id", "name", "arguments")] == [
            "function_call",
            "c1",
            "add",
            '{"a":1}',
        ]
        assert items[2:] == [{"type": "function_call_output", "call_id": "c1", "output": "1"}]
        assert [(tool["type"], tool["name"], tool["parameters"]) for tool in request.tools] == [
            ("function", "add", FUNCTION["parameters"])
        ]
        assert (request.parameters["max_output_tokens"], request.parameters["tool_choice"]) == (50, "required")
        said = request.parameters.get("instructions") or request.input[0]["content"]
        assert said == "Be brief."


def test_pictures_reach_the_model_from_every_api() -> None:
    model = Fixed(message("A dot."))
    url = f"data:image/png;base64,{PIXEL}"

    async def question(gpt: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic) -> None:
        await gpt.responses.create(
            model="m",
            input=[{"role": "user", "content": [{"type": "input_image", "image_url": url, "detail": "auto"}]}],
        )
        await gpt.chat.completions.create(
            model="m", messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
        )
        source: Any = {"type": "base64", "media_type": "image/png", "data": PIXEL}
        await claude.messages.create(
            model="m", max_tokens=9, messages=[{"role": "user", "content": [{"type": "image", "source": source}]}]
        )

    ask(model, question)
    assert [request.input[0]["content"] for request in model.asked] == [
        [{"type": "input_image", "image_url": url, "detail": "auto"}]
    ] * 3


def test_an_overflow_is_a_bad_request_that_each_client_knows_as_one() -> None:
    async def question(gpt: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic) -> Any:
        with pytest.raises(openai.BadRequestError) as from_gpt:
            await gpt.responses.create(model="any", input="Hi")
        with pytest.raises(openai.BadRequestError) as streamed:
            await gpt.responses.create(model="any", input="Hi", stream=True)
        with pytest.raises(anthropic.BadRequestError) as from_claude:
            await claude.messages.create(model="any", max_tokens=9, messages=[{"role": "user", "content": "Hi"}])
        return from_gpt.value.code, streamed.value.code, from_claude.value.body

    code, streamed, body = ask(Broken(ContextOverflow("9 tokens are too many")), question)
    assert (code, streamed) == ("context_length_exceeded", "context_length_exceeded")
    assert body["error"] == {"type": "invalid_request_error", "message": "prompt is too long: 9 tokens are too many"}


def test_a_model_that_broke_is_a_server_error_without_the_words_of_a_bug() -> None:
    async def question(gpt: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic) -> Any:
        with pytest.raises(openai.InternalServerError) as from_gpt:
            await gpt.chat.completions.create(model="any", messages=[{"role": "user", "content": "Hi"}])
        with pytest.raises(anthropic.InternalServerError) as from_claude:
            await claude.messages.create(model="any", max_tokens=9, messages=[{"role": "user", "content": "Hi"}])
        return from_gpt.value, from_claude.value

    from_gpt, from_claude = ask(Broken(KeyError("secret")), question)
    assert "secret" not in str(from_gpt) + str(from_claude)
    assert from_gpt.response.headers["x-should-retry"] == "false"
    assert from_claude.body["error"]["type"] == "api_error"
    from_gpt, _ = ask(Broken(ModelError("the endpoint is down")), question)
    assert "the endpoint is down" in str(from_gpt)


def test_an_endpoint_without_room_is_a_rate_limit_in_every_api() -> None:
    async def question(gpt: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic) -> None:
        with pytest.raises(openai.RateLimitError):
            await gpt.responses.create(model="any", input="Hi")
        with pytest.raises(anthropic.RateLimitError):
            await claude.messages.create(model="any", max_tokens=9, messages=[{"role": "user", "content": "Hi"}])

    ask(Broken(ModelError("slow down", 429)), question)


def test_a_model_that_breaks_while_its_answer_is_streamed_ends_the_stream_with_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gymrail.serving.model._QUIET_SECONDS", 0.05)

    class Late:
        async def respond(self, request: ModelRequest) -> ModelResponse:
            await asyncio.sleep(0.3)
            raise ModelError("too late")

    async def question(gpt: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic) -> Any:
        turn: Any = [{"role": "user", "content": "Hi"}]
        events = [event async for event in await gpt.responses.create(model="any", input="Hi", stream=True)]
        with pytest.raises(openai.APIError, match="too late"):
            _ = [chunk async for chunk in await gpt.chat.completions.create(model="any", messages=turn, stream=True)]
        with pytest.raises(anthropic.APIError, match="too late"):
            _ = [
                event
                async for event in await claude.messages.create(model="a", max_tokens=9, messages=turn, stream=True)
            ]
        return [event.type for event in events], events[-1].response.error.message

    assert ask(Late(), question) == (["response.failed"], "too late")


def test_a_wrong_key_opens_nothing_and_the_right_one_opens_every_api() -> None:
    async def question(gpt: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic) -> Any:
        wrong = gpt.with_options(api_key="wrong"), claude.with_options(api_key="wrong")
        with pytest.raises(openai.AuthenticationError):
            await wrong[0].responses.create(model="any", input="Hi")
        with pytest.raises(openai.AuthenticationError):
            await wrong[0].models.list()
        with pytest.raises(anthropic.AuthenticationError):
            await wrong[1].messages.create(model="any", max_tokens=9, messages=[{"role": "user", "content": "Hi"}])
        right = gpt.with_options(api_key="k" * 20), claude.with_options(api_key="k" * 20)
        return [entry.id async for entry in right[0].models.list()], [
            entry.id async for entry in right[1].models.list()
        ]

    assert ask(Fixed(message("Hi")), question, key="k" * 20, name="tiny") == (["tiny"], ["tiny"])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"input": "Hi", "previous_response_id": "resp_1"}, "responses are not stored here"),
        ({"input": 3}, "it must be text or a list of items"),
        ({"input": ["Hi"]}, "an item is an object"),
        ({"input": "Hi", "tools": [3]}, "wrong shape"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused_with_a_reason(body: dict[str, Any], said: str) -> None:
    async def question(gpt: openai.AsyncOpenAI, claude: Any) -> Any:
        with pytest.raises(openai.BadRequestError) as error:
            await gpt.post("/responses", body=body, cast_to=object)
        return str(error.value)

    assert said in ask(Fixed(message("Hi")), question)


def test_token_ids_come_along_where_nothing_is_recorded() -> None:
    tokens = {"prompt_token_ids": [1, 2], "generation_token_ids": [3], "generation_log_probs": [-0.5]}

    async def question(gpt: openai.AsyncOpenAI, claude: Any) -> Any:
        response = await gpt.responses.create(model="any", input="Hi")
        completion = await gpt.chat.completions.create(model="any", messages=[{"role": "user", "content": "Hi"}])
        recorded = await gpt.with_options(default_headers={"X-Gymrail-Rollout": "a"}).responses.create(
            model="any", input="Hi"
        )
        return [
            entry.model_extra for entry in (response.output[-1], completion.choices[0].message, recorded.output[-1])
        ]

    first, second, recorded = ask(Fixed({**message("Hi"), **tokens}), question)
    assert first == second == tokens
    assert recorded == {}


def test_codex_namespaces_and_custom_tools_come_back_as_they_were_offered() -> None:
    def script(request: ModelRequest) -> Any:
        assert [tool["name"] for tool in request.tools] == ["mcp__env__add", "apply_patch"]
        return [call("mcp__env__add", a=1), call("apply_patch", input="*** Begin")]

    tools = [
        {"type": "namespace", "name": "mcp__env", "tools": [{"type": "function", **FUNCTION}]},
        {"type": "custom", "name": "apply_patch", "description": "Patch.", "format": {"type": "text"}},
        {"type": "web_search"},
    ]

    async def question(gpt: openai.AsyncOpenAI, claude: Any) -> Any:
        body = {"model": "any", "input": "Hi", "tools": tools}
        whole: Any = await gpt.post("/responses", body=body, cast_to=object)
        again = [
            {"role": "user", "content": "Hi"},
            *whole["output"],
            {"type": "custom_tool_call_output", "call_id": "call_1_1", "output": "ok"},
        ]
        return whole["output"], await gpt.post("/responses", body={**body, "input": again}, cast_to=object)

    output, _ = ask(ScriptedModel(script), question)
    assert [output[0][name] for name in ("type", "namespace", "name", "arguments")] == [
        "function_call",
        "mcp__env",
        "add",
        '{"a":1}',
    ]
    assert [output[1][name] for name in ("type", "name", "input")] == ["custom_tool_call", "apply_patch", "*** Begin"]


def test_claude_counts_tokens_by_an_estimate() -> None:
    async def question(gpt: Any, claude: anthropic.AsyncAnthropic) -> Any:
        counted = await claude.messages.count_tokens(model="any", messages=[{"role": "user", "content": "word " * 400}])
        return counted.input_tokens

    assert 300 < ask(Fixed(message("Hi")), question) < 700


def test_a_server_without_room_says_come_again() -> None:
    class Slow:
        def __init__(self) -> None:
            self.asked, self.go = asyncio.Event(), asyncio.Event()

        async def respond(self, request: ModelRequest) -> ModelResponse:
            self.asked.set()
            await self.go.wait()
            return ModelResponse([message("Hi")])

    model = Slow()

    async def question(gpt: openai.AsyncOpenAI, claude: Any) -> Any:
        first = asyncio.create_task(gpt.responses.create(model="any", input="Hi"))
        await model.asked.wait()
        with pytest.raises(openai.RateLimitError) as error:
            await gpt.responses.create(model="any", input="Hi")
        model.go.set()
        return (await first).output_text, error.value.response.headers["retry-after"]

    assert ask(model, question, max_calls=1) == ("Hi", "1")
