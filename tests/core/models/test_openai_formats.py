"""A Responses request in both wire formats, and the answers read back: parameters, tools, reasoning, token fields."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from openai.types.responses.response_create_params import ResponseCreateParamsBase

from gymrail.errors import InputError, ModelError
from gymrail.models.model import ModelRequest, ModelResponse, function_call, message
from gymrail.models.openai import EndpointSettings, OpenAIModel
from gymrail.rollout import text_of
from gymrail.task import RESPONSES_PARAMETERS, Item
from tests.core.models.endpoint import Answer, Endpoint, called, chat, chat_call, response, said

Json = dict[str, Any]
USER: Item = {"role": "user", "content": "Hi"}
TOOL = {
    "type": "function",
    "name": "add",
    "description": "Add.",
    "parameters": {"type": "object", "properties": {}},
    "strict": True,
}
TOKENS = {"prompt_token_ids": [1, 2], "generation_token_ids": [3, 4], "generation_log_probs": [-0.5, -0.25]}
QUICK = EndpointSettings(max_retries=1, first_wait_seconds=0.001)


def ask(
    answer: Answer, request: ModelRequest | None = None, api: Any = "chat", settings: EndpointSettings = QUICK
) -> tuple[ModelResponse, Json]:
    """Send one request; return the answer and the body that the endpoint got."""

    async def run() -> tuple[ModelResponse, Json]:
        async with (
            Endpoint([answer] * 2) as endpoint,
            OpenAIModel("m", endpoint.url, api=api, settings=settings) as model,
        ):
            answered = await model.respond(request or ModelRequest([USER]))
            return answered, endpoint.bodies[-1]

    return asyncio.run(run())


def chat_body(parameters: Mapping[str, Any], tools: Any = ()) -> Json:
    return ask(chat("ok"), ModelRequest([USER], tools, parameters))[1]


def test_the_parameters_a_task_may_have_are_those_of_the_openai_package() -> None:
    assert ResponseCreateParamsBase.__annotations__.keys() | {"stream"} == RESPONSES_PARAMETERS


def test_every_parameter_of_both_apis_is_sent_and_every_other_is_refused() -> None:
    ours = {"input", "instructions", "model", "tools", "tool_choice", "stream", "text", "reasoning"}
    values = {"max_output_tokens": 5, "top_logprobs": 2}
    chat_names = {"max_output_tokens": "max_tokens"}
    for name in sorted(RESPONSES_PARAMETERS - ours):
        sent = {name: values.get(name, "x")}
        is_known = name in CompletionCreateParamsBase.__annotations__ and name != "stream_options"
        if is_known or name in chat_names:
            assert chat_body(sent, [TOOL])[chat_names.get(name, name)] == sent[name]
        else:
            with pytest.raises(InputError, match=f"The parameter '{name}'.* has no counterpart in Chat Completions"):
                chat_body(sent)


def test_parameters_become_those_of_chat_completions() -> None:
    schema = {"type": "json_schema", "name": "out", "schema": {"type": "object"}, "strict": True}
    parameters = {
        "model": "the row's own",
        "instructions": "Be kind.",
        "temperature": 0.5,
        "top_p": None,
        "max_output_tokens": 7,
        "reasoning": {"effort": "low", "summary": None},
        "text": {"format": schema, "verbosity": "low"},
        "tool_choice": {"type": "function", "name": "add"},
        "parallel_tool_calls": False,
        "metadata": {"a": "b"},
        "truncation": "disabled",
        "include": [],
        "background": False,
    }
    assert chat_body(parameters, [TOOL]) == {
        "model": "m",
        "tools": [{"type": "function", "function": {key: value for key, value in TOOL.items() if key != "type"}}],
        "temperature": 0.5,
        "max_tokens": 7,
        "reasoning_effort": "low",
        "verbosity": "low",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "out", "schema": {"type": "object"}, "strict": True},
        },
        "tool_choice": {"type": "function", "function": {"name": "add"}},
        "parallel_tool_calls": False,
        "metadata": {"a": "b"},
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}],
    }


def test_without_tools_nothing_is_said_about_choosing_them() -> None:
    body = chat_body({"tool_choice": "auto", "parallel_tool_calls": True, "text": {"format": {"type": "text"}}})
    assert body == {"model": "m", "messages": [USER]}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"stream": True}, "'stream'"),
        ({"truncation": "auto"}, "'truncation'"),
        ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
        ({"reasoning": "low"}, "reasoning is 'low'; it must be an object"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format is {'type': 'grammar'}"),
        ({"text": {"tone": "warm"}}, "text.tone"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice is {'type': 'web_search'}"),
    ],
    ids=str,
)
def test_what_chat_completions_cannot_say_is_an_input_error(parameters: Json, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        chat_body(parameters, [TOOL])
    assert expected in str(caught.value)


def test_the_name_of_the_answers_limit_follows_the_endpoint_and_the_settings() -> None:
    names = {
        url: OpenAIModel("m", url, api="chat")._max_tokens_field()
        for url in ("https://api.openai.com/v1", "https://x.openai.azure.com/openai/v1", "http://localhost:8000/v1")
    }
    assert list(names.values()) == ["max_completion_tokens", "max_completion_tokens", "max_tokens"]
    request = ModelRequest([USER], parameters={"max_output_tokens": 3})
    _, body = ask(chat("ok"), request, settings=EndpointSettings(max_tokens_field="max_completion_tokens"))
    assert body["max_completion_tokens"] == 3


def test_extra_fields_of_the_settings_go_into_every_body() -> None:
    settings = EndpointSettings(extra_body={"top_k": 20, "temperature": 1.0})
    request = ModelRequest([USER], parameters={"temperature": 0.1})
    for api, answer in (("chat", chat("ok")), ("responses", response(said("ok")))):
        _, body = ask(answer, request, api, settings)
        assert (body["top_k"], body["temperature"]) == (20, 1.0)


def test_the_responses_api_gets_items_and_parameters_as_they_are() -> None:
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "xyz"}
    output = {"type": "function_call_output", "call_id": "c1", "output": "3"}
    items = [USER, reasoning, {**function_call("add", "{}", "c1"), **TOKENS}, output]
    parameters = {
        "include": ["reasoning.encrypted_content"],
        "store": False,
        "temperature": None,
        "max_output_tokens": 9,
    }
    _, body = ask(response(said("ok")), ModelRequest(items, [TOOL], parameters), "responses")
    assert body == {
        "model": "m",
        "tools": [TOOL],
        "include": ["reasoning.encrypted_content"],
        "store": False,
        "max_output_tokens": 9,
        "input": [USER, reasoning, function_call("add", "{}", "c1"), output],
    }
    with pytest.raises(InputError, match="'stream' is True; Gymrail waits for whole answers"):
        ask(response(said("ok")), ModelRequest([USER], parameters={"stream": True}), "responses")


def test_the_api_is_chosen_by_the_host() -> None:
    assert "path='responses'" in repr(OpenAIModel("m"))
    assert "path='chat/completions'" in repr(OpenAIModel("m", "http://localhost:8000/v1"))
    assert "path='chat/completions'" in repr(OpenAIModel("m", api="chat"))


def test_a_query_of_the_address_stays_behind_every_path() -> None:
    async def run() -> None:
        async with Endpoint([chat("ok")]) as endpoint:
            async with OpenAIModel("m", f"{endpoint.url}/?api-version=7&key=hidden") as model:
                await model.check()
                await model.respond(ModelRequest([USER]))
                assert "hidden" not in repr(model)
            paths = [received.path for received in endpoint.received]
            assert paths == ["/v1/models?api-version=7&key=hidden", "/v1/chat/completions?api-version=7&key=hidden"]

    asyncio.run(run())


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_of_a_chat_model_is_kept_and_sent_back(field: Any) -> None:
    answered, _ = ask(chat("Five.", **{field: "two and three"}))
    assert [item["type"] for item in answered.items] == ["reasoning", "message"]
    settings = EndpointSettings(reasoning_field=field)
    _, body = ask(chat("ok"), ModelRequest([USER, *answered.items, USER]), settings=settings)
    assert body["messages"] == [USER, {"role": "assistant", "content": "Five.", field: "two and three"}, USER]
    _, body = ask(
        chat("ok"), ModelRequest([USER, *answered.items, USER]), settings=EndpointSettings(reasoning_field=None)
    )
    assert body["messages"][1] == {"role": "assistant", "content": "Five."}


def test_tool_calls_without_usable_ids_get_new_ones_and_objects_become_text() -> None:
    shapes = chat(None, chat_call(None, "add", "{}"), chat_call("c", "add", "{}"), chat_call("c", "add", "{}"))
    shapes.body["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] = {"by": 3}
    answered, _ = ask(shapes)
    assert [item["arguments"] for item in answered.items] == ['{"by":3}', "{}", "{}"]
    assert len({item["call_id"] for item in answered.items}) == 3
    again, _ = ask(shapes)
    assert again.items[0]["call_id"] != answered.items[0]["call_id"]
    broken = {"type": "function_call", "name": "add", "arguments": {"by": 3}}
    answered, _ = ask(response(broken), api="responses")
    assert answered.items[0]["arguments"] == '{"by":3}'
    assert answered.items[0]["call_id"].startswith("call_")


def test_null_content_empty_calls_and_missing_usage_are_an_empty_answer() -> None:
    answer = chat(None, tool_calls=None)
    del answer.body["usage"]
    answered, _ = ask(answer)
    assert answered.items == [message("")]
    assert (answered.usage.input_tokens, answered.model) == (0, "served")


def test_a_refusal_is_kept_as_one() -> None:
    answered, _ = ask(chat(None, refusal="I must not."))
    assert answered.items[-1]["content"] == [{"type": "refusal", "refusal": "I must not."}]
    _, body = ask(chat("ok"), ModelRequest([USER, *answered.items, USER]))
    assert body["messages"][1] == {"role": "assistant", "content": "I must not."}


@pytest.mark.parametrize(
    ("word", "expected"), [("length", "max_output_tokens"), ("content_filter", "content_filter"), ("stop", "stop")]
)
def test_the_reason_to_stop_is_read_in_both_formats(word: str, expected: str) -> None:
    assert ask(chat("half", finish_reason=word))[0].finish_reason == expected
    details = {"incomplete_details": {"reason": expected}, "status": "incomplete"} if expected != "stop" else {}
    assert ask(response(said("half"), **details), api="responses")[0].finish_reason == expected


def test_a_budget_that_ended_before_the_first_word_is_an_empty_truncated_answer() -> None:
    details = {"incomplete_details": {"reason": "max_output_tokens"}, "status": "incomplete"}
    answered, _ = ask(response(**details), api="responses")
    assert (answered.items, answered.finish_reason) == ([message("")], "max_output_tokens")


def vllm(**changes: Any) -> Answer:
    """An answer with token ids as vLLM gives them."""
    answer = chat("Hi there")
    entries = [
        {"token": f"token_id:{token}", "logprob": value, "bytes": None} for token, value in ((3, -0.5), (4, -0.25))
    ]
    answer.body["prompt_token_ids"] = [1, 2]
    answer.body["choices"][0] |= {"token_ids": [3, 4], "logprobs": {"content": entries}, **changes}
    return answer


def test_token_ids_are_asked_for_and_stand_on_the_last_item() -> None:
    wanted = EndpointSettings(token_ids=True, max_retries=0)
    answered, body = ask(vllm(), settings=wanted)
    assert {name: body[name] for name in ("return_token_ids", "logprobs", "top_logprobs")} == {
        "return_token_ids": True,
        "logprobs": True,
        "top_logprobs": 0,
    }
    assert {name: answered.items[-1][name] for name in TOKENS} == TOKENS
    assert {name: ask(vllm())[0].items[-1][name] for name in TOKENS} == TOKENS
    with_call = chat(None, chat_call("a", "add", "{}"), chat_call("b", "add", "{}"), reasoning_content="hm", **TOKENS)
    answered, _ = ask(with_call, settings=wanted)
    assert [TOKENS.keys() <= item.keys() for item in answered.items] == [False, False, True]
    answered, _ = ask(response(said("a"), {**called("c", "add", {}), **TOKENS}), api="responses", settings=wanted)
    assert {name: answered.items[-1][name] for name in TOKENS} == TOKENS


def test_token_fields_are_dropped_where_they_are_not_wanted() -> None:
    unwanted = EndpointSettings(token_ids=False)
    for answer, api in (
        (vllm(), "chat"),
        (chat("x", **TOKENS), "chat"),
        (response({**said("x"), **TOKENS}), "responses"),
    ):
        answered, body = ask(answer, api=api, settings=unwanted)
        assert not TOKENS.keys() & answered.items[-1].keys()
        assert "return_token_ids" not in body


BROKEN_TOKENS = {
    "nothing": chat("x"),
    "no prompt ids": chat("x", **{**TOKENS, "prompt_token_ids": None}),
    "lengths": chat("x", **{**TOKENS, "generation_log_probs": [-0.5]}),
    "NaN as null": chat("x", **{**TOKENS, "generation_log_probs": [-0.5, None]}),
    "text": chat("x", **{**TOKENS, "generation_token_ids": ["a", "b"]}),
    "no log-probs": vllm(logprobs=None),
}


@pytest.mark.parametrize("answer", BROKEN_TOKENS.values(), ids=BROKEN_TOKENS.keys())
def test_token_fields_come_all_three_or_not_at_all(answer: Answer) -> None:
    with pytest.raises(ModelError, match="token ids cannot be used"):
        ask(answer, settings=EndpointSettings(token_ids=True, max_retries=1, first_wait_seconds=0.001))
    assert not TOKENS.keys() & ask(answer)[0].items[-1].keys()


@pytest.mark.parametrize("ids", [[3, 5], [3, 4, 5]])
def test_log_probs_of_other_tokens_are_refused_even_where_nobody_asked(ids: list[int]) -> None:
    with pytest.raises(ModelError, match="belong to other tokens"):
        ask(vllm(token_ids=ids))


def test_token_fields_go_back_only_where_the_endpoint_wants_them() -> None:
    items = [USER, {**message("Hello"), **TOKENS}, USER]
    carry = EndpointSettings(carry_token_ids=True)
    assert ask(chat("ok"), ModelRequest(items, episode_id="e"), settings=carry)[1]["messages"][1] == {
        "role": "assistant",
        "content": "Hello",
        **TOKENS,
    }
    assert ask(response(said("ok")), ModelRequest(items), "responses", carry)[1]["input"] == items
    assert ask(chat("ok"), ModelRequest(items))[1]["messages"][1] == {"role": "assistant", "content": "Hello"}
    assert ask(response(said("ok")), ModelRequest(items), "responses")[1]["input"] == [USER, message("Hello"), USER]


def test_half_of_a_surrogate_pair_in_a_tool_output_does_not_stop_the_episode() -> None:
    _, body = ask(chat("ok"), ModelRequest([{"role": "user", "content": "x\ud83d y"}]))
    assert body["messages"][0]["content"] == "x? y"


def test_instructions_alone_are_a_request_too() -> None:
    _, body = ask(chat("ok"), ModelRequest([], parameters={"instructions": "Say ok."}))
    assert body["messages"] == [{"role": "system", "content": "Say ok."}]


def test_text_of_an_answer_reads_the_same_from_both_formats() -> None:
    assert text_of(ask(chat("Hello"))[0].items[-1]) == text_of(
        ask(response(said("Hello")), api="responses")[0].items[-1]
    )
