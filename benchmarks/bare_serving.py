"""The plain FastAPI route that `serving.py` compares with: the tool of `session_counter`, and nothing around it."""

from __future__ import annotations

import sys
from collections import defaultdict

from fastapi import FastAPI
from pydantic import BaseModel

from gymrail.serving.run import run_server

app = FastAPI()
counters: defaultdict[str, int] = defaultdict(int)


class Increment(BaseModel):
    """The tool's arguments."""

    count: int


@app.post("/e/{token}/increment_counter")
async def increment_counter(token: str, arguments: Increment) -> str:
    """Add to the session's counter."""
    counters[token] += arguments.count
    return "ok"


if __name__ == "__main__":
    run_server(app, "127.0.0.1", 0, lambda url: print(url, file=sys.stderr, flush=True))
