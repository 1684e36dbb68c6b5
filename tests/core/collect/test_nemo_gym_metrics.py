"""NeMo Gym's rollout rows: read, measured under its names, written back; the numbers are counted here once more."""

import itertools
import math
import statistics
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gymrail import Rollout
from gymrail.collect.metrics import aggregate
from gymrail.collect.nemo_gym_metrics import aggregate_metrics, gym_metrics
from gymrail.collect.task_profile import profile_rows


def choice_row(question: str, answer: str | None, reward: float, **more: Any) -> dict[str, Any]:
    """A row of a multiple choice benchmark, as its resources server answers."""
    text = "I cannot tell." if answer is None else f"\\boxed{{{answer}}}"
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": None}]
    return {
        "responses_create_params": {"input": [{"role": "user", "content": question}], "tools": [], "temperature": None},
        "response": {
            "id": "resp_1", "created_at": 1756093415.0, "error": None, "model": "m", "object": "response",
            "metadata": {}, "temperature": 1.0, "top_p": 1.0, "status": "completed", "truncation": "disabled",
            "output": [
                {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": content}
            ],
            "usage": {
                "input_tokens": 254, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 7,
                "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 261,
            },
        },
        "reward": reward, "expected_answer": "B", "extracted_answer": answer, **more,
    }  # fmt: skip


def office_row(reward: float, **more: Any) -> dict[str, Any]:
    """A row of a tool-use benchmark, with the calls and what they gave."""
    row = choice_row("Book the room.", "done", reward, **more)
    del row["extracted_answer"], row["expected_answer"]
    call = {"type": "function_call", "name": "book", "arguments": '{"room":"4"}', "call_id": "c1", "id": "fc_1",
            "status": "completed"}  # fmt: skip
    output = {"type": "function_call_output", "call_id": "c1", "output": "booked"}
    row["response"]["output"] = [call, output, *row["response"]["output"]]
    row["response"]["billing"] = {"payer": "developer"}
    return row


ROWS = [
    choice_row("Which?", "B", 1.0),
    choice_row("Which?", None, 0.0),
    office_row(1.0),
    office_row(
        0.5, _ng_task_index=3, _ng_rollout_index=1, agent_ref={"type": "responses_api_agents", "name": "office"}
    ),
    {**office_row(0.0), "verifier_metadata": {"ground_truth": [{"name": "book"}]}, "num_calls": 1},
]


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_another_program_is_read_and_written_back_without_loss(row: dict[str, Any]) -> None:
    line = orjson.dumps(row)
    rollout = Rollout.from_row(orjson.loads(line))
    assert orjson.loads(orjson.dumps(rollout.to_row())) == row
    assert rollout.usage.output_tokens == 7
    assert len(rollout.calls) == ("book" in str(row))


def test_a_reward_that_changed_is_written_and_the_rest_stays() -> None:
    rollout = Rollout.from_row(ROWS[2])
    rollout.reward = 0.25
    assert rollout.to_row() == {**ROWS[2], "reward": 0.25}


def test_a_failure_of_another_program_is_counted_and_written_back() -> None:
    row = {key: value for key, value in ROWS[0].items() if key != "reward"} | {"_ng_failure_class": "judge_failed"}
    rollout = Rollout.from_row(row)
    assert rollout.to_row() == row
    assert aggregate([rollout])["overall"]["outcomes"]["failed"] == 1
    assert gym_metrics([rollout]) == {}


def test_rows_without_numbers_are_one_task_where_the_same_was_asked() -> None:
    rows = [choice_row(question, answer, float(answer == "B")) for question in "xy" for answer in ("B", "B", "C", None)]
    found = aggregate(map(Rollout.from_row, rows))["overall"]
    assert (found["rollouts"], found["tasks"]) == (8, 2)
    assert found["reward"]["mean"] == 0.5
    assert found["pass@k"]["2"]["mean"] == pytest.approx(5 / 6)
    assert found["pass^k"]["2"]["mean"] == pytest.approx(1 / 6)
    assert found["majority@k"]["4"]["mean"] == 1.0
    assert found["no_answer_share"] == 0.25


def test_a_profile_of_another_programs_rows_keeps_what_the_rollouts_of_a_task_share() -> None:
    rows = [choice_row("x", answer, float(answer == "B"), difficulty="hard") for answer in ("B", "C")]
    (profiled,) = profile_rows(map(Rollout.from_row, rows))
    assert profiled.pop("_profile")["pass_rate"] == 0.5
    shared = ("responses_create_params", "expected_answer", "difficulty")
    assert profiled == {name: rows[0][name] for name in shared}


grades = st.tuples(st.sampled_from(["A", "B", None]), st.sampled_from([0.0, 1.0]))
graded = st.lists(st.lists(grades, min_size=1, max_size=4), min_size=1, max_size=4)


def _rows(tasks: list[list[tuple[str | None, float]]]) -> list[dict[str, Any]]:
    return [
        choice_row(f"q{index}", answer, reward, _ng_task_index=index, _ng_rollout_index=repeat)
        for index, votes in enumerate(tasks) for repeat, (answer, reward) in enumerate(votes)
    ]  # fmt: skip


@settings(max_examples=60)
@given(graded)
def test_the_numbers_under_nemo_gyms_names_agree_with_counting_by_hand(
    tasks: list[list[tuple[str | None, float]]],
) -> None:
    found = aggregate_metrics(_rows(tasks))["agent_metrics"]
    rewards = [[reward for _, reward in votes] for votes in tasks]
    flat = [reward for mine in rewards for reward in mine]
    assert found["mean/reward"] == pytest.approx(statistics.fmean(flat))
    assert found["std/reward"] == pytest.approx(statistics.stdev(flat) if len(flat) > 1 else 0.0)
    assert found["median/reward"] == statistics.median(flat)
    runs = [[mine[run] for mine in rewards if run < len(mine)] for run in range(max(map(len, rewards)))]
    shares = [100 * statistics.fmean(run) for run in runs]
    for k in range(1, len(runs) + 1):
        able = [mine for mine in rewards if len(mine) >= k]
        hits = [statistics.fmean(any(some) for some in itertools.combinations(mine, k)) for mine in able]
        assert found[f"pass@{k}/accuracy"] == pytest.approx(100 * statistics.fmean(hits))
        firsts = [statistics.fmean(mine[:k]) for mine in rewards]
        assert found[f"pass@1[avg-of-{k}]/accuracy"] == pytest.approx(100 * statistics.fmean(firsts))
        silent = [statistics.fmean(answer is None for answer, _ in votes[:k]) for votes in tasks]
        assert found[f"pass@1[avg-of-{k}]/no_answer"] == pytest.approx(100 * statistics.fmean(silent))
        assert found[f"majority@{k}/accuracy"] == pytest.approx(100 * statistics.fmean(_vote(v[:k]) for v in tasks))
        if k > 1:
            name = f"pass@1[avg-of-{k}]/accuracy"
            assert found[f"{name}/std_dev_across_runs"] == pytest.approx(statistics.stdev(shares[:k]))
            assert found[f"{name}/std_err_across_runs"] == pytest.approx(statistics.stdev(shares[:k]) / math.sqrt(k))


def _vote(votes: list[tuple[str | None, float]]) -> float:
    cast = [vote for vote in votes if vote[0] is not None]
    most = max((cast.count(vote) for vote in cast), default=0)
    winners = {vote for vote in cast if cast.count(vote) == most}
    return sum(score for _, score in winners) / len(winners) if winners else 0.0


@given(graded)
def test_rollouts_and_the_responses_they_were_read_from_have_the_same_metrics(
    tasks: list[list[tuple[str | None, float]]],
) -> None:
    rows = _rows(tasks)
    assert gym_metrics(map(Rollout.from_row, rows)) == aggregate_metrics(rows)["agent_metrics"]


def test_a_score_that_is_not_0_or_1_counts_as_the_best_of_the_first_k() -> None:
    rows = [
        office_row(reward, _ng_task_index=0, _ng_rollout_index=repeat) for repeat, reward in enumerate((0.2, 0.9, 0.5))
    ]
    found = aggregate_metrics(rows[::-1])["agent_metrics"]
    assert [found[f"pass@{k}/accuracy"] for k in (1, 2, 3)] == pytest.approx([20.0, 90.0, 90.0])
    assert not any(name.startswith(("majority", "pass@1/no_answer", "pass@1/input_tokens")) for name in found)


def test_the_rows_of_a_task_without_rewards_and_no_rows_at_all_have_metrics_too() -> None:
    assert gym_metrics([]) == {}
    assert "pass@1/accuracy" not in aggregate_metrics([{"length": 3}])["agent_metrics"]
