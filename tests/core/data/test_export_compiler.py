"""Exports of runs: what is chosen, what is written, what is said where nothing can be."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from gymrail import Outcome, Rollout, Task
from gymrail.data.export import Dpo, Kto, Prm, Rft, Selection, Sft, export
from gymrail.data.profiled import read_profiled
from gymrail.errors import InputError
from gymrail.messages import reasoning_item
from gymrail.models.model import function_call, message
from gymrail.task import Item
from gymrail.tokens import TokenError
from tests.core.data.recorded import Run, looked_up, rollout, rows_of, said, write_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Write rollouts as a run."""

    def write(*rollouts: Rollout, name: str = "run", compress: bool = False) -> Path:
        return write_run(tmp_path / name, *rollouts, compress=compress)

    return write


def answers(summary: dict[str, Any]) -> list[str]:
    return [row["messages"][-1]["content"] for row in rows_of(summary["output"])]


def test_an_export_has_rows_with_their_lineage_a_card_and_a_summary(run: Run, tmp_path: Path) -> None:
    source = run(looked_up("x", "X", "good"), said("bad", task="B?", reward=0.0), said("down", task="C?", reward=None))
    summary = export([source], tmp_path / "out", Sft(), selection=Selection(min_reward=0.5))
    (row,) = rows_of(tmp_path / "out")
    assert [entry["role"] for entry in row["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert row["messages"][1]["tool_calls"][0]["function"] == {"name": "look_up", "arguments": {"word": "x"}}
    assert row["tools"][0]["function"]["name"] == "look_up"
    lineage = row["lineage"]
    assert (lineage["run"], lineage["rollout"], lineage["environment"]) == ("run", "Who?0quiz", "quiz")
    assert lineage["reward"] == 1.0
    assert (summary["rows"], summary["rollouts_read"], summary["failed_beside_them"]) == (1, 2, 1)
    assert summary["removed"] == {"reward below 0.5": 1}
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    for part in ("| run | 2 |", "| reward below 0.5 | 1 |", "failed, in failures.jsonl | 1 |", "path: train.jsonl"):
        assert part in card
    assert orjson.loads((tmp_path / "out/export.json").read_bytes())["rows"] == 1
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_filters_that_ask_one_rollout_by_itself(run: Run, tmp_path: Path) -> None:
    source = run(
        said("cut", outcome=Outcome("truncated", reason="max_steps"), task="1"),
        said("top", reward=2.0, task="2"),
        said("slow", steps=9, task="3"),
        looked_up("w", "W", "long", task="4"),
        said("other", environment="other", task="5"),
        rollout(task="6"),
        said("plain", task="7"),
    )
    clumsy = looked_up("w", "no", "clumsy", task="8")
    clumsy.calls = []
    for number, (kept, options) in enumerate(
        [
            ("top slow long other plain", {"outcomes": ("scored",)}),
            ("cut slow long other plain", {"max_reward": 1.5}),
            ("cut top long other plain", {"max_steps": 5}),
            ("slow", {"min_steps": 5}),
            ("cut top slow other plain", {"max_messages": 3}),
            ("other", {"environments": ("other",)}),
        ]
    ):
        summary = export([source], tmp_path / f"out{number}", Sft(), selection=Selection(**options))
        assert answers(summary) == kept.split(), options
        assert sum(summary["removed"].values()) + summary["rows"] == 7


def test_rollouts_with_a_tool_error_can_be_left_out(run: Run, tmp_path: Path) -> None:
    from gymrail.rollout import ToolCall

    clumsy = looked_up("w", "no such word", "clumsy", task="8", calls=[ToolCall("c", "look_up", "{}", is_error=True)])
    source = run(clumsy, said("clean"))
    assert answers(export([source], tmp_path / "out", Sft(), selection=Selection(no_tool_errors=True))) == ["clean"]


def test_filters_that_ask_a_rollout_beside_others(run: Run, tmp_path: Path) -> None:
    rewards = {"A?": [0.1, 0.9, 0.5, 0.9], "B?": [0.2, 0.4]}
    source = run(
        *(
            said(f"{task}{reward}{repeat}" + "x" * (9 - repeat), task=task, reward=reward, repeat=repeat)
            for task, all_of_it in rewards.items()
            for repeat, reward in enumerate(all_of_it)
        ),
        said("alone", task="C?", environment="other"),
    )

    def kept(**options: Any) -> list[str]:
        summary = export([source], tmp_path / "out", Sft(), selection=Selection(**options), overwrite=True)
        assert summary["rows"] + sum(summary["removed"].values()) == 7
        return [answer.rstrip("x") for answer in answers(summary)]

    assert kept(best_of=1) == ["A?0.93", "B?0.41", "alone"]  # of equally good ones the shorter
    assert kept(top_share=0.5) == ["A?0.91", "A?0.93", "B?0.41", "alone"]
    assert len(kept(max_per_task=2)) == 5
    assert kept(max_per_task=2) == kept(max_per_task=2)
    assert len({tuple(kept(max_per_task=1, seed=seed)) for seed in range(12)}) > 1
    assert len(kept(balance="environment")) == 2
    assert len(kept(balance="task")) == 3
    assert kept(best_of=1, balance="environment")[1:] == ["alone"]


def test_duplicates_are_left_out_exactly_or_by_likeness(run: Run, tmp_path: Path) -> None:
    words = [f"word{number}" for number in range(200)]
    text, alike, other = " ".join(words), " ".join([*words[:195], "and", *words[196:]]), " ".join(reversed(words))
    same = looked_up("x", "X", text, repeat=1)
    source = run(looked_up("x", "X", text), same, looked_up("x", "X", alike), looked_up("x", "X", other, task="B?"))

    def kept(**options: Any) -> list[str]:
        return answers(export([source], tmp_path / "out", Sft(), selection=Selection(**options), overwrite=True))

    assert kept(dedup="exact") == [text, alike, other]
    assert kept(dedup="near") == [text, other]
    assert kept(dedup="near", near_threshold=1.0) == [text, alike, other]


def test_rows_per_step_have_everything_before_the_answer_as_prompt(run: Run, tmp_path: Path) -> None:
    source = run(looked_up("x", "X", "done"))
    first, second = rows_of(export([source], tmp_path / "out", Sft(per="step"))["output"])
    assert [entry["role"] for entry in first["prompt"]] == ["user"]
    assert first["completion"][0]["tool_calls"][0]["function"]["arguments"] == {"word": "x"}
    assert [entry["role"] for entry in second["prompt"]] == ["user", "assistant", "tool"]
    assert second["completion"] == [{"role": "assistant", "content": "done"}]
    assert [row["lineage"]["step"] for row in (first, second)] == [0, 1]


def sampled(item: Item, prompt: list[int], ids: list[int]) -> Item:
    tokens = {"prompt_token_ids": prompt, "generation_token_ids": ids, "generation_log_probs": [-0.5] * len(ids)}
    return {**item, **tokens}


def test_token_rows_are_as_sampled_and_can_be_cut_by_length(run: Run, tmp_path: Path) -> None:
    source = run(
        rollout(sampled(message("short"), [1, 2], [3])),
        rollout(sampled(message("long"), [1, 2], [3, 4, 5]), task="B?"),
    )
    rows = rows_of(export([source], tmp_path / "all", Sft(tokens=True))["output"])
    assert [(row["input_ids"], row["labels"]) for row in rows] == [
        ([1, 2, 3], [-100, -100, 3]),
        ([1, 2, 3, 4, 5], [-100, -100, 3, 4, 5]),
    ]
    summary = export([source], tmp_path / "cut", Sft(tokens=True), selection=Selection(max_tokens=4))
    assert summary["removed"] == {"more than 4 tokens": 1}


def test_token_rows_per_step_are_the_model_calls_one_by_one(run: Run, tmp_path: Path) -> None:
    call = sampled(function_call("look_up", "{}", "c"), [1, 2], [3, 4])
    heard = {"type": "function_call_output", "call_id": "c", "output": "x"}
    source = run(rollout(call, heard, sampled(message("A"), [1, 2, 3, 4, 9], [5])))
    rows = rows_of(export([source], tmp_path / "out", Sft(per="step", tokens=True))["output"])
    assert [(row["input_ids"], row["labels"], row["lineage"]["step"]) for row in rows] == [
        ([1, 2, 3, 4], [-100, -100, 3, 4], 0),
        ([1, 2, 3, 4, 9, 5], [-100] * 5 + [5], 1),
    ]


def test_a_rollout_that_only_thought_is_no_row_once_its_reasoning_is_dropped(run: Run, tmp_path: Path) -> None:
    source = run(rollout(reasoning_item("Hm.")), said("A", task="B?"))
    assert export([source], tmp_path / "kept", Sft())["rows"] == 2
    for kind in (Sft(), Sft(per="step"), Kto(), Prm()):
        summary = export([source], tmp_path / "out", kind, keep_reasoning=False, overwrite=True)
        assert summary["rows"] == 1, kind
        assert sum(summary["removed"].values()) == 1, kind


def test_rollouts_without_tokens_are_named_where_tokens_are_asked_for(run: Run, tmp_path: Path) -> None:
    source = run(said("words alone"))
    with pytest.raises(TokenError, match=r"line 1: rollout Who\?0quiz carries no token ids"):
        export([source], tmp_path / "out", Sft(tokens=True))
    with pytest.raises(InputError, match=r"carries no token ids, so max_tokens=4 cannot be asked"):
        export([source], tmp_path / "out", Sft(), selection=Selection(max_tokens=4))


@pytest.mark.parametrize(
    ("kind", "pairs"),
    [
        (Dpo(), [("1.0", "0.0")]),
        (
            Dpo(rule="all"),
            [("1.0", "0.0"), ("0.6", "0.0"), ("1.0", "0.4"), ("1.0", "0.6"), ("0.4", "0.0"), ("0.6", "0.4")],
        ),
        (Dpo(rule="all", margin=0.5), [("1.0", "0.0"), ("0.6", "0.0"), ("1.0", "0.4")]),
        (Dpo(rule="all", max_pairs=1), [("1.0", "0.0")]),
        (Dpo(rule="threshold", threshold=0.5), [("1.0", "0.0"), ("0.6", "0.4")]),
    ],
)  # fmt: skip
def test_rules_say_which_rollouts_of_a_task_make_pairs(run: Run, tmp_path: Path, kind: Dpo, pairs: Any) -> None:
    source = run(
        *(said(f"{reward}", reward=reward, repeat=repeat) for repeat, reward in enumerate([0.4, 1.0, 0.0, 0.6])),
        said("crashed", reward=None, repeat=9),
        said("alone", task="B?"),
    )
    summary = export([source], tmp_path / "out", kind)
    rows = rows_of(summary["output"])
    made = [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows]
    assert sorted(made, key=lambda p: (float(p[1]) - float(p[0]), p)) == sorted(
        pairs, key=lambda p: (float(p[1]) - float(p[0]), p)
    )
    assert summary["removed"]["tasks with one rollout"] == 1
    for row in rows:
        assert row["prompt"] == [{"role": "user", "content": "Who?"}]
        assert row["lineage"]["chosen"]["reward"] > row["lineage"]["rejected"]["reward"]


def test_pairs_at_steps_share_their_prefix_and_are_worth_what_came_of_them(run: Run, tmp_path: Path) -> None:
    source = run(
        looked_up("x", "X", "right", repeat=0, reward=1.0),
        looked_up("x", "X", "wrong", repeat=1, reward=0.0),
        looked_up("y", "Y", "worse", repeat=2, reward=0.0),
    )
    rows = rows_of(export([source], tmp_path / "out", Dpo(rule="step", with_margin=True))["output"])
    deep, early = rows
    assert [entry["role"] for entry in deep["prompt"]] == ["user", "assistant", "tool"]
    assert (deep["chosen"][0]["content"], deep["rejected"][0]["content"], deep["margin"]) == ("right", "wrong", 1.0)
    calls = [early[side][0]["tool_calls"][0]["function"]["arguments"]["word"] for side in ("chosen", "rejected")]
    assert (calls, early["margin"], len(early["prompt"])) == (["x", "y"], 0.5, 1)


def test_pairs_can_be_held_to_like_lengths_and_ties_go_to_the_shorter(run: Run, tmp_path: Path) -> None:
    source = run(
        said("a" * 30, repeat=0), said("b" * 10, repeat=1, reward=0.0), said("c", task="B?"), said("dd", task="B?")
    )
    (row,) = rows_of(export([source], tmp_path / "a", Dpo(ties="shorter", max_length_ratio=2.5))["output"])
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("c", "dd")
    summary = export([source], tmp_path / "b", Dpo())
    assert summary["removed"] == {"tasks whose rollouts all earned the same": 1}


def test_a_call_that_no_template_can_write_as_it_was_sampled_is_on_neither_side(run: Run, tmp_path: Path) -> None:
    def called(arguments: str, repeat: int, reward: float) -> Rollout:
        return rollout(function_call("look_up", arguments, f"c{repeat}"), repeat=repeat, reward=reward)

    source = run(
        called('{"word": "x"}', 0, 1.0),
        called(', "word": ', 1, 0.0),
        called('"x"', 2, 0.0),
        called('{"word": 1}', 3, 0.5),
    )
    summary = export([source], tmp_path / "out", Dpo())
    (row,) = rows_of(summary["output"])
    sides = [row[side][0]["tool_calls"][0]["function"]["arguments"] for side in ("chosen", "rejected")]
    assert sides == [{"word": "x"}, {"word": 1}]
    assert summary["removed"] == {"rollouts whose tool calls are not JSON": 2}
    kept = rows_of(export([source], tmp_path / "kept", Dpo(malformed_calls="keep"))["output"])
    assert kept[0]["rejected"][0]["tool_calls"][0]["function"]["arguments"] == ', "word": '


def test_a_pair_is_found_across_runs_and_where_a_tasks_rollouts_lie_apart(run: Run, tmp_path: Path) -> None:
    tasks = [f"Task {number}?" for number in range(50)]
    first = run(*(said("good", task=task) for task in tasks), name="one")
    second = run(*(said("bad", task=task, reward=0.0, repeat=1) for task in reversed(tasks)), name="two", compress=True)
    rows = rows_of(export([first, second], tmp_path / "out", Dpo())["output"])
    assert [row["prompt"][0]["content"] for row in rows] == tasks
    assert {(r["lineage"]["chosen"]["run"], r["lineage"]["rejected"]["run"]) for r in rows} == {("one", "two")}


def test_several_processes_write_the_same_bytes_as_one(run: Run, tmp_path: Path) -> None:
    source = run(*(said(f"{n % 7}" * 20, task=f"{n // 4}", reward=n % 5 / 4, repeat=n % 4) for n in range(400)))
    for kind, selection in ((Sft(), Selection()), (Sft(), Selection(best_of=2, dedup="near")), (Dpo(rule="all"), None)):
        made = [
            Path(
                export(
                    [source], tmp_path / f"{count}.jsonl", kind, selection=selection, processes=count, overwrite=True
                )["output"]
            ).read_bytes()
            for count in (1, 2)
        ]
        assert made[0] == made[1]
        assert made[0].count(b"\n") > 50


def test_kto_rows_are_labelled_and_their_weights_balance(run: Run, tmp_path: Path) -> None:
    source = run(looked_up("x", "X", "good"), *(said(f"bad{n}", task=f"{n}", reward=0.2) for n in range(3)))
    summary = export([source], tmp_path / "out", Kto())
    rows = rows_of(summary["output"])
    assert [row["label"] for row in rows] == [True, False, False, False]
    assert rows[0]["completion"] == [{"role": "assistant", "content": "good"}]
    assert len(rows[0]["prompt"]) == 3
    assert summary["labels"] == {"desirable": 1, "undesirable": 3}
    assert summary["weights"] == {"desirable_weight": 3.0, "undesirable_weight": 1.0}
    whole = rows_of(export([source], tmp_path / "whole", Kto(completion="rest"))["output"])
    assert [entry["role"] for entry in whole[0]["completion"]] == ["assistant", "tool", "assistant"]


def test_prm_labels_a_step_by_what_became_of_rollouts_that_share_it(run: Run, tmp_path: Path) -> None:
    source = run(
        looked_up("x", "X", "right", repeat=0),
        looked_up("x", "X", "wrong", repeat=1, reward=0.0),
        looked_up("y", "Y", "wrong", repeat=2, reward=0.0),
    )
    rows = rows_of(export([source], tmp_path / "out", Prm())["output"])
    assert [row["labels"] for row in rows] == [[True, True], [True, False], [False, False]]
    assert [row["values"] for row in rows] == [[0.5, 1.0], [0.5, 0.0], [0.0, 0.0]]
    assert all(len(row["completions"]) == len(row["labels"]) for row in rows)
    assert '"word":"x"' in rows[0]["completions"][0]
    assert rows[0]["completions"][1].endswith("assistant: right")
    assert "X" in rows[0]["completions"][1]
    known = rows_of(export([source], tmp_path / "known", Prm(min_siblings=2))["output"])
    assert [row["labels"] for row in known] == [[True], [True]]


def test_prm_takes_step_rewards_where_each_step_has_one(run: Run, tmp_path: Path) -> None:
    source = run(looked_up("x", "X", "right", step_rewards=[0.0, 1.0]), said("none", task="B?"))
    summary = export([source], tmp_path / "out", Prm(labels="rewards"))
    assert [row["labels"] for row in rows_of(summary["output"])] == [[False, True]]
    assert summary["removed"]["rollouts without a step that has a label"] == 1


def test_rft_rows_are_tasks_again_that_recipes_read(run: Run, tmp_path: Path) -> None:
    source = run(
        *(said("a", task="Mixed?", reward=reward, repeat=n) for n, reward in enumerate([1.0, 0.0, 0.0, 1.0])),
        *(said("b", task="Solved?", repeat=n) for n in range(2)),
        *(said("c", task="Never?", reward=0.0, repeat=n) for n in range(2)),
        said("d", task="Once?"),
    )
    summary = export([source], tmp_path / "out", Rft())
    (task,) = read_profiled(tmp_path / "out/train.jsonl", Task, "quiz", (0.1, 0.9))
    assert task.task.responses_create_params["input"] == "Mixed?"
    (row,) = rows_of(summary["output"])
    assert row["_profile"]["pass_rate"] == 0.5
    assert len(row["_lineage"]["rollouts"]) == 4
    assert set(row) == {"responses_create_params", "_profile", "_lineage"}
    assert task.task.id == row["_lineage"]["task"]
    assert summary["removed"] == {
        "tasks that pass at 1 or more often": 1,
        "tasks that pass at 0 or less often": 1,
        "tasks with fewer than 2 rollouts": 1,
    }


def test_an_empty_selection_says_which_filter_removed_how_many(run: Run, tmp_path: Path) -> None:
    source = run(said("a", reward=0.2), said("b", task="B?", reward=0.4), said("c", task="C?", steps=4))
    with pytest.raises(InputError) as caught:
        export([source], tmp_path / "out", Sft(), selection=Selection(min_reward=0.5, max_steps=3))
    assert str(caught.value) == (
        f"None of 3 rollouts in '{source}' makes a row of sft. Removed by: reward below 0.5: 2; more than 3 steps: 1."
    )
    with pytest.raises(InputError, match=r"Removed by: tasks with one rollout: 3\."):
        export([source], tmp_path / "out", Dpo())
    with pytest.raises(InputError, match=r"tasks whose rollouts all earned the same: 1"):
        export([run(said("a"), said("b"), name="even")], tmp_path / "out", Dpo())
    with pytest.raises(InputError, match=r"There is no judged rollout in .* 1 failed"):
        export([run(said("a", reward=None), name="dead")], tmp_path / "out", Sft())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "said_of_it"),
    [
        ("{oops", "line 2: not valid JSON"),
        ("[1]", "line 2: a row must be a JSON object"),
        ('{"reward": 1}', "line 2: field 'responses_create_params' must be an object, this is None"),
        ('{"responses_create_params": {}, "reward": 1}', "line 2: field 'response' must be an object, this is None"),
        (
            '{"responses_create_params": {}, "reward": "high", "response": {}}',
            "line 2: field 'reward' must be a number, this is 'high'",
        ),
        (
            '{"responses_create_params": {"input": "x", "tools": []}, "reward": 1, '
            '"response": {"output": [{"type": "function_call"}]}}',
            "line 2: an item of the conversation lacks a field",
        ),
        (
            '{"responses_create_params": {"input": "x", "tools": []}, "reward": 1, '
            '"response": {"output": [{"role": "assistant", "content": "a"}, {"type": "web_search"}]}}',
            "line 2: An item of type 'web_search'",
        ),
    ],
)
def test_a_bad_row_is_named_with_its_file_and_line(run: Run, tmp_path: Path, line: str, said_of_it: str) -> None:
    file = tmp_path / "rollouts.jsonl"
    file.write_bytes((run(said("a")) / "rollouts.jsonl").read_bytes() + line.encode() + b"\n")
    for kind in (Sft(), Kto()):
        with pytest.raises(InputError) as caught:
            export([file], tmp_path / "out", kind)
        assert f"{file}, {said_of_it}" in str(caught.value)


def test_a_last_line_that_is_cut_off_is_left_out(run: Run, tmp_path: Path) -> None:
    whole = (run(said("a"), said("b", task="B?")) / "rollouts.jsonl").read_bytes()
    file = tmp_path / "torn.jsonl"
    for end, count in ((-40, 1), (-1, 2)):
        file.write_bytes(whole[:end])
        assert export([file], tmp_path / f"{count}.jsonl", Sft())["rows"] == count


def test_runs_that_are_not_there_or_named_twice_are_refused(run: Run, tmp_path: Path) -> None:
    source = run(said("a"))
    with pytest.raises(InputError, match="'nowhere' holds no run"):
        export(["nowhere"], tmp_path / "out", Sft())
    with pytest.raises(InputError, match="is named twice"):
        export([source, os.path.relpath(source)], tmp_path / "out", Sft())
    with pytest.raises(InputError, match="No run is named"):
        export([], tmp_path / "out", Sft())


def test_a_row_without_tools_of_an_unknown_environment_is_named(run: Run, tmp_path: Path) -> None:
    source = run(said("a", tools=None, environment="no_such_environment"))
    with pytest.raises(InputError, match=r"line 1: the row lists no tools, and its environment 'no_such_environment'"):
        export([source], tmp_path / "out", Sft())


@pytest.mark.parametrize(
    ("make", "said_of_it"),
    [
        (lambda: Selection(balance="enviroment"), "balance is 'enviroment'. Did you mean 'environment'?"),  # pyright: ignore[reportArgumentType]
        (lambda: Selection(outcomes=("failed",)), "outcomes is 'failed'. Allowed: scored, truncated."),
        (lambda: Selection(min_reward=1, max_reward=0), "nothing lies between them"),
        (lambda: Selection(top_share=1.5), "top_share is 1.5; it must be above 0 and at most 1."),
        (lambda: Selection(best_of=0), "best_of is 0; it must be at least 1."),
        (lambda: Dpo(rule="steps"), "rule is 'steps'. Did you mean 'step'?"),  # pyright: ignore[reportArgumentType]
        (lambda: Dpo(ties="shorter", margin=0.5), "it goes with margin=0"),
        (lambda: Dpo(margin=-1), "margin is -1; it must be at least 0."),
        (lambda: Dpo(threshold=0.9), "rule is 'best-worst'; it goes with rule='threshold'."),
        (lambda: Prm(labels="rewards", min_siblings=2), "it goes with labels='siblings'."),
        (lambda: Selection(dedup="exact", near_threshold=0.5), "dedup is 'exact'; it goes with dedup='near'."),
        (lambda: Prm(labels="reward"), "labels is 'reward'. Did you mean 'rewards'?"),  # pyright: ignore[reportArgumentType]
        (lambda: Rft(min_pass_rate=0.5, max_pass_rate=0.5), "the lower one first"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(make: Callable[[], Any], said_of_it: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert said_of_it in str(caught.value)
