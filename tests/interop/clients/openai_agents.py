"""Answers the email of a workplace with the OpenAI Agents SDK's MCP client: python openai_agents.py URL"""

import asyncio
import json
import sys

from agents.mcp import MCPServerStreamableHttp


async def main(url: str) -> dict:
    async with MCPServerStreamableHttp(params={"url": url}, name="workplace") as server:

        async def call(name: str, **arguments: str) -> str:
            result = await server.call_tool(name, arguments)
            block = result.content[0]
            assert block.type == "text", result
            return block.text

        tools = [tool.name for tool in await server.list_tools()]
        inbox = json.loads(await call("read_inbox"))
        for email in inbox["emails"]:
            await call("send_email", to=email["sender"], subject=f"Re: {email['subject']}")
        return {"tools": tools, "inbox": inbox, "sent": json.loads(await call("list_sent"))}


print(json.dumps(asyncio.run(main(sys.argv[1]))))
