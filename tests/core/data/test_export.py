import sys
from pathlib import Path
from typing import Any

import datasets
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gymrail import Outcome, Rollout, Task
from gymrail.collect.journal import encode
from gymrail.data.export import preference_rows, sft_rows, to_dataset, token_rows, write_jsonl
from gymrail.data.jsonl import read_rows
from gymrail.errors import Failure, InputError
from gymrail.models.model import function_call, message
from gymrail.spec import EnvironmentSpec
from gymrail.task import Item
from gymrail.tokens import TokenError

QUIZ = "quiz"
LOOK_UP = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look something up.",
        "parameters": {
            "type": "object",
            "properties": {
                "words": {"type": "array", "items": {"type": "string"}, "description": "What to look for."},
                "exact": {"type": "boolean", "default": False, "description": "Whether all must match."},
            },
            "required": ["words"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture
def specs(sums: EnvironmentSpec) -> dict[str, EnvironmentSpec]:
    return {QUIZ: EnvironmentSpec(QUIZ, sums.cls)}


def rollout_of(
    *items: Item, reward: float | None = 1.0, prompt: str = "Who?", outcome: Outcome | None = None, **parameters: Any
) -> Rollout:
    task = Task.ask(prompt, system="Be brief.", parameters=parameters or None, answer="A")
    rollout = Rollout(QUIZ, task, "r", reward=reward, conversation=[*task.input_items, *items], prompt_length=2)
    failed = Outcome("failed", Failure("model", "model", "down"))
    rollout.outcome = outcome or (failed if reward is None else Outcome("scored"))
    return rollout


def look_up(call_id: str, arguments: str) -> Item:
    return function_call("look_up", arguments, call_id)


def output(call_id: str, text: str) -> Item:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


def test_a_conversation_with_parallel_calls_and_empty_arguments_becomes_messages_with_objects(
    specs: dict[str, EnvironmentSpec],
) -> None:
    rollout = rollout_of(
        {"type": "reasoning", "id": "rs_0", "summary": [{"type": "summary_text", "text": "Hm."}]},
        look_up("c1", '{"words": ["é", "☃"]}'),
        look_up("c2", ""),
        output("c1", "é ☃"),
        output("c2", "needs words"),
        message("A"),
    )
    (row,) = sft_rows([rollout], specs=specs)
    (tool,) = row["tools"]
    assert tool["function"]["name"] == "look_up"
    assert tool["function"]["parameters"]["properties"] == LOOK_UP["function"]["parameters"]["properties"]
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": {"words": ["é", "☃"]}}},
        {"id": "c2", "type": "function", "function": {"name": "look_up", "arguments": {}}},
    ]
    assert row["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "", "reasoning_content": "Hm.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "name": "look_up", "content": "é ☃"},
        {"role": "tool", "tool_call_id": "c2", "name": "look_up", "content": "needs words"},
        {"role": "assistant", "content": "A"},
    ]
    (without,) = sft_rows([rollout], specs=specs, keep_reasoning=False)
    assert "reasoning_content" not in without["messages"][2]


def test_only_rollouts_that_were_judged_and_good_enough_are_exported(specs: dict[str, EnvironmentSpec]) -> None:
    rollouts = [
        rollout_of(message("good"), reward=1.0),
        rollout_of(message("half"), reward=0.5),
        rollout_of(message("bad"), reward=0.0),
        rollout_of(message("cut"), reward=0.75, outcome=Outcome("truncated", reason="max_steps")),
        rollout_of(message("crashed"), reward=None),
        rollout_of(message("stopped"), reward=None, outcome=Outcome("cancelled")),
        rollout_of(reward=1.0),  # the model never spoke
    ]

    def answers(**options: Any) -> list[str]:
        return [row["messages"][-1]["content"] for row in sft_rows(rollouts, specs=specs, **options)]

    assert answers() == ["good", "half", "bad", "cut"]
    assert answers(min_reward=0.5) == ["good", "half", "cut"]


def test_a_tasks_own_tools_and_instructions_are_exported_as_the_model_saw_them() -> None:
    own = {
        "type": "function",
        "name": "look_up",
        "description": "Own words.",
        "parameters": {"type": "object", "properties": {}},
        "strict": True,
    }
    (row,) = sft_rows([rollout_of(message("A"), tools=[own], instructions="Answer in French.")], specs={})
    assert row["messages"][:2] == [
        {"role": "system", "content": "Answer in French."},
        {"role": "system", "content": "Be brief."},
    ]
    assert row["tools"] == [
        {"type": "function", "function": {key: own[key] for key in ("name", "description", "parameters", "strict")}}
    ]


def test_an_environment_that_is_not_known_is_named(specs: dict[str, EnvironmentSpec]) -> None:
    with pytest.raises(
        InputError, match=r"No environment named 'quiz' was given for its tools\. Did you mean 'quizz'\?"
    ):
        list(sft_rows([rollout_of(message("A"))], specs={"quizz": specs[QUIZ]}))


def test_the_best_and_the_worst_of_each_task_make_a_pair_that_shares_what_they_share(
    specs: dict[str, EnvironmentSpec],
) -> None:
    shared = [look_up("a1", '{"words": ["x"]}'), output("a1", "x")]
    same_with_other_ids = [look_up("b7", '{"words":  ["x"]}'), output("b7", "x")]
    rollouts = [
        rollout_of(*shared, message("wrong"), reward=0.0),
        rollout_of(message("middle"), reward=0.5),
        rollout_of(*same_with_other_ids, message("right"), reward=1.0),
        rollout_of(message("crashed"), reward=None),
        rollout_of(message("alone"), prompt="Another?", reward=1.0),
        rollout_of(message("tie"), prompt="Third?", reward=0.5),
        rollout_of(message("tied"), prompt="Third?", reward=0.5),
    ]
    (row,) = preference_rows(rollouts, specs=specs)
    assert [entry["role"] for entry in row["prompt"]] == ["system", "user", "assistant", "tool"]
    assert row["chosen"] == [{"role": "assistant", "content": "right"}]
    assert row["rejected"] == [{"role": "assistant", "content": "wrong"}]
    assert row["tools"][0]["function"]["name"] == "look_up"
    assert list(preference_rows(rollouts, specs=specs, margin=1.0)) == [row]
    assert list(preference_rows(rollouts, specs=specs, margin=1.01)) == []
    with pytest.raises(InputError, match=r"margin is -1; it must be at least 0"):
        list(preference_rows(rollouts, specs=specs, margin=-1))


def test_both_sides_of_a_pair_begin_with_an_answer_of_the_model(specs: dict[str, EnvironmentSpec]) -> None:
    other_output = [
        rollout_of(look_up("c", "{}"), output("c", "sun"), message("A"), reward=1.0),
        rollout_of(look_up("c", "{}"), output("c", "rain"), message("A"), reward=0.0),
    ]
    one_ends_early = [
        rollout_of(look_up("c", "{}"), output("c", "sun"), reward=0.0),
        rollout_of(look_up("c", "{}"), output("c", "sun"), message("A"), reward=1.0),
    ]
    for rollouts in (other_output, one_ends_early):
        (row,) = preference_rows(rollouts, specs=specs)
        assert [entry["role"] for entry in row["prompt"]] == ["system", "user"]
        assert row["chosen"][0]["role"] == row["rejected"][0]["role"] == "assistant"
        assert row["chosen"] != row["rejected"]


def test_equal_conversations_with_different_rewards_make_no_pair(specs: dict[str, EnvironmentSpec]) -> None:
    assert (
        list(preference_rows([rollout_of(message("A"), reward=1.0), rollout_of(message("A"), reward=0.0)], specs=specs))
        == []
    )


def tokens(item: Item, prompt: list[int], sampled: list[int]) -> Item:
    return {
        **item,
        "prompt_token_ids": prompt,
        "generation_token_ids": sampled,
        "generation_log_probs": [-0.5] * len(sampled),
    }


def test_token_rows_train_on_the_sampled_tokens_and_nothing_else() -> None:
    first = tokens(look_up("c", "{}"), [1, 2, 3], [4, 5])
    rollout = rollout_of(first, output("c", "x"), tokens(message("A"), [1, 2, 3, 4, 5, 6, 7], [8]))
    failed = rollout_of(first, reward=None)
    assert list(token_rows([rollout, failed])) == [
        {"input_ids": [1, 2, 3, 4, 5, 6, 7, 8], "labels": [-100, -100, -100, 4, 5, -100, -100, 8]},
    ]
    assert list(token_rows([rollout], min_reward=1.5)) == []
    dataset = to_dataset(token_rows([rollout]))
    assert dataset[0]["labels"] == [-100, -100, -100, 4, 5, -100, -100, 8]
    with pytest.raises(TokenError, match="carries no token ids"):
        list(token_rows([rollout_of(message("A"))]))


def test_a_rewritten_history_gives_one_row_per_stretch() -> None:
    rollout = rollout_of(tokens(look_up("c", "{}"), [1, 2], [3]), output("c", "x"), tokens(message("A"), [1, 9], [4]))
    assert list(token_rows([rollout])) == [
        {"input_ids": [1, 2, 3], "labels": [-100, -100, 3]},
        {"input_ids": [1, 9, 4], "labels": [-100, -100, 4]},
    ]


def test_a_dataset_keeps_every_calls_own_arguments(specs: dict[str, EnvironmentSpec]) -> None:
    rollouts = [
        rollout_of(
            look_up("c1", '{"words": ["é"]}'), look_up("c2", "{}"), output("c1", "x"), output("c2", "y"), message("A")
        ),
        rollout_of(look_up("c", '{"exact": null, "other": {"deep": [1, "two"]}}'), output("c", "z"), message("B")),
        rollout_of(message("no calls at all")),
    ]
    rows = list(sft_rows(rollouts, specs=specs))
    dataset = to_dataset(rows)
    assert [_without_nulls(row) for row in dataset["messages"]] == [row["messages"] for row in rows]
    assert list(dataset["tools"]) == [row["tools"] for row in rows]
    pair = to_dataset(preference_rows([rollout_of(message("A")), rollout_of(message("B"), reward=0.0)], specs=specs))
    assert set(pair.column_names) == {"prompt", "chosen", "rejected", "tools"}
    assert _without_nulls(pair[0]["chosen"]) == [{"role": "assistant", "content": "A"}]


def _without_nulls(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in entry.items() if value is not None} for entry in messages]


def test_no_rows_make_no_dataset() -> None:
    with pytest.raises(InputError, match="no rollout passed the selection"):
        to_dataset([])


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install -U 'gymrail\[data\]'"):
        to_dataset([{}])


def test_a_written_file_is_what_datasets_loads(
    tmp_path: Path, specs: dict[str, EnvironmentSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    rows = list(
        sft_rows([rollout_of(look_up("c", '{"words": ["☃"]}'), output("c", "x"), message("A"))] * 2, specs=specs)
    )
    assert write_jsonl(rows, tmp_path / "sft.jsonl") == 2
    assert [row for _, row in read_rows(tmp_path / "sft.jsonl")] == rows
    loaded = datasets.load_dataset("json", data_files=str(tmp_path / "sft.jsonl"), split="train")
    assert loaded.num_rows == 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
arguments = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), json_values, max_size=3)


@given(
    turns=st.lists(st.lists(arguments, min_size=1, max_size=3), max_size=4),
    text=st.text(st.characters(codec="utf-8"), max_size=20),
)
def test_a_rollout_survives_journal_and_export_with_every_argument(
    turns: list[list[dict[str, Any]]], text: str
) -> None:
    items: list[Item] = []
    for turn, calls in enumerate(turns):
        items += [look_up(f"c{turn}_{n}", orjson.dumps(value).decode()) for n, value in enumerate(calls)]
        items += [output(f"c{turn}_{n}", f"{text}{n}") for n, _ in enumerate(calls)]
    items.append(message(text))
    again = Rollout.from_row(orjson.loads(encode(rollout_of(*items, tools=[]))))
    (row,) = sft_rows([again])
    spoken = [entry for entry in row["messages"] if entry["role"] == "assistant"]
    assert [[call["function"]["arguments"] for call in entry.get("tool_calls", [])] for entry in spoken] == [*turns, []]
    assert spoken[-1]["content"] == text
    heard = [entry["content"] for entry in row["messages"] if entry["role"] == "tool"]
    assert heard == [f"{text}{n}" for calls in turns for n, _ in enumerate(calls)]
