"""The judge: labels, swap check, votes, limits, failures."""

import asyncio
from pathlib import Path

import pytest

from gymrail.errors import ContextOverflow, InputError, ModelError, VerifierError
from gymrail.limits import Prices
from gymrail.models.model import ModelRequest, ModelResponse
from gymrail.rollout import Usage
from gymrail.verifiers.judge import Judge, JudgeSettings
from gymrail.verifiers.judge_prompt import EQUIVALENCE, JudgePrompt
from tests.core.verifiers.judges import DIFFERENT, EQUAL, Scripted, compares, texts_of

ROW = {"question": "What is the capital of Italy?", "expected_answer": "Rome"}
BOTH = ("expected_answer", "answer")


def test_the_first_label_that_occurs_is_the_verdict() -> None:
    said = [
        f"They differ, so {DIFFERENT}, not {EQUAL}.",
        f"{EQUAL} {DIFFERENT}",
        f"<think>{EQUAL}?</think> {DIFFERENT}",
    ]
    judge = Judge(Scripted(said))
    verdicts = [asyncio.run(judge("Roma", **ROW)) for _ in said]
    assert [verdict.reward for verdict in verdicts] == [0.0, 1.0, 0.0]
    assert verdicts[1].metrics == {"judge_label": EQUAL, "judge_votes": 1}


def test_the_swap_check_asks_again_with_the_answers_exchanged() -> None:
    model = Scripted(compares)
    verdict = asyncio.run(Judge(model, swap=BOTH)("rome", **ROW))
    assert verdict.reward == 1.0
    assert verdict.metrics["swap_agrees"] is True
    assert [texts_of(request)[0] for request in model.requests] == [
        [ROW["question"], "Rome", "rome"],
        [ROW["question"], "rome", "Rome"],
    ]


def test_a_judge_that_prefers_a_place_pays_what_is_set_for_that() -> None:
    def likes_rome_first(request: ModelRequest) -> str:
        return EQUAL if texts_of(request)[0][1] == "Rome" else DIFFERENT

    judge = Judge(Scripted(likes_rome_first), swap=BOTH, reward_if_swap_fails=0.25)
    verdict = asyncio.run(judge("Paris", **ROW))
    assert verdict.reward == 0.25
    assert verdict.metrics["swap_agrees"] is False
    assert "exchanged" in (verdict.reason or "")


def test_after_a_no_the_other_order_is_not_asked() -> None:
    model = Scripted([DIFFERENT])
    assert asyncio.run(Judge(model, swap=BOTH)("Paris", **ROW)).reward == 0.0
    assert len(model.requests) == 1


@pytest.mark.parametrize(
    ("said", "votes", "reward", "asked"),
    [
        ([EQUAL, EQUAL], 3, 1.0, 2),
        ([EQUAL, DIFFERENT, DIFFERENT], 3, 0.0, 3),
        ([DIFFERENT, EQUAL, EQUAL, EQUAL], 5, 1.0, 4),
        ([EQUAL, DIFFERENT], 2, 0.0, 2),
    ],
)
def test_most_votes_win_and_no_vote_is_asked_for_that_changes_nothing(
    said: list[str], votes: int, reward: float, asked: int
) -> None:
    model = Scripted(said)
    assert asyncio.run(Judge(model, votes=votes)("Paris", **ROW)).reward == reward
    assert len(model.requests) == asked


def test_an_answer_without_a_label_is_asked_for_again_behind_a_new_fence() -> None:
    model = Scripted(["I like both.", "", f"Well: {EQUAL}"])
    assert asyncio.run(Judge(model, retries=2)("Rome", **ROW)).reward == 1.0
    assert len({request.input[0]["content"] for request in model.requests}) == 3


def test_a_judge_that_never_gives_a_label_is_a_failure_and_no_score() -> None:
    model = Scripted(lambda request: "Both are fine. [A=B]")
    with pytest.raises(VerifierError, match=r"no verdict in 3 answers.*Both are fine"):
        asyncio.run(Judge(model, retries=2)("Rome", **ROW))
    assert len(model.requests) == 3


@pytest.mark.parametrize("error", [ModelError("503"), ContextOverflow("too long"), InputError("no temperature")])
def test_a_model_that_fails_is_a_failure_of_the_verifier(error: Exception) -> None:
    class Broken:
        async def respond(self, request: ModelRequest) -> ModelResponse:
            raise error

    with pytest.raises(VerifierError, match=f"The judge failed: {error}"):
        asyncio.run(Judge(Broken())("Rome", **ROW))


def test_a_model_that_hangs_is_a_failure_after_the_time_limit() -> None:
    class Hanging:
        async def respond(self, request: ModelRequest) -> ModelResponse:
            await asyncio.Event().wait()
            raise AssertionError

    with pytest.raises(VerifierError, match=r"no answer within 0\.05 seconds"):
        asyncio.run(Judge(Hanging(), timeout_seconds=0.05)("Rome", **ROW))


def test_the_cost_limit_ends_the_judging_with_a_failure_that_says_so() -> None:
    model = Scripted(lambda request: EQUAL, usage=Usage(1_000_000, 0))
    judge = Judge(model, prices=Prices(1.0, 2.0), cost_limit=2.0)
    assert [asyncio.run(judge("Rome", **ROW)).reward for _ in range(2)] == [1.0, 1.0]
    with pytest.raises(VerifierError, match=r"has cost \$2, and its cost_limit is \$2"):
        asyncio.run(judge("Rome", **ROW))
    assert (judge.spending.calls, judge.spending.cost) == (2, 2.0)


def test_a_cost_that_cannot_be_known_is_no_cost_of_zero() -> None:
    judge = Judge(Scripted([EQUAL], usage=Usage(0, 0)), prices=Prices(1.0, 1.0), cost_limit=1.0)
    with pytest.raises(VerifierError, match="does not say how many tokens"):
        asyncio.run(judge("Rome", **ROW))


def test_no_more_requests_run_at_once_than_the_limit_says() -> None:
    model = Scripted(compares, waits=5)
    judge = Judge(model, swap=BOTH, votes=3, max_concurrency=4)

    async def many() -> list[float]:
        return [verdict.reward for verdict in await asyncio.gather(*(judge("Rome", **ROW) for _ in range(30)))]

    assert asyncio.run(many()) == [1.0] * 30
    assert model.most == 4
    assert asyncio.run(many()) == [1.0] * 30  # another event loop


def test_a_cancelled_verdict_leaves_no_request_behind_and_gives_its_place_back() -> None:
    async def main() -> None:
        entered = asyncio.Event()

        class Hanging(Scripted):
            async def respond(self, request: ModelRequest) -> ModelResponse:
                self.running += 1
                try:
                    if self.running == 2:
                        entered.set()
                    await asyncio.Event().wait()
                finally:
                    self.running -= 1
                raise AssertionError

        hanging = Hanging([])
        judge = Judge(hanging, votes=3, max_concurrency=2)
        asking = asyncio.ensure_future(judge("Rome", **ROW))
        async with asyncio.timeout(120):
            await entered.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert hanging.running == 0
        object.__setattr__(judge, "model", Scripted(compares))
        async with asyncio.timeout(120):
            assert (await judge("Rome", **ROW)).reward == 1.0

    asyncio.run(main())


def test_one_vote_that_fails_ends_the_others() -> None:
    class Mixed(Scripted):
        async def respond(self, request: ModelRequest) -> ModelResponse:
            self.requests.append(request)
            if len(self.requests) == 2:
                raise ModelError("down")
            self.running += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.running -= 1
            raise AssertionError

    model = Mixed([])
    with pytest.raises(VerifierError, match="down"):
        asyncio.run(Judge(model, votes=3)("Rome", **ROW))
    assert model.running == 0


def test_a_prompt_is_read_from_yaml(tmp_path: Path) -> None:
    file = tmp_path / "prompt.yaml"
    file.write_text(
        'user: "Is it polite? {answer} Say [yes!] or [no!]; {} and {\\"a\\": 1} are braces."\n'
        'labels: {"[yes!]": 1, "[no!]": 0.25}\n',
        encoding="utf-8",
    )
    judge = Judge(Scripted(["[no!]"]), JudgePrompt.read(file))
    assert asyncio.run(judge("Thank you.")).reward == 0.25


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user: '{answer}'\nlabels: {WELL: 1, BAD: 0}", "'WELL' must begin and end with a mark"),
        ("user: '{answer}'\nlabels: {'[a]': 1, '[[a]]': 0}", "is a part of the label"),
        ("user: '{answer}'\nlabels: {'[a]': 1}", "1 entries"),
        ("user: 'no field'\nlabels: {'[a]': 1, '[b]': 0}", "no field such as"),
        ("usr: x", "Did you mean 'user'"),
    ],
)
def test_a_bad_prompt_is_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "prompt.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        JudgePrompt.read(file)
    assert str(file) in str(caught.value)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(InputError, match="needs the field 'question'"):
        asyncio.run(Judge(Scripted([EQUAL]))("Rome", expected_answer="Rome"))


def test_settings_make_a_judge_and_hold_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "judge.json"
    script.write_text(f'["{EQUAL}"]', encoding="utf-8")
    settings = JudgeSettings(model=f"script:{script}", votes=3, prices=Prices(1, 1), cost_limit=1.0)
    assert asyncio.run(JudgeSettings(model=f"script:{script}").judge()("Rome", **ROW)).reward == 1.0
    assert JudgeSettings.model_validate_json(settings.model_dump_json()) == settings
    monkeypatch.setenv("JUDGE_KEY", "secret-key")
    with_key = JudgeSettings(model="http://127.0.0.1:9/v1", model_name="m", api_key_env="JUDGE_KEY")
    with_key.judge()
    assert "secret-key" not in with_key.model_dump_json()
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(InputError, match="export JUDGE_KEY="):
        with_key.judge()
    with pytest.raises(ValueError, match="nothing has a price"):
        JudgeSettings(model="openai:m", cost_limit=1.0)
    with pytest.raises(ValueError, match="Did you mean 'temperature'"):
        JudgeSettings(model="openai:m", parameters={"temprature": 1})
    with pytest.raises(InputError, match="plays episodes"):
        JudgeSettings(model="oracle").judge()


def test_the_request_has_the_parameters_and_the_default_is_greedy() -> None:
    model = Scripted(lambda request: EQUAL)
    asyncio.run(Judge(model)("Rome", **ROW))
    asyncio.run(Judge(model, parameters={"max_output_tokens": 5})("Rome", **ROW))
    assert [dict(request.parameters) for request in model.requests] == [{"temperature": 0.0}, {"max_output_tokens": 5}]
    assert EQUIVALENCE.fields == ("question", "expected_answer", "answer")
