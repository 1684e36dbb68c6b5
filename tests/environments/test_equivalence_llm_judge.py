"""equivalence_llm_judge: what the judge is shown, and what each verdict pays."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from gymrail import Rollout
from gymrail.errors import InputError
from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from tests.core.models.endpoint import Endpoint, Received, chat, error
from tests.core.verifiers.judges import DIFFERENT, EQUAL

ROW = {
    "responses_create_params": {"input": [{"role": "user", "content": "When is noon? Use \\boxed{}."}]},
    "expected_answer": "12:00",
    "template_metadata": {"output_regex": r"\\boxed\{(.*?)\}"},
}


class Seen:
    """A judge's endpoint that knows what is equal, and keeps what it was shown."""

    def __init__(self, *equal: set[str], only_in_first: bool = False) -> None:
        self.equal = [*equal, {"12:00"}]
        self.only_in_first = only_in_first
        self.pairs: list[tuple[str, str]] = []
        self.questions: set[str] = set()

    def __call__(self, received: Received) -> Any:
        texts = re.findall(r"<text-[0-9a-f]+>\n(.*?)\n</text-", received.body["messages"][1]["content"], re.DOTALL)
        self.questions.add(texts[0])
        self.pairs.append((texts[1], texts[2]))
        if self.only_in_first and texts[1] != "12:00":
            return chat(DIFFERENT)
        return chat(EQUAL if any({texts[1], texts[2]} <= group for group in self.equal) else DIFFERENT)


def judged(script: Any, said: str, row: dict[str, Any] = ROW, **config: Any) -> Rollout:
    async def main() -> Rollout:
        async with Endpoint(script) as endpoint:
            judge = {"model": endpoint.url, "model_name": "m", "max_retries": 0, "retries": 1}
            spec = find("equivalence_llm_judge").with_config({"judge": judge, **config})
            try:
                return await play(spec, spec.cls.task_type.from_row(row), ScriptedModel([said]))
            finally:
                await spec.teardown()

    return asyncio.run(main())


def test_equal_in_both_orders_pays_one() -> None:
    seen = Seen({"12:00", "noon"})
    rollout = judged(seen, r"That is \boxed{noon}.")
    assert rollout.reward == 1.0
    assert seen.pairs == [("12:00", "noon"), ("noon", "12:00")]
    assert seen.questions == {"When is noon? Use \\boxed{}."}
    assert (rollout.metrics["judged_by"], rollout.metrics["swap_agrees"]) == ("m", True)


def test_a_verdict_that_depends_on_the_order_pays_what_is_set() -> None:
    for reward in (0.0, -1.0, 0.3):
        seen = Seen({"12:00", "noon"}, only_in_first=True)
        assert judged(seen, r"\boxed{noon}", reward_if_swap_fails=reward).reward == reward
        assert len(seen.pairs) == 2


def test_without_the_swap_check_one_verdict_is_enough() -> None:
    seen = Seen({"12:00", "noon"}, only_in_first=True)
    assert judged(seen, r"\boxed{noon}", check_twice_swap=False).reward == 1.0
    assert len(seen.pairs) == 1


def test_a_wrong_answer_is_asked_about_as_a_whole_and_may_earn_a_part() -> None:
    whole = r"Noon. In the form you want: \boxed{hour}"
    seen = Seen({"12:00", whole})
    rollout = judged(seen, whole)
    assert (rollout.reward, rollout.metrics["full_generation_equal"]) == (0.5, True)
    assert seen.pairs == [("12:00", "hour"), ("12:00", whole)]
    assert judged(Seen({"12:00", whole}), whole, reward_if_full_generation_succeeds=0.2).reward == 0.2
    assert judged(Seen({"12:00", whole}), whole, check_full_generation_on_fail=False).reward == 0.0
    assert judged(Seen(), whole).reward == 0.0


def test_a_long_expected_answer_is_compared_with_the_whole_text_once() -> None:
    long = "It is the moment when the sun stands highest. " * 4
    row = {**ROW, "expected_answer": long}
    seen = Seen({long, r"Highest sun, \boxed{noon}"})
    assert judged(seen, r"Highest sun, \boxed{noon}", row).reward == 1.0
    assert len(seen.pairs) == 1
    seen = Seen()
    assert judged(seen, r"\boxed{noon}", row).reward == 0.0
    assert len(seen.pairs) == 1
    seen = Seen({long, "noon"})
    assert judged(seen, r"\boxed{noon}", row, extraction_length_threshold=None).reward == 1.0


def test_rows_without_a_pattern_take_the_settings_pattern_or_all_of_the_text() -> None:
    row = {key: value for key, value in ROW.items() if key != "template_metadata"}
    seen = Seen({"12:00", "noon"})
    assert judged(seen, "My answer: noon", row, response_extract_regex=r"answer: (\w+)").reward == 1.0
    assert judged(Seen({"12:00", "noon"}), "noon", row).reward == 1.0
    assert judged(Seen({"12:00", "noon"}), "no match", row, response_extract_regex=r"answer: (\w+)").reward == 0.0


def test_no_answer_is_not_judged() -> None:
    seen = Seen()
    rollout = judged(seen, "  ")
    assert (rollout.reward, seen.pairs) == (0.0, [])


@pytest.mark.parametrize("script", [[error(500, "broken")], [chat("Hm."), chat("Hm.")]])
def test_a_judge_that_fails_makes_a_failure_and_no_score(script: Any) -> None:
    rollout = judged(script, r"\boxed{noon}")
    assert rollout.reward is None
    assert rollout.failure is not None
    assert rollout.failure.kind == "verifier"


def test_without_a_judge_rules_compare_and_the_metrics_say_so() -> None:
    spec = find("equivalence_llm_judge")

    async def main() -> list[Rollout]:
        task = spec.cls.task_type.from_row(ROW)
        try:
            said = (r"\boxed{12:00}", r"\boxed{ 12:00. }", r"\boxed{noon}", r"12:00 \boxed{0:00}")
            return [await play(spec, task, ScriptedModel([text])) for text in said]
        finally:
            await spec.teardown()

    rollouts = asyncio.run(main())
    assert [rollout.reward for rollout in rollouts] == [1.0, 1.0, 0.0, 0.0]
    assert {rollout.metrics["judged_by"] for rollout in rollouts} == {"rules"}


def test_a_pattern_that_hangs_is_a_failure_of_the_verifier() -> None:
    row = {**ROW, "template_metadata": {"output_regex": r"(a+)+$"}}
    rollout = judged(Seen(), "a" * 60 + "!", row)
    assert rollout.failure is not None
    assert "cannot be used on 61 characters" in rollout.failure.message


def test_bad_rows_and_settings_are_refused_in_a_sentence() -> None:
    spec = find("equivalence_llm_judge")
    with pytest.raises(InputError, match="no regular expression"):
        spec.cls.task_type.from_row({**ROW, "template_metadata": {"output_regex": "("}})
    with pytest.raises(InputError, match="Did you mean 'judge'"):
        spec.with_config({"juge": {}})
    with pytest.raises(InputError, match=r"'judge\.model' is required"):
        spec.with_config({"judge": {}})
