"""An MCP server over stdio, without the SDK, whose start takes longer than a test: accounts in `bank.db`, and files,
both in its working directory."""

import json
import sqlite3
import sys
from pathlib import Path

TEXT, NUMBER = {"type": "string"}, {"type": "integer"}


def transfer(source: str, target: str, amount: int) -> str:
    """Move money between two accounts."""
    with sqlite3.connect("bank.db") as database:
        row = database.execute("SELECT balance FROM accounts WHERE name = ?", (source,)).fetchone()
        if row is None or row[0] < amount:
            raise ValueError("There is not enough money.")
        database.execute("UPDATE accounts SET balance = balance - ? WHERE name = ?", (amount, source))
        database.execute("UPDATE accounts SET balance = balance + ? WHERE name = ?", (amount, target))
    return "Done."


def write(name: str, text: str) -> str:
    """Write a file."""
    Path(name).write_text(text, encoding="utf-8")
    return "Written."


TOOLS = {
    "transfer": (transfer, {"source": TEXT, "target": TEXT, "amount": NUMBER}),
    "write": (write, {"name": TEXT, "text": TEXT}),
}


def answer(method: str, parameters: dict) -> dict:
    if method == "initialize":
        version = parameters["protocolVersion"]
        about = {"name": "bank", "version": "1.0"}
        return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": about}
    if method == "tools/list":
        schemas = {
            name: {"type": "object", "properties": fields, "required": list(fields)}
            for name, (_, fields) in TOOLS.items()
        }
        return {
            "tools": [
                {"name": name, "description": function.__doc__, "inputSchema": schemas[name]}
                for name, (function, _) in TOOLS.items()
            ]
        }
    try:
        text, is_error = TOOLS[parameters["name"]][0](**parameters["arguments"]), False
    except (TypeError, ValueError, OSError, sqlite3.Error) as error:
        text, is_error = str(error), True
    return {"content": [{"type": "text", "text": text}], "isError": is_error}


for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        result = answer(message["method"], message.get("params") or {})
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
