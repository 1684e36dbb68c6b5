"""Whatever a rollout holds comes out of an export again: items, arguments, masks, pictures."""

import base64
import tempfile
from pathlib import Path
from typing import Any

import datasets
import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gymrail import Outcome, Rollout, Task
from gymrail.collect.journal import encode
from gymrail.data.export import Sft
from gymrail.data.export.arrow import save_dataset, save_parquet
from gymrail.data.export.compiler import Plan, compile_rows
from gymrail.data.export.sources import open_sources
from gymrail.data.jsonl import write_jsonl
from gymrail.messages import from_message, reasoning_item
from gymrail.models.model import function_call, message
from gymrail.task import Item

words = st.text(st.characters(codec="utf-8"), max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e4, 1e4, width=16) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
ids = st.lists(st.integers(0, 99), max_size=5)
arguments = st.dictionaries(words, json_values, max_size=3)
pictures = st.binary(max_size=8).map(
    lambda content: {
        "type": "input_image",
        "detail": "auto",
        "image_url": "data:image/png;base64," + base64.b64encode(content).decode(),
    }
)
outputs = words | st.lists(
    pictures | words.map(lambda text: {"type": "input_text", "text": text}), min_size=1, max_size=2
)


@st.composite
def turns(draw: st.DrawFn) -> list[list[Item]]:
    """What the model said, turn by turn, and what it heard: reasoning, words, parallel calls, pictures."""
    made: list[list[Item]] = []
    for number in range(draw(st.integers(1, 3))):
        turn: list[Item] = []
        if draw(st.booleans()):
            turn.append(reasoning_item(draw(words.filter(bool))))
        calls = draw(st.lists(arguments, max_size=3))
        text = draw(words) if calls or not turn else draw(words.filter(bool))
        if text or not calls:
            turn.append(message(text))
        for place, value in enumerate(calls):
            turn.append(function_call("tool", orjson.dumps(value).decode(), f"c{number}_{place}"))
        for place, _ in enumerate(calls):
            heard = {"type": "function_call_output", "call_id": f"c{number}_{place}", "output": draw(outputs)}
            turn.append(heard)
        made.append(turn)
        if not calls:
            made.append([{"role": "user", "content": draw(outputs)}])
    return made


def exported(rollout: Rollout, kind: Sft) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rollouts.jsonl"
        file.write_bytes(encode(rollout))
        parts = compile_rows(Plan(open_sources([file]), kind), Path(folder))
        content = b"".join(part["train"] for part, _ in parts)
    return [orjson.loads(line) for line in content.splitlines()]


def rollout_of(items: list[Item], prompt: str = "Go.") -> Rollout:
    task = Task.ask(prompt, system="Be brief.", parameters={"tools": []})
    made = Rollout("quiz", task, "r", reward=1.0, conversation=[*task.input_items, *items], prompt_length=2)
    made.outcome = Outcome("scored")
    return made


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
@given(turns=turns(), prompt=words)
def test_messages_taken_apart_are_the_items_again(turns: list[list[Item]], prompt: str) -> None:
    items = [item for turn in turns for item in turn]
    (row,) = exported(rollout_of(items, prompt), Sft())
    assert row["messages"][:2] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}]
    assert _parsed(row["messages"][2:]) == [_plain(item) for item in items]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=15)
@given(turns=turns(), text=words | json_values.map(lambda value: orjson.dumps(value).decode()))
def test_saved_datasets_and_parquet_hold_the_same_messages_and_pictures(turns: list[list[Item]], text: str) -> None:
    items = [item for turn in turns for item in turn]
    made = exported(rollout_of(items, prompt=text), Sft())
    for row in _through_arrow(made):
        assert _rounded(_with_pictures(row)) == _rounded(made[0]["messages"])
        assert row["tools"] == made[0]["tools"]
        assert row["lineage"] == made[0]["lineage"]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=25)
@given(calls=st.lists(st.tuples(ids, ids.filter(bool)), min_size=1, max_size=4))
def test_token_rows_train_on_exactly_the_sampled_tokens(calls: list[tuple[list[int], list[int]]]) -> None:
    items: list[Item] = []
    context: list[int] = [7]
    mask: list[int] = [0]
    for between, sampled in calls:
        context, mask = context + between, mask + [0] * len(between)
        tokens = {
            "prompt_token_ids": list(context),
            "generation_token_ids": sampled,
            "generation_log_probs": [-1.0] * len(sampled),
        }
        items.append({**message("said"), **tokens})
        context, mask = context + sampled, mask + [1] * len(sampled)
    (row,) = exported(rollout_of(items), Sft(tokens=True))
    assert row["input_ids"] == context
    assert row["labels"] == [token if kept else -100 for token, kept in zip(context, mask, strict=True)]
    assert _through_arrow([row]) == [row, row]


def _through_arrow(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The one row as a saved dataset gives it back, and as Parquet does; pictures as their bytes."""
    with tempfile.TemporaryDirectory() as folder:
        rows, saved = Path(folder) / "rows.jsonl", Path(folder) / "saved"
        write_jsonl(made, rows)
        save_dataset({"train": rows}, saved)
        save_parquet({"train": rows})
        kept: Any = datasets.load_from_disk(str(saved))
        found: list[Any] = [kept["train"], datasets.Dataset.from_parquet(f"{folder}/rows.parquet", cache_dir=folder)]
        undecoded = datasets.List(datasets.Image(decode=False))
        found = [one.cast_column("images", undecoded) if "images" in one.column_names else one for one in found]
        return [row for one in found for row in one]


def _parsed(messages: list[dict[str, Any]]) -> list[Any]:
    """The messages as plain items again."""
    items: list[Any] = []
    for entry in messages:
        if entry["role"] == "assistant":
            items += map(_plain, from_message(entry))
        elif entry["role"] == "tool":
            items.append(("heard", entry["tool_call_id"], _parts(entry["content"])))
        else:
            items.append((entry["role"], _parts(entry["content"])))
    return items


def _plain(item: Item) -> Any:
    kind = item.get("type")
    if kind == "reasoning":
        return ("thought", item["summary"][0]["text"])
    if kind == "function_call":
        return ("called", item["call_id"], item["name"], orjson.loads(item["arguments"]))
    if kind == "function_call_output":
        return ("heard", item["call_id"], _parts(item["output"]))
    if item.get("role") == "assistant":
        return ("said", item["content"][0]["text"])
    return (item["role"], _parts(item["content"]))


def _parts(content: Any) -> Any:
    """Text and pictures; texts side by side are one."""
    if isinstance(content, str):
        return content
    if all("image_url" not in part for part in content):
        return "".join(part["text"] for part in content)
    pictures = [part.get("image_url") for part in content]
    return [
        (picture["url"] if isinstance(picture, dict) else picture) or part["text"]
        for part, picture in zip(content, pictures, strict=True)
    ]


def _with_pictures(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages with their pictures where they stood: the user's are in the column `images`."""
    pictures = iter(row.get("images") or ())
    messages = _without_nulls(row["messages"])
    for entry in messages:
        if isinstance(entry.get("content"), list):
            entry["content"] = [
                part if part["type"] != "image" else _as_url(part.get("image") or _url_of(next(pictures)["bytes"]))
                for part in entry["content"]
            ]
    assert not list(pictures)
    return messages


def _url_of(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _as_url(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, "detail": "auto"}}


def _without_nulls(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in entry.items() if value is not None} for entry in messages]


def _rounded(value: Any) -> Any:
    """Floats to the digits that `datasets` reads from JSON columns."""
    if isinstance(value, float):
        return round(value, 9)
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list) else value
