"""How a test's own server ends."""

import asyncio

from aiohttp import web

_TURNS_TO_CONNECT = 3


async def stop_serving(runner: web.AppRunner) -> None:
    """Stop accepting, let what was accepted connect, then stop.

    Python 3.11 loses a connection that is under way when its server closes: its socket stays open until garbage
    collection finds it.
    """
    loop = asyncio.get_running_loop()
    for site in runner.sites:
        server = site._server
        for listener in server.sockets if isinstance(server, asyncio.Server) else ():
            loop.remove_reader(listener.fileno())
    for _ in range(_TURNS_TO_CONNECT):
        await asyncio.sleep(0)
    await runner.cleanup()
