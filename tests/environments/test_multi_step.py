"""multi_step: the last list counts; malformed arguments are a 0 with a reason."""

import asyncio
from typing import Any

import pytest

from gymrail import GymrailError, Rollout, call
from gymrail.environment import Turn
from gymrail.models.model import ModelRequest, ModelResponse, function_call, message
from gymrail.models.scripted import ScriptedModel, turns_spoken
from gymrail.play import play
from gymrail.registry import find
from gymrail_environments.multi_step.environment import MultiStepTask, value_of

SPEC = find("multi_step")
TASK = MultiStepTask.ask("Values of: ab, c.", expected_synonyms=["ab", "c"], expected_synonym_values=[195, 99])


def played(model: Any) -> Rollout:
    rollout = asyncio.run(play(SPEC, TASK, model))
    assert rollout.failure is None
    return rollout


def handed_in(*lists: list[Any]) -> Rollout:
    turns: list[Turn] = [call("extract_synonym_values", synonym_values=values) for values in lists]
    return played(ScriptedModel([*turns, "Done."]))


def test_a_word_is_worth_the_sum_of_its_code_points() -> None:
    assert (value_of("ab"), value_of("é"), value_of("")) == (97 + 98, 233, 0)


def test_the_expected_list_earns_one() -> None:
    rollout = handed_in([195, 99])
    assert (rollout.reward, rollout.metrics["accuracy"], rollout.metrics["set_overlap"]) == (1.0, True, 1.0)


@pytest.mark.parametrize(
    ("values", "overlap"),
    [([99, 195], 1.0), ([195], 0.5), ([195, 98], 0.5), ([1], 0.0), ([], 0.0), ([195, 99, 99], 1.0)],
)
def test_another_list_earns_nothing_and_reports_its_overlap(values: list[int], overlap: float) -> None:
    rollout = handed_in(values)
    assert (rollout.reward, rollout.metrics["accuracy"], rollout.metrics["set_overlap"]) == (0.0, False, overlap)


def test_the_last_list_counts_not_the_best() -> None:
    assert handed_in([195, 99], [1]).reward == 0.0
    assert handed_in([1], [195, 99]).reward == 1.0


def test_numbers_as_text_count_as_the_tool_takes_them() -> None:
    assert handed_in(["195", "99"]).reward == 1.0


@pytest.mark.parametrize(
    "arguments", ['{"synonym_values": "195, 99"}', '{"synonym_values": [195, ', "[195, 99]", "null", ""]
)
def test_malformed_arguments_are_a_zero_with_a_reason(arguments: str) -> None:
    class Malformed:
        async def respond(self, request: ModelRequest) -> ModelResponse:
            if turns_spoken(request.input):
                return ModelResponse([message("Done.")])
            return ModelResponse([function_call("extract_synonym_values", arguments, "call_0")])

    rollout = played(Malformed())
    assert rollout.outcome is not None
    assert (rollout.outcome.status, rollout.reward, rollout.metrics["set_overlap"]) == ("scored", 0.0, 0.0)
    assert rollout.verdict_reason is not None
    assert rollout.verdict_reason.startswith("the last extract_synonym_values call was refused: Invalid arguments")


def test_a_malformed_last_call_is_not_made_good_by_an_earlier_one() -> None:
    turns = [call("extract_synonym_values", synonym_values=[195, 99]), call("extract_synonym_values", values=[195, 99])]
    assert played(ScriptedModel([*turns, "Done."])).reward == 0.0


def test_saying_the_values_without_handing_them_in_earns_nothing() -> None:
    rollout = played(ScriptedModel(["195, 99"]))
    assert (rollout.reward, rollout.verdict_reason) == (0.0, "extract_synonym_values was never called")


def test_a_row_whose_lists_do_not_match_is_refused_with_the_place() -> None:
    row = {"responses_create_params": {"input": "x"}, "expected_synonyms": ["a"], "expected_synonym_values": [1, 2]}
    with pytest.raises(GymrailError, match=r"rows\.jsonl, line 3: .*1 synonyms and 2 values"):
        MultiStepTask.from_row(row, "rows.jsonl, line 3")
