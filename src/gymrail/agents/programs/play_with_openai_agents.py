"""Plays one episode with the OpenAI Agents SDK. Started by `gymrail rollout --agent openai-agents`, with an interpreter
that has the SDK; it imports nothing of Gymrail's.

The prompt comes on stdin; GYMRAIL_MCP_URL, GYMRAIL_MODEL and OPENAI_BASE_URL say where the tools and the model are.
"""

import asyncio
import os
import sys

MAX_TURNS = 10_000
"""The episode has a limit of its own."""


async def main(prompt: str) -> str:
    from agents import Agent, OpenAIResponsesModel, Runner, set_tracing_disabled
    from agents.mcp import MCPServerStreamableHttp
    from openai import AsyncOpenAI

    set_tracing_disabled(True)
    address = {"url": os.environ["GYMRAIL_MCP_URL"]}
    async with (
        AsyncOpenAI(max_retries=0) as client,
        MCPServerStreamableHttp(params=address, name="env", cache_tools_list=True) as server,
    ):
        model = OpenAIResponsesModel(os.environ["GYMRAIL_MODEL"], client)
        result = await Runner.run(Agent("Agent", model=model, mcp_servers=[server]), prompt, max_turns=MAX_TURNS)
        return str(result.final_output)


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(main(sys.stdin.read())))
