import asyncio

from gymrail import Verdict
from gymrail.verifiers.combined import Combined
from gymrail.verifiers.exact import ExactAnswer
from gymrail.verifiers.math import MathVerify


async def brief(answer: str, *, limit: int = 40) -> Verdict:
    """A verifier of one's own: an async function; its keyword parameters are fields of the row."""
    return Verdict(float(len(answer) <= limit), metrics={"length": len(answer)})


async def main() -> None:
    letter, library = ExactAnswer("letter"), MathVerify()
    verdict = await letter("It is warm there. Answer: (B)", expected_answer="B", options={"A": "Oslo", "B": "Rome"})
    print(verdict.reward, verdict.reason)

    verdict = await library(r"so x is \boxed{\frac{1}{2}}", expected_answer="0.5")
    print(verdict.reward, verdict.metrics)

    both = Combined({"correct": (library, 0.75), "brief": (brief, 0.25)})
    verdict = await both(r"Half of it, that is \boxed{\frac{1}{2}}, of course.", expected_answer="0.5")
    print(verdict.reward, verdict.reward_components)
    await library.aclose()


asyncio.run(main())
