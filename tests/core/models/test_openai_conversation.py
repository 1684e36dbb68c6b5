"""The memory of converted conversations changes nothing but the time it takes."""

import itertools
from typing import Any

from gymrail.models.chat import ChatWire
from gymrail.models.conversation import Conversations
from gymrail.models.model import function_call, message
from gymrail.models.openai import EndpointSettings
from gymrail.task import Item

USER: Item = {"role": "user", "content": "Hi"}
TOKENS = {"prompt_token_ids": [1, 2], "generation_token_ids": [3, 4], "generation_log_probs": [-0.5, -0.25]}
SETTINGS = EndpointSettings()


def growing(steps: int) -> list[list[Item]]:
    """The conversations of one episode, call after call: each turn is one or two calls, sometimes a user turn."""
    items: list[Item] = [{"role": "system", "content": "Be brief."}, USER]
    seen = [list(items)]
    for step in range(steps):
        if step % 5 == 4:
            items += [message(f"answer {step}"), {"role": "user", "content": f"more {step}"}]
        else:
            items += [function_call("add", f'{{"by":{step}}}', f"c{step}.{call}") for call in range(1 + step % 2)]
            items[-1] = {**items[-1], **TOKENS}
            items += [
                {"type": "function_call_output", "call_id": f"c{step}.{call}", "output": "é" * step}
                for call in range(1 + step % 2)
            ]
        seen.append(list(items))
    return seen


def fresh(items: list[Item]) -> bytes:
    """What a wire without a memory writes."""
    return ChatWire("m", SETTINGS, "max_tokens").conversation("", items)


def test_a_growing_conversation_is_written_as_if_it_were_converted_afresh() -> None:
    wire = ChatWire("m", SETTINGS, "max_tokens")
    conversations = growing(40)
    for items in conversations:
        assert wire.conversation("e", items) == fresh(items)
    assert wire.conversations.reused > 30
    assert wire.conversation("e", tuple(conversations[-1])) == fresh(conversations[-1])


def test_a_conversation_that_was_changed_is_converted_afresh() -> None:
    def nested(item: Item) -> None:
        item["content"][0]["text"] = "changed deep inside"

    items = growing(20)[-1]
    place = next(index for index, item in enumerate(items) if item.get("role") == "assistant")
    changes: dict[str, Any] = {
        "an item replaced": lambda copy: copy.__setitem__(1, {"role": "user", "content": "Other"}),
        "an item changed in place": lambda copy: nested(copy[place]),
        "cut": lambda copy: copy.__delitem__(slice(14, None)),
        "cut in the middle": lambda copy: copy.__delitem__(slice(2, 8)),
        "another, as long": lambda copy: copy.__setitem__(
            slice(None), [{"role": "user", "content": str(i)} for i in range(30)]
        ),
        "a longer last text": lambda copy: copy[-1].__setitem__("content", copy[-1].get("content", "") + "!"),
        "an output without its call in sight": lambda copy: copy.append(
            {"type": "function_call_output", "call_id": "c0.0", "output": "late"}
        ),
        "an assistant at the end": lambda copy: copy.extend([message("a"), function_call("add", "{}", "z")]),
    }
    for name, change in changes.items():
        wire = ChatWire("m", SETTINGS, "max_tokens")
        assert wire.conversation("e", items) == fresh(items)
        copy = [dict(item) for item in items]
        change(copy)
        assert wire.conversation("e", copy) == fresh(copy), name
        for following in (function_call("add", "{}", "y"), {"role": "user", "content": "go on"}):
            copy.append(following)
            assert wire.conversation("e", copy) == fresh(copy), name


def test_the_memory_of_conversations_is_bounded_and_forgets_the_oldest() -> None:
    conversations = growing(20)
    size = len(fresh(conversations[-1]))
    kept = Conversations(ChatWire("m", SETTINGS, "max_tokens")._convert, max_bytes=8 * size)
    for episode in range(50):
        for items in conversations:
            assert kept.to_json(f"e{episode}", items) == fresh(items)
    assert 1 <= len(kept._entries) < 8
    assert list(kept._entries)[-1] == "e49"
    assert kept._bytes == sum(entry.size for entry in kept._entries.values()) <= 8 * size


def test_two_conversations_under_one_episode_id_do_not_mix() -> None:
    wire = ChatWire("m", SETTINGS, "max_tokens")
    other = [{"role": "user", "content": str(index)} for index in range(40)]
    for items, length in itertools.product(growing(30), [20, 30, 40]):
        assert wire.conversation("e", items) == fresh(items)
        assert wire.conversation("e", other[:length]) == fresh(other[:length])
