"""A stateful environment with a planted answer, and a server of it on loopback."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2 as httpx
from pydantic import BaseModel

from gymrail import Environment, Rollout, Task, ToolError, Verdict, tool
from gymrail.episode import Episode
from gymrail.progress import report_progress
from gymrail.serving.http import create_app
from gymrail.serving.loopback import serve_on_loopback
from gymrail.serving.service import Service
from gymrail.serving.settings import Settings
from gymrail.spec import EnvironmentSpec
from gymrail.tools import Image

KEY = "the-key-of-the-server"
ANSWER = "xyzzy-planted-answer"
PIXEL = b"\x89PNG of one pixel"


class OfficeTask(Task):
    recipient: str
    """To whom the letter must go."""
    secret: str = ANSWER


class Letter(BaseModel):
    to: str
    text: str


class Outbox(BaseModel):
    letters: list[Letter]
    count: int


class Office(Environment[OfficeTask]):
    """Send a letter."""

    def seed(self) -> None:
        self.letters: list[Letter] = []
        self.steps: list[str] = []
        self.entered, self.gate = asyncio.Event(), asyncio.Event()
        self.is_closed = False

    @tool
    def send(self, to: str, text: str = "") -> str:
        """Send a letter."""
        if not to:
            raise ToolError("Say to whom.")
        self.letters.append(Letter(to=to, text=text))
        return f"sent to {to}"

    @tool(read_only=True)
    def outbox(self) -> Outbox:
        """List what was sent."""
        return Outbox(letters=self.letters, count=len(self.letters))

    @tool(destructive=True, idempotent=True)
    def shred(self) -> str:
        """Forget what was sent."""
        self.letters.clear()
        return "gone"

    @tool
    async def file(self) -> str:
        """Take two steps, with a pause that lasts until the gate opens."""
        self.steps.append("first")
        self.entered.set()
        await self.gate.wait()
        self.steps.append("second")
        return "filed"

    @tool(blocking=True)
    def count(self, to: int) -> str:
        """Count in a thread, and say how far it is."""
        for number in range(1, to + 1):
            report_progress(number, to, f"at {number}")
        return str(to)

    @tool(read_only=True)
    def picture(self) -> list[Any]:
        """Show a picture."""
        return ["look:", Image(PIXEL)]

    @tool
    def crash(self) -> str:
        """Break."""
        raise RuntimeError(f"{self.task.secret} in {__file__}")

    @tool
    def leave(self) -> str:
        """End the episode."""
        self.done = True
        return "bye"

    def close(self) -> None:
        self.is_closed = True

    def verify(self, rollout: Rollout) -> Verdict:
        if rollout.final_text == "break the verifier":
            raise RuntimeError(f"{self.task.secret} in {__file__}")
        right = [letter for letter in self.letters if letter.to == self.task.recipient]
        return Verdict(float(len(right) == 1 == len(self.letters)), metrics={"letters": len(self.letters)})


OFFICE = EnvironmentSpec("office", Office)
ROW = {"responses_create_params": {"input": "Write to Ana."}, "recipient": "Ana", "secret": ANSWER}


def row(**fields: Any) -> dict[str, Any]:
    return {**ROW, **fields}


def said(text: str, *items: dict[str, Any]) -> dict[str, Any]:
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    return {"id": "resp_1", "output": [*items, message]}


class Served:
    """A server, who holds its key, and an agent."""

    def __init__(self, url: str, service: Service, control: httpx.AsyncClient, agent: httpx.AsyncClient) -> None:
        self.url, self.service, self.control, self.agent = url, service, control, agent

    async def seed(self, path: str = "/seed_session", **fields: Any) -> dict[str, Any]:
        answer = await self.control.post(path, json=row(**fields))
        self.control.cookies.clear()
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def verify(self, seeded: dict[str, Any], path: str = "/verify", **fields: Any) -> httpx.Response:
        answer = await self.control.post(
            path, json=row(**fields), headers={"x-gymrail-episode-id": seeded["episode_id"]}
        )
        self.control.cookies.clear()
        return answer

    def environment(self, seeded: dict[str, Any]) -> Any:
        held = self.service.table.by_id(seeded["episode_id"])
        assert held is not None
        return held.episode.environment


@contextlib.asynccontextmanager
async def served(
    *specs: EnvironmentSpec, settings: Settings | None = None, has_key: bool = True
) -> AsyncIterator[Served]:
    """Serve the office, or what is given, on a free port."""
    settings = settings or Settings.for_address("127.0.0.1", key=KEY)
    app = create_app(specs or (OFFICE,), settings)
    headers = {"authorization": f"Bearer {settings.key}"} if has_key and settings.key else {}
    async with (
        serve_on_loopback(app) as url,
        httpx.AsyncClient(base_url=url, headers=headers, timeout=120, trust_env=False, verify=False) as control,
        httpx.AsyncClient(base_url=url, timeout=120, trust_env=False, verify=False) as agent,
    ):
        yield Served(url, app.state.service, control, agent)


def run(test: Callable[[Served], Awaitable[None]], *specs: EnvironmentSpec, settings: Settings | None = None) -> None:
    """Run a test against a server; whatever hangs is cut off."""

    async def inside() -> None:
        async with asyncio.timeout(300), served(*specs, settings=settings) as server:
            await test(server)

    asyncio.run(inside())


def live_episodes() -> int:
    """How many episode objects are alive in this process."""
    gc.collect()
    return sum(isinstance(thing, Episode) for thing in gc.get_objects())
