import asyncio
import sys

from gymrail.models.openai import OpenAIModel
from gymrail.verifiers.judge import Judge
from gymrail.verifiers.judge_prompt import JudgePrompt
from gymrail.verifiers.rubric import Criterion, Rubric

POLITE = JudgePrompt(
    system="You judge whether a reply to a customer is polite. End with [[POLITE]] or [[RUDE]].",
    user="The customer wrote:{question}The reply:{answer}",
    labels={"[[POLITE]]": 1.0, "[[RUDE]]": 0.0},
)
CRITERIA = [Criterion("answers", "It answers the question.", weight=3), Criterion("short", "It is one sentence.")]


async def main(base_url: str, model: str) -> None:
    async with OpenAIModel(model, base_url) as endpoint:
        judge = Judge(endpoint, POLITE, votes=3, parameters={"temperature": 0.7, "max_output_tokens": 512})
        verdict = await judge("Look it up yourself.", question="When do you open?")
        print(verdict.reward, verdict.metrics)

        verdict = await Rubric.by(judge, CRITERIA)("At nine.", question="When do you open?")
        print(verdict.reward, verdict.reward_components)


asyncio.run(main(*sys.argv[1:]))
