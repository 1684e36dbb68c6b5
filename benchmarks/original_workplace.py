"""NeMo Gym's own workplace_assistant, measured in its own Python by `environments.py`; it imports nothing of ours.

Each line on stdin is a command, answered by one line of JSON:

    {"memory": 100}                      kilobytes of resident memory per session, over 100 sessions that stay open
    {"episodes": 5, "calls": [...], "ground_truth": [...]}
                                         medians in microseconds: `seed`, `call`, `verify`, `episode`

There is no HTTP in it: `seed_session` and `route_to_python_function` are awaited as its web application does it, and
the verifier is its `is_correct`, which runs both lists of calls again on tables that are read anew.
"""

import asyncio
import contextlib
import gc
import json
import os
import statistics
import sys
import time
import warnings
from types import SimpleNamespace
from typing import Any

from nemo_gym.base_resources_server import BaseSeedSessionRequest  # pyright: ignore[reportMissingImports]
from nemo_gym.server_utils import SESSION_ID_KEY, ServerClient  # pyright: ignore[reportMissingImports]
from resources_servers.workplace_assistant.app import (  # pyright: ignore[reportMissingImports]
    WorkbenchRequest,
    WorkbenchResourcesServer,
    WorkbenchResourcesServerConfig,
)
from resources_servers.workplace_assistant.utils import is_correct  # pyright: ignore[reportMissingImports]


def resident_kilobytes() -> float:
    with open("/proc/self/statm", encoding="ascii") as numbers:
        return int(numbers.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1000


async def memory(server: Any, sessions: int) -> dict[str, float]:
    await seed(server, "warm")
    gc.collect()
    before = resident_kilobytes()
    for number in range(sessions):
        await seed(server, f"open {number}")
    gc.collect()
    after = resident_kilobytes()
    server.session_id_to_tool_env.clear()
    return {"kilobytes": (after - before) / sessions}


async def seed(server: Any, session: str) -> Any:
    request = SimpleNamespace(session={SESSION_ID_KEY: session})
    await server.seed_session(request, BaseSeedSessionRequest.model_construct())
    return request


async def episodes(server: Any, command: dict[str, Any]) -> dict[str, float]:
    times: dict[str, list[float]] = {"seed": [], "call": [], "verify": [], "episode": []}
    for _ in range(command["episodes"]):
        started = time.perf_counter()
        request = await seed(server, "one")
        seeded = time.perf_counter()
        for call in command["calls"]:
            body = WorkbenchRequest(**json.loads(call["arguments"]))
            await server.route_to_python_function(call["name"], body, request)
        called = time.perf_counter()
        if not is_correct(command["calls"], command["ground_truth"], ""):
            raise SystemExit("The original gave no reward, so its time means nothing.")
        ended = time.perf_counter()
        times["seed"].append(seeded - started)
        times["call"].append((called - seeded) / len(command["calls"]))
        times["verify"].append(ended - called)
        times["episode"].append(ended - started)
    return {name: 1e6 * statistics.median(values) for name, values in times.items()}


def main() -> None:
    warnings.simplefilter("ignore")
    config = WorkbenchResourcesServerConfig(host="127.0.0.1", port=1, entrypoint="", name="office")
    server = WorkbenchResourcesServer(config=config, server_client=ServerClient.model_construct())
    for line in sys.stdin:
        command = json.loads(line)
        with contextlib.redirect_stdout(sys.stderr):
            work = memory(server, command["memory"]) if "memory" in command else episodes(server, command)
            answer = asyncio.run(work)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
