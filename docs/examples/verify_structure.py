import asyncio

from gymrail.verifiers.instructions import InstructionFollowing
from gymrail.verifiers.schema import SchemaAdherence
from gymrail.verifiers.state import Rules, changes, compare

SCHEMA = '{"type": "object", "properties": {"born": {"type": "integer"}}}'
RULES = Rules(keys={"tasks": "task_id"})
BEFORE = {"tasks": [{"task_id": 1, "board": "Design"}, {"task_id": 2, "board": "Sales"}]}
AFTER = {"tasks": [{"task_id": 2, "board": "Sales"}, {"task_id": 1, "board": "Sales"}]}
WANTED = {"tasks": [{"task_id": 1, "board": "Back end"}, {"task_id": 2, "board": "Sales"}]}


async def main() -> None:
    schema, instructions = SchemaAdherence(), InstructionFollowing()
    verdict = await schema('{"born": "1815"}', schema_str=SCHEMA)
    print(verdict.reward, verdict.reason)

    verdict = await instructions("Red, blue.", instruction_id_list=["punctuation:no_comma"], kwargs=[{}])
    print(verdict.reward, verdict.reason)

    found = compare(changes(BEFORE, AFTER, RULES), changes(BEFORE, WANTED, RULES))
    print(found.is_equal, found.difference)


asyncio.run(main())
