"""Answers the email of a workplace with LangChain's MCP adapters, which open a session for every call:
python langchain_adapters.py URL"""

import asyncio
import json
import sys

from langchain_mcp_adapters.client import MultiServerMCPClient


async def main(url: str) -> dict:
    client = MultiServerMCPClient({"workplace": {"transport": "streamable_http", "url": url}})
    tools = {tool.name: tool for tool in await client.get_tools()}

    async def call(name: str, **arguments: str) -> str:
        answer = await tools[name].ainvoke(arguments)
        return answer if isinstance(answer, str) else answer[0]["text"]

    inbox = json.loads(await call("read_inbox"))
    for email in inbox["emails"]:
        await call("send_email", to=email["sender"], subject=f"Re: {email['subject']}")
    return {"tools": list(tools), "inbox": inbox, "sent": json.loads(await call("list_sent"))}


print(json.dumps(asyncio.run(main(sys.argv[1]))))
