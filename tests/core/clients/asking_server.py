"""A server that asks and tells its client things in the middle of a call; plain JSON lines, so that each is seen."""

import json
import sys


def send(message: dict) -> None:
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def answer_of(key: str) -> dict:
    while True:
        message = json.loads(sys.stdin.readline())
        if message.get("id") == key and "method" not in message:
            return message


print("Asking server 1.0 is ready.", flush=True)
for line in sys.stdin:
    message = json.loads(line)
    method, key = message["method"], message.get("id")
    if method == "initialize":
        about = {"protocolVersion": message["params"]["protocolVersion"], "capabilities": {"tools": {}}}
        send({"id": key, "result": about | {"serverInfo": {"name": "asking", "version": "1"}}})
    elif method == "tools/list":
        second = message["params"].get("cursor") == "2"
        tool = {"name": "odd" if second else "ask", "inputSchema": {"type": "object"}}
        send({"id": key, "result": {"tools": [tool], **({} if second else {"nextCursor": "2"})}})
    elif method == "tools/call":
        if message["params"]["name"] == "odd":
            code = message["params"]["arguments"].get("code", -32603)
            send({"id": key, "error": {"code": code, "message": "the tool broke"}})
            continue
        send({"method": "notifications/tools/list_changed"})
        send({"method": "notifications/progress", "params": {"progressToken": 1, "progress": 0.5}})
        send({"id": "s1", "method": "sampling/createMessage", "params": {}})
        refused = answer_of("s1")["error"]["code"]
        send({"id": "s2", "method": "ping"})
        pinged = answer_of("s2")["result"]
        send({"id": key, "result": {"structuredContent": {"refused": refused, "pinged": pinged}, "content": []}})
