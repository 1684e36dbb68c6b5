r"""reasoning_gym: the library's scorers, without their pay for hedging and without their `eval`."""

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest

from gymrail import GymrailError, Rollout
from gymrail.errors import VerifierError
from gymrail.models.scripted import Oracle, ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail.verifiers.reasoning_gym import library
from gymrail.verifiers.reasoning_gym.extract import extract_answer, is_hedged
from gymrail.verifiers.reasoning_gym.library import EXCLUDED, dataset_names, gold_answer, make_entry
from gymrail.verifiers.reasoning_gym.scorer import Scorer
from gymrail.verifiers.reasoning_gym.worker import check_arithmetic
from gymrail_environments.reasoning_gym.environment import ReasoningGymTask

SPEC = find("reasoning_gym")


def task(dataset: str, seed: int = 1, **parameters: Any) -> ReasoningGymTask:
    entry = make_entry(dataset, seed, parameters)
    return ReasoningGymTask.ask(entry["question"], **entry)


def played(text: str, asked: ReasoningGymTask) -> Rollout:
    return asyncio.run(play(SPEC, asked, ScriptedModel([text])))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so <answer> 4 </answer>", "4"),
        ("<answer>4</answer> no: <answer>5</answer>", "5"),
        ("<answer>\n1 2\n3 4\n</answer> and <answer>", "1 2\n3 4"),
        ("</answer> <answer>4</answer></answer>", "4"),
        (r"<answer>4</answer> \boxed{5}", "4"),
        (r"it is \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{3} or \boxed{4}", "4"),
        ("  just 4 ", "just 4"),
        ("", ""),
    ],
)
def test_the_answer_is_in_the_last_tag_else_in_the_last_box_else_the_text(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("answer", "oracle", "score", "hedged"),
    [
        ("4 or 5", "4", 0.17, True),
        ("14", "4", 0.5, True),
        ("4 or 5", "4", 1.0, True),
        ("4 apples", "4", 1.0, False),
        ("4.0", "4", 1.0, False),
        ("4", "4", 1.0, False),
        ("UP, DOWN", "UP", 1.0, True),
        ("It is UP.", "UP", 0.2, True),
        ("(UP)", "UP", 1.0, False),
        ("half right", "right answer", 0.5, False),
        ("anything", None, 0.5, False),
        ("4 or 5", "4", 0.0, False),
    ],
)
def test_hedging_is_told_from_a_right_answer_in_other_words(
    answer: str, oracle: str | None, score: float, hedged: bool
) -> None:
    assert is_hedged(answer, oracle, score) == hedged


@pytest.mark.slow
def test_the_gold_answer_of_every_dataset_earns_one_and_a_hedge_earns_nothing() -> None:
    async def rewards() -> dict[str, tuple[float, float]]:
        scorer, found = Scorer(60.0), {}
        for name in dataset_names(()):
            rng = Random(name)
            entry = make_entry(name, rng.getrandbits(31), {})
            gold = gold_answer(name, entry)
            wrong = next(
                other
                for _ in range(50)
                if (other := gold_answer(name, make_entry(name, rng.getrandbits(31), {}))).strip() != gold.strip()
            )
            right = await scorer(f"<answer>{gold}</answer>", **entry)
            hedged = await scorer(f"<answer>{gold} or {wrong}</answer>", **entry)
            found[name] = (right.reward, hedged.reward)
        await scorer.aclose()
        return found

    found = asyncio.run(rewards())
    assert len(found) >= 100
    assert {name: pair for name, pair in found.items() if abs(pair[0] - 1.0) > 1e-9 or pair[1] > 0.02} == {}


@pytest.mark.slow
def test_the_items_of_every_dataset_are_the_same_from_the_same_seed_and_differ_from_another() -> None:
    make = library._written.__wrapped__
    for name in dataset_names(()):
        items = [make(name, seed, "{}") for seed in (77, 1000, 77, 2**31 - 1)]
        assert items[0] == items[2], name
        assert len(set(items)) > 1, name


def test_rows_of_the_public_form_are_read_and_scored() -> None:
    row = {
        "responses_create_params": {"input": [{"role": "user", "content": "GCD of 297 and 30?"}]},
        "question": "GCD of 297 and 30?",
        "answer": "3",
        "metadata": {"source_dataset": "gcd", "source_index": 0, "difficulty": {"num_numbers": [2, 2]}},
    }
    asked = ReasoningGymTask.from_row(row)
    assert played("<answer>3</answer>", asked).reward == 1.0
    hedged = played("<answer>3 or 13</answer>", asked)
    assert (hedged.reward, hedged.metrics["extracted_answer"], hedged.metrics["task_name"]) == (0.0, "3 or 13", "gcd")
    assert 0 < hedged.metrics["library_score"] < 1
    assert played("13", asked).reward == 0.0
    assert played(r"\boxed{3}", asked).reward == 1.0


def test_any_text_is_not_right_in_game_of_life_halting() -> None:
    asked = task("game_of_life_halting", 5)
    assert played(f"<answer>{asked.answer}</answer>", asked).reward == 1.0
    assert played("<answer>Done.</answer>", asked).reward == 0.0


def test_a_row_that_names_no_dataset_or_an_unknown_one_is_a_failure_and_no_score() -> None:
    for metadata, message in (
        ({}, "metadata.source_dataset is None"),
        ({"source_dataset": "gdc"}, "Did you mean 'gcd'"),
    ):
        asked = ReasoningGymTask.ask("?", question="?", answer="3", metadata=metadata)
        rollout = played("3", asked)
        assert rollout.reward is None
        assert rollout.failure is not None
        assert message in rollout.failure.message


def test_a_row_whose_scorer_fails_whatever_the_answer_is_a_failure() -> None:
    async def judge() -> None:
        scorer = Scorer()
        try:
            with pytest.raises(VerifierError, match="scorer of prime_factorization fails on this row"):
                await scorer("x", question="?", answer="y", metadata={"source_dataset": "prime_factorization"})
        finally:
            await scorer.aclose()

    asyncio.run(judge())


def test_an_answer_that_the_scorer_cannot_read_earns_nothing_and_says_so() -> None:
    rollout = played("<answer>seven times</answer>", task("prime_factorization"))
    assert rollout.reward == 0.0
    assert "cannot read the answer" in (rollout.verdict_reason or "")


def test_an_answer_that_takes_too_long_earns_nothing_and_the_next_one_is_scored() -> None:
    async def judge() -> tuple[Any, Any]:
        scorer = Scorer(seconds=5.0)
        entry = make_entry("puzzle24", 3, {})
        try:
            bomb = await scorer("<answer>9**9**9**9</answer>", **entry)
            return bomb, await scorer(f"<answer>{gold_answer('puzzle24', entry)}</answer>", **entry)
        finally:
            await scorer.aclose()

    bomb, gold = asyncio.run(judge())
    assert (bomb.reward, gold.reward) == (0.0, 1.0)


CODE = "__import__('pathlib').Path({path!r}).write_text('x')"


@pytest.mark.parametrize(
    "dataset",
    [
        "binary_matrix", "spiral_matrix", "string_insertion", "n_queens", "simple_integration",
        "intermediate_integration", "polynomial_multiplication", "countdown", "puzzle24",
    ],
)  # fmt: skip
def test_a_models_code_is_never_run(dataset: str, tmp_path: Path) -> None:
    code = CODE.format(path=str(tmp_path / "run"))
    asked = task(dataset)
    for answer in (code, f"[{code}]", f"exp({code})"):
        assert (played(f"<answer>{answer}</answer>", asked).reward or 0.0) <= 0.05
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["x**2/2 + C", "exp(x)*sin(3*x)", "3*(4+5)-1.5", "-log(x) + pi"])
def test_arithmetic_is_read(text: str) -> None:
    check_arithmetic(text)


@pytest.mark.parametrize(
    "text", ["eval(x)", "x.__class__", "open('f')", "[1]", "x.real", "lambda: 1", "S('1')", "chr(1)"]
)
def test_more_than_arithmetic_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an arithmetic expression"):
        check_arithmetic(text)


def test_settings_choose_datasets_and_their_difficulty() -> None:
    spec = SPEC.with_config({"datasets": ["chain_sum"], "parameters": {"chain_sum": {"min_terms": 5, "max_terms": 5}}})
    asked = [spec.generate("train", index) for index in range(5)]
    assert {one.dataset for one in asked} == {"chain_sum"}
    assert all(one.question.count("+") + one.question.count("- ") >= 4 for one in asked)
    assert asyncio.run(play(spec, asked[0], Oracle())).reward == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"datasets": ["chainsum"]}, "Did you mean 'chain_sum'?"),
        ({"datasets": ["composite"]}, "only mixes other datasets"),
        ({"datasets": ["gcd"], "parameters": {"gcd": {"numbers": 3}}}, "does not take the parameters"),
    ],
)
def test_wrong_settings_say_what_is_allowed(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(GymrailError, match=message.replace("?", r"\?")):
        SPEC.with_config(settings).generate("train", 0)


def test_what_is_excluded_by_default_can_be_named() -> None:
    assert not set(EXCLUDED) & set(dataset_names(()))
    assert dataset_names(["rush_hour"]) == ("rush_hour",)


def test_train_and_validation_share_no_question() -> None:
    spec = SPEC.with_config({"datasets": ["gcd", "coin_flip", "leg_counting"]})
    train = {spec.generate("train", index).question for index in range(150)}
    validation = {spec.generate("validation", index).question for index in range(60)}
    assert not train & validation
