"""The HTTP client: many loops and threads, TLS, proxies, what is retried at once, forks, headers."""

import asyncio
import contextlib
import multiprocessing
import os
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gymrail.errors import InputError, ModelError
from gymrail.models.http import HttpClient, TryAgain, Unreachable
from gymrail.models.model import ModelRequest
from gymrail.models.openai import EndpointSettings, OpenAIModel
from tests.core.models.certificates import make_certificates
from tests.core.models.endpoint import Answer, Endpoint, chat, error

REQUEST = ModelRequest([{"role": "user", "content": "Hi"}])


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A folder with a certificate for localhost, its key, and the authority behind it."""
    make_certificates(tmp_path)
    return tmp_path


def client(url: str, timeout_seconds: float = 60.0) -> HttpClient:
    return HttpClient(url, {}, timeout_seconds)


@asynccontextmanager
async def serving_tls(certificates: Path) -> AsyncIterator[str]:
    """Answer over TLS with a certificate for localhost that only its own authority vouches for."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}/v1"


def test_one_client_serves_threads_with_event_loops_of_their_own_at_once() -> None:
    async def ask(http: HttpClient, times: int) -> list[int]:
        replies = await asyncio.gather(*(http.post_json("x", b"{}", 60) for _ in range(times)))
        return [reply.status for reply in replies]

    async def run() -> list[int]:
        async with Endpoint(lambda _: Answer({})) as endpoint:
            http = client(endpoint.url)
            statuses: list[int] = []
            threads = [threading.Thread(target=lambda: statuses.extend(asyncio.run(ask(http, 10)))) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                await asyncio.to_thread(thread.join, 120)
            statuses += await ask(http, 10)
            await http.close()
            return statuses

    assert asyncio.run(run()) == [200] * 50


def test_a_client_that_is_closed_during_a_request_sends_it_again_on_a_new_one() -> None:
    async def run() -> None:
        arrived = asyncio.Event()

        def answer(received: object) -> Answer:
            first = not arrived.is_set()
            arrived.set()
            return Answer(trouble="hang") if first else chat("ok")

        async with Endpoint(answer) as endpoint, OpenAIModel("m", endpoint.url) as model:
            asking = asyncio.create_task(model.respond(REQUEST))
            async with asyncio.timeout(120):
                await arrived.wait()
                await model.close()
                assert "ok" in str(await asking)
            assert model.retries == 1

    asyncio.run(run())


def test_a_connection_that_closed_without_an_answer_costs_no_wait_once() -> None:
    slow = EndpointSettings(max_retries=2, first_wait_seconds=600, max_wait_seconds=600)

    async def run(answers: list[Answer], seconds: float) -> int:
        async with Endpoint(answers) as endpoint, OpenAIModel("m", endpoint.url, settings=slow) as model:
            async with asyncio.timeout(seconds):
                await model.respond(REQUEST)
            return model.retries

    assert asyncio.run(run([Answer(trouble="disconnect"), chat("ok")], 120)) == 1
    with pytest.raises(TimeoutError):  # a server that keeps doing so is waited for
        asyncio.run(run([Answer(trouble="disconnect"), Answer(trouble="disconnect"), chat("ok")], 0.5))


def test_a_certificate_that_nobody_vouches_for_is_not_retried_and_the_error_names_the_variable(
    certificates: Path,
) -> None:
    async def run() -> None:
        async with serving_tls(certificates) as url, OpenAIModel("m", url) as model:
            with pytest.raises(ModelError, match=r"is not trusted \(UnknownIssuer\); fix it, or .* SSL_CERT_FILE"):
                await model.respond(REQUEST)
            assert model.retries == 0

    asyncio.run(run())


def test_an_authority_that_ssl_cert_file_names_is_trusted(monkeypatch: pytest.MonkeyPatch, certificates: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "authority.pem"))

    async def run() -> None:
        async with serving_tls(certificates) as url:
            http = client(url)
            assert (await http.get("models", 60)).status == 200
            await http.close()

    asyncio.run(run())


def test_a_request_has_a_limit_of_its_own_and_says_which() -> None:
    async def run() -> None:
        async with Endpoint(lambda _: Answer(trouble="hang")) as endpoint:
            http = client(endpoint.url)
            with pytest.raises(TryAgain, match=r"gave no answer within 0\.1 seconds"):
                await http.post_json("x", b"{}", 0.1)
            await http.close()

    asyncio.run(run())


@pytest.mark.parametrize("turns", range(6))
def test_a_request_that_is_given_up_as_its_endpoint_stops_leaves_nothing_open(turns: int) -> None:
    async def run() -> None:
        async with Endpoint(lambda _: Answer({})) as endpoint:
            http = client(endpoint.url)
            asking = asyncio.create_task(http.get("models", 60))
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking
        await http.close()

    asyncio.run(run())  # the suite's own check sees what is open


def test_a_redirect_is_an_answer_and_header_names_ignore_case() -> None:
    async def run() -> None:
        async with Endpoint([error(307, "gone", headers={"Location": "http://elsewhere.invalid/"})]) as endpoint:
            http = client(endpoint.url)
            reply = await http.post_json("x", b"{}", 60)
            assert (reply.status, reply.headers.get("LOCATION")) == (307, "http://elsewhere.invalid/")
            received = endpoint.received[0].headers
            assert "Accept-Encoding" not in received
            await http.close()

    asyncio.run(run())


@pytest.mark.parametrize("key", ["sk-secret\n", "sk-sécret", "a\r\nX-Evil: 1"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(InputError, match=r"HTTP cannot carry the key \(api_key\)") as caught:
        OpenAIModel("m", "http://127.0.0.1:1/v1", api_key=key)
    assert "cret" not in str(caught.value)


def test_a_socks_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        methods = await reader.readexactly(2)
        await reader.readexactly(methods[1])
        writer.write(b"\x05\x00")
        head = await reader.readexactly(5)
        asked.append(await reader.readexactly(head[4] + 2))
        writer.write(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            monkeypatch.setenv("http_proxy", f"socks5h://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            monkeypatch.setenv("no_proxy", "")
            http = client("http://model.invalid/v1")
            assert (await http.get("models", 60)).body == b"{}"
            await http.close()

    asyncio.run(run())
    assert asked == [b"model.invalid\x00\x50"]


def _ask_in_child(http: HttpClient, url: str, pipe: object) -> None:
    async def ask(asked: HttpClient) -> str:
        try:
            await asked.get("models", 60)
        except Unreachable as problem:
            return str(problem)
        return "answered"

    pipe.send([asyncio.run(ask(http)), asyncio.run(ask(HttpClient(url, {}, 60)))])  # pyright: ignore


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
@pytest.mark.parametrize("has_proxy", [False, True], ids=["plain", "proxy"])
def test_a_fork_asks_over_connections_of_its_own_or_the_error_says_to_spawn(
    has_proxy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if has_proxy:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")

    async def run() -> list[str]:
        async with Endpoint(lambda _: Answer({})) as endpoint:
            http = client(endpoint.url)
            await http.get("models", 60)
            context = multiprocessing.get_context("fork")
            here, there = context.Pipe()
            child = context.Process(target=_ask_in_child, args=(http, endpoint.url, there))
            child.start()
            try:
                assert await asyncio.to_thread(here.poll, 120), "the child hangs"
                said = here.recv()
                await asyncio.to_thread(child.join, 120)
                assert child.exitcode == 0
            finally:
                child.kill()
            assert (await http.get("models", 60)).status == 200  # the parent's own client still works
            await http.close()
            return said

    for text in asyncio.run(run()):
        assert ("start worker processes with the 'spawn' method" in text) if has_proxy else (text == "answered")
