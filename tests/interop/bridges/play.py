"""Plays scripts in environments, in the Python of the package that they belong to: JSON in, JSON out.

{"name": "verifiers:vf_games", "split": "train", "tasks": 1, "script": ["4", {"calls": [{"name", "arguments"}]}]}
"""

import asyncio
import json
import sys

from gymrail.collect.replay import replay
from gymrail.errors import InputError
from gymrail.models.model import ModelResponse, function_call, message
from gymrail.models.scripted import turns_spoken
from gymrail.play import play
from gymrail.registry import find


class Script:
    def __init__(self, turns):
        self.turns = turns

    async def respond(self, request):
        spoken = turns_spoken(request.input)
        turn = self.turns[min(spoken, len(self.turns) - 1)]
        if isinstance(turn, str):
            return ModelResponse([message(turn)])
        calls = [
            function_call(one["name"], json.dumps(one["arguments"]), f"call_{spoken}_{number}")
            for number, one in enumerate(turn["calls"])
        ]
        return ModelResponse([*([message(turn["text"])] if "text" in turn else []), *calls])


async def run(job):
    spec = find(job["name"])
    found = {"name": spec.name, "datasets": {entry.split: entry.size for entry in spec.manifest.datasets}, "rows": []}
    tasks = list(spec.tasks(job.get("split", "train"), limit=job.get("tasks", 1)))
    rollouts = await asyncio.gather(*(play(spec, task, Script(job["script"])) for task in tasks))
    for rollout in rollouts:
        again = await replay(spec, rollout) if job.get("replay") else None
        found["rows"].append({**rollout.to_row(), "differences": list(again.differences) if again else None})
    await spec.teardown()
    return found


def main():
    results = []
    for job in json.load(sys.stdin):
        try:
            results.append(asyncio.run(run(job)))
        except InputError as error:
            results.append({"error": str(error)})
    print(json.dumps(results))


main()
