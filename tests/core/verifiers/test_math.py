"""Mathematical equality, and answers that try to hang, fool or break the comparison."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from gymrail.errors import InputError, VerifierError
from gymrail.rollout import Verdict
from gymrail.verifiers.math import MathVerify, is_evaluated, strip_delimiters
from gymrail.verifiers.workers import Workers

Judged = Callable[..., list[Verdict]]

HANGS = r"\boxed{9^{9^{9^9}}}"


@pytest.fixture(scope="module")
def pool() -> Iterator[Workers]:
    """One for all tests: loading the library takes longer than most of them."""
    verifier = MathVerify(workers=1, cpu_seconds=30)
    yield verifier._workers
    asyncio.run(verifier.aclose())


def judge_in(pool: Workers) -> Judged:
    def judge(rows: list[tuple[str, str]], **settings: bool) -> list[Verdict]:
        verifier = MathVerify(**settings)  # pyright: ignore[reportArgumentType]
        object.__setattr__(verifier, "_workers", pool)

        async def main() -> list[Verdict]:
            return [await verifier(answer, expected_answer=expected) for answer, expected in rows]

        return asyncio.run(main())

    return judge


@pytest.fixture
def judged(pool: Workers) -> Judged:
    return judge_in(pool)


@pytest.fixture
def judged_quickly() -> Iterator[Judged]:
    """For what hangs, and what takes some milliseconds beside it."""
    verifier = MathVerify(workers=1, cpu_seconds=1)
    yield judge_in(verifier._workers)
    asyncio.run(verifier.aclose())


def test_equal_answers_are_equal_however_they_are_written(judged: Judged) -> None:
    rows = [
        (r"so x is \boxed{\frac{1}{2}}", "0.5"),
        (r"\boxed{0.5}", r"$\frac{1}{2}$"),
        (r"\boxed{\{2, 1\}}", r"\{1, 2\}"),
        (r"\boxed{x = 5}", "5"),
        (r"\boxed{1,000}", "1000"),
        (r"\boxed{2\sqrt{2}}", r"\(\sqrt{8}\)"),
        (r"\boxed{(x+1)^2}", "x^2 + 2x + 1"),
        ("The answer is $12$.", "12"),
        (r"\boxed{Paris}", "paris"),
    ]
    assert [verdict.reward for verdict in judged(rows)] == [1.0] * len(rows)


@pytest.mark.parametrize("only_boxed", [True, False])
def test_wrong_hedged_and_empty_answers_earn_nothing(judged: Judged, only_boxed: bool) -> None:
    rows = [
        (r"\boxed{25}", "5"),
        (r"\boxed{4}, \boxed{5}", "5"),
        (r"\boxed{4 \text{ or } 5}", "5"),
        (r"\boxed{}", "5"),
        ("", "5"),
        (r"\boxed{P*a*r*i*s}", "Paris, France"),
        ("\ud83d", "5"),
        ("(" * 50_000, "5"),
    ]
    verdicts = judged(rows, only_boxed=only_boxed)
    # Two boxes are one set to math-verify; with `only_boxed` the last one is the answer.
    assert [verdict.reward for verdict in verdicts] == [0.0, 1.0 if only_boxed else 0.0] + [0.0] * 6
    assert all(verdict.reason for verdict in verdicts if not verdict.reward)


def test_only_the_box_counts_where_that_is_set(judged: Judged) -> None:
    assert [verdict.reward for verdict in judged([("It is 5.", "5"), (r"4 \boxed{5}", "5")], only_boxed=True)] == [
        0.0,
        1.0,
    ]
    assert judged([("It is 5.", "5")])[0].reward == 1.0


def test_an_answer_that_hangs_is_a_miss_with_a_reason_and_the_next_one_is_judged(judged_quickly: Judged) -> None:
    hung, fine = judged_quickly([(HANGS, "4"), (r"\boxed{4}", "4")])
    assert (hung.reward, fine.reward) == (0.0, 1.0)
    assert "cannot be compared" in (hung.reason or "")
    assert "CPU time" in (hung.reason or "")


def test_an_expected_answer_that_hangs_is_a_failure_and_no_miss(judged_quickly: Judged) -> None:
    with pytest.raises(VerifierError, match=r"expected answer.*cannot be compared with"):
        judged_quickly([(r"\boxed{5}", "9^{9^{9^9}}")])


def test_the_loop_stays_responsive_while_answers_hang() -> None:
    async def main() -> tuple[int, list[float]]:
        verifier = MathVerify(workers=2, cpu_seconds=1)
        asked = [asyncio.ensure_future(verifier(HANGS, expected_answer="4")) for _ in range(2)]
        asked += [asyncio.ensure_future(verifier(rf"\boxed{{{n}}}", expected_answer=str(n))) for n in range(50)]
        ticks, everything = 0, asyncio.gather(*asked)
        while not everything.done():
            await asyncio.sleep(0.01)
            ticks += 1
        await verifier.aclose()
        return ticks, [verdict.reward for verdict in await everything]

    ticks = 0
    for _ in range(4):  # again where the whole process was held up that second
        ticks, rewards = asyncio.run(main())
        assert rewards == [0.0] * 2 + [1.0] * 50
        if ticks >= 10:
            break
    assert ticks >= 10  # a blocked loop would come round a few times


def test_a_long_text_is_judged_by_its_box_or_its_end(judged: Judged) -> None:
    text = "Let me think about $7$ again. " * 3000
    rows = [(rf"{text}\boxed{{4}}", "4"), (rf"\boxed{{4}} {text}", "4"), (f"{text} The answer is 4.", "4")]
    assert [verdict.reward for verdict in judged(rows)] == [1.0, 1.0, 1.0]


def test_an_answer_that_leaves_the_work_undone_is_refused_where_it_must_be_done(judged: Judged) -> None:
    undone = [
        (r"\boxed{12 \cdot 34}", "408"), (r"\boxed{12*34}", "408"), (r"\boxed{\frac{816}{2}}", "408"),
        (r"\boxed{5!}", "120"), (r"\boxed{2^{10}}", "1024"), (r"\boxed{\sqrt{16}}", "4"),
        (r"\boxed{\binom{5}{2}}", "10"),
        (r"\boxed{\frac{1}{3}+\frac{1}{4}}", r"\frac{7}{12}"),
    ]  # fmt: skip
    done = [
        (r"\boxed{408}", "408"), (r"\boxed{x = 408}", "408"), (r"\boxed{1,024}", "1024"),
        (r"\boxed{-\dfrac{1}{2}}", "-1/2"),
        (r"\boxed{4\text{ cm}}", "4"), (r"\boxed{25\pi}", r"25\pi"), (r"\boxed{0.5}", r"\frac{1}{2}"),
        (r"\boxed{\frac{1}{2}}", "0.5"),
    ]  # fmt: skip
    assert [verdict.reward for verdict in judged(undone)] == [1.0] * len(undone)  # math-verify works them out
    verdicts = judged(undone + done, evaluated=True)
    assert [verdict.reward for verdict in verdicts] == [0.0] * len(undone) + [1.0] * len(done)


def test_delimiters_are_taken_off_and_nothing_else() -> None:
    assert [strip_delimiters(text) for text in ("$5$", r"\(x\)", r" \[y\] ", "$$z$$", "$a$ and $b$", "5", "$")] == [
        "5", "x", "y", "z", "$a$ and $b$", "5", "$",
    ]  # fmt: skip
    assert is_evaluated("7", "7")


def test_settings_out_of_range_and_a_missing_package_are_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="cpu_seconds is 0"):
        MathVerify(cpu_seconds=0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'gymrail\[math\]'"):
        MathVerify()
