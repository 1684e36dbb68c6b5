import asyncio

from gymrail.verifiers.unit_tests import UnitTests

FENCE = "`" * 3
ANSWER = f"""Add the numbers of a line:
{FENCE}python
print(sum(map(int, input().split())))
{FENCE}
"""


async def main() -> None:
    verifier = UnitTests()
    verdict = await verifier(ANSWER, unit_tests={"inputs": ["1 2", "3 4"], "outputs": ["3", "8"]})
    print(verdict.reward, verdict.reason)


asyncio.run(main())
