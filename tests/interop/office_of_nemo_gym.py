"""NeMo Gym's own workplace_assistant, in its own Python: runs sequences of calls and judges them, one JSON line each.

Run by `test_reverify_workplace.py`; it imports nothing of ours.
"""

import asyncio
import json
import sys
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

TABLES = {
    "emails": ("email", "_emails"),
    "calendar": ("calendar", "_calendar_events"),
    "plots": ("analytics", "_plots_data"),
    "tasks": ("project_management", "_project_tasks"),
    "customers": ("customer_relationship_manager", "_crm_data"),
}


def make_server() -> Any:
    config = WorkbenchResourcesServerConfig(host="127.0.0.1", port=1, entrypoint="", name="office")
    return WorkbenchResourcesServer(config=config, server_client=ServerClient.model_construct())


async def run(server: Any, sequence: dict[str, Any]) -> dict[str, Any]:
    request = SimpleNamespace(session={SESSION_ID_KEY: "one"})
    await server.seed_session(request, BaseSeedSessionRequest.model_construct())
    outputs = []
    for call in sequence["calls"]:
        body = WorkbenchRequest(**json.loads(call["arguments"]))
        response = await server.route_to_python_function(call["name"], body, request)
        outputs.append(json.loads(response.model_dump_json()))
    containers = server.session_id_to_tool_env["one"]["containers"]
    tables = {
        name: json.loads(getattr(containers[place], attribute).to_json(orient="records"))
        for name, (place, attribute) in TABLES.items()
    }
    found = {"outputs": outputs, "tables": tables}
    if "ground_truth" in sequence:
        found["reward"] = float(is_correct(sequence["calls"], sequence["ground_truth"], None))
    return found


def main() -> None:
    warnings.simplefilter("ignore")
    out, sys.stdout = sys.stdout, sys.stderr  # it prints as it goes
    server = make_server()
    for line in sys.stdin:
        print(json.dumps(asyncio.run(run(server, json.loads(line)))), file=out, flush=True)


if __name__ == "__main__":
    main()
