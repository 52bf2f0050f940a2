"""Connections of adapters: in time, to nobody else, and silent about what they carry."""

import asyncio
import logging
from collections.abc import Coroutine

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from websockets.http11 import Response

from trunkline.providers.errors import ProviderError, Transient, of_status
from trunkline.providers.sockets import connected
from trunkline.testing.patience import PATIENCE_S

pytestmark = pytest.mark.integration

HEADERS = {"xi-api-key": "that-nobody-may-read"}


def refused(response: Response) -> ProviderError:
    return of_status(response.status_code, "refused")


def run(story: Coroutine[None, None, None]) -> None:
    async def told() -> None:
        async with asyncio.timeout(2 * PATIENCE_S):
            await story

    asyncio.run(told())


def test_a_redirect_does_not_lead_the_key_anywhere() -> None:
    reached = []

    async def elsewhere(request: web.Request) -> web.Response:
        reached.append(request)
        return web.Response(status=500)

    async def story() -> None:
        app, other = web.Application(), web.Application()
        other.router.add_get("/", elsewhere)
        async with TestServer(other) as there:

            async def redirect(_: web.Request) -> web.Response:
                return web.Response(status=307, headers={"location": str(there.make_url("/")).replace("http", "ws")})

            app.router.add_get("/", redirect)
            async with TestServer(app) as here:
                with pytest.raises(ProviderError) as failure:
                    await connected(str(here.make_url("/")).replace("http", "ws"), HEADERS, PATIENCE_S, refused)
                assert failure.value.kind == "rejected"

    run(story())
    assert not reached


def test_neither_key_nor_words_are_logged_whatever_the_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(await socket.receive_str())
        return socket

    async def story() -> None:
        app = web.Application()
        app.router.add_get("/", echo)
        async with TestServer(app) as server:
            connection = await connected(str(server.make_url("/")).replace("http", "ws"), HEADERS, PATIENCE_S, refused)
            await connection.send("a table for two")
            assert await connection.recv() == "a table for two"
            await connection.close()

    run(story())
    assert not [line for line in caplog.messages if "that-nobody" in line or "table" in line]


@pytest.mark.parametrize("answer", [b"", b"no HTTP at all\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000])
def test_what_is_no_handshake_is_no_connection_and_is_not_quoted(answer: bytes) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async def story() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(Transient) as failure:
                await connected(f"ws://127.0.0.1:{port}/", HEADERS, PATIENCE_S, refused)
        assert failure.value.kind == "connect"
        assert "HTTP" not in str(failure.value)

    run(story())


def test_the_text_of_an_error_is_one_line_that_can_be_sent() -> None:
    text = str(ProviderError("half \ud800, a bell \a\nand \x1b[31mred"))
    assert text.encode().decode() == text
    assert text.isprintable()
