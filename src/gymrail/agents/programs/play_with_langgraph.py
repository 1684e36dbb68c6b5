"""Plays one episode with a LangGraph agent. Started by `gymrail rollout --agent langgraph`, with an interpreter that
has langchain, langchain-openai and langchain-mcp-adapters; it imports nothing of Gymrail's.

The prompt comes on stdin; GYMRAIL_MCP_URL, GYMRAIL_MODEL and OPENAI_BASE_URL say where the tools and the model are.
"""

import asyncio
import os
import sys

MAX_TURNS = 10_000
"""The episode has a limit of its own."""


async def main(prompt: str) -> str:
    from langchain.agents import create_agent
    from langchain_mcp_adapters.client import MultiServerMCPClient
    from langchain_mcp_adapters.tools import load_mcp_tools
    from langchain_openai import ChatOpenAI

    client = MultiServerMCPClient({"env": {"transport": "streamable_http", "url": os.environ["GYMRAIL_MCP_URL"]}})
    # One session for all calls: by itself the client opens a new one for each.
    async with client.session("env") as session:
        model = ChatOpenAI(model=os.environ["GYMRAIL_MODEL"], max_retries=0)
        agent = create_agent(model, await load_mcp_tools(session))
        asked = {"messages": [{"role": "user", "content": prompt}]}
        state = await agent.ainvoke(asked, {"recursion_limit": MAX_TURNS})
    return str(state["messages"][-1].content)


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(main(sys.stdin.read())))
