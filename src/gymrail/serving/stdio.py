"""One episode over stdio: a process of its own for Claude Desktop, Cursor and the like.

The agent starts this process, so it could read its memory: it is for trusted use. A trained agent gets the bridge.
"""

from __future__ import annotations

from mcp.server.stdio import stdio_server

from gymrail.episode import Limits
from gymrail.rollout import text_of
from gymrail.serving.mcp import McpEndpoint
from gymrail.serving.service import Service
from gymrail.serving.settings import Settings
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task

_WEEK_SECONDS = 7 * 24 * 3600.0
LIMITS = Limits(episode_seconds=_WEEK_SECONDS, idle_seconds=_WEEK_SECONDS)
"""A person's client may leave the process alone for days."""


async def serve_stdio(spec: EnvironmentSpec, task: Task) -> None:
    """Open an episode, serve its tools on stdin and stdout until stdin ends, and close it. The task's prompt goes to
    the client as the server's instructions.

    Raises:
        EpisodeFailed: seeding broke.
        InputError: the task does not fit the environment.
    """
    service = Service([spec], Settings(limits=LIMITS))
    held = await service.table.open(spec, task)
    prompt = "\n\n".join(filter(None, map(text_of, task.input_items))) or None
    server = McpEndpoint(service, spec, only=held, prompt=prompt).server
    try:
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())
    finally:
        await service.table.stop()
        await spec.teardown()
