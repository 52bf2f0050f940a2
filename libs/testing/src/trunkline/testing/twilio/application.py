"""The other end of the wire for tests of this library: an application that Twilio can call.

It answers the voice webhook with TwiML and hands every media stream to a coroutine of the test. It checks nothing and
keeps no rules: what an application does well or badly is the test's to write.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final
from urllib.parse import parse_qsl
from xml.sax.saxutils import quoteattr

import msgspec
from websockets.asyncio.server import ServerConnection, serve

HOST: Final = "127.0.0.1"
OnStream = Callable[[ServerConnection], Awaitable[None]]


class Asked(msgspec.Struct, frozen=True):
    """A request to the webhook."""

    method: str
    url: str
    headers: dict[str, str]
    """Names in lower case."""
    form: dict[str, str]
    """Empty for GET, whose parameters are in the URL."""


Answer = Callable[[Asked, str], str]
"""Return the TwiML for a request; the second argument is where the streams go."""


class Application(msgspec.Struct):
    """Where it listens, and what it was asked."""

    url: str
    """Origin of the webhook."""
    stream_url: str
    asked: list[Asked]


@contextlib.asynccontextmanager
async def application(
    on_stream: OnStream,
    *,
    parameters: dict[str, str] | None = None,
    twiml: str | None = None,
    status: int = 200,
    answer: Answer | None = None,
) -> AsyncIterator[Application]:
    """Run an application for the length of the block.

    Args:
        on_stream: lives through one media stream; the socket closes when it returns.
        parameters: the stream's `<Parameter>`s.
        twiml: answered instead of a `<Connect><Stream>`.
        status: HTTP status of the webhook.
        answer: asked for the TwiML of every request, instead of either.
    """
    async with serve(on_stream, HOST, 0, compression=None) as sockets:
        stream_url = f"ws://{HOST}:{sockets.sockets[0].getsockname()[1]}/stream"
        body = twiml or _connect(stream_url, parameters or {})
        asked: list[Asked] = []

        async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            content = (await reader.readexactly(int(headers.get("content-length", 0)))).decode()
            form = dict(parse_qsl(content, keep_blank_values=True))
            method, path, _ = head[0].split()
            request = Asked(method, f"http://{headers['host']}{path}", headers, form)
            asked.append(request)
            data = (body if answer is None else answer(request, stream_url)).encode()
            writer.write(
                f"HTTP/1.1 {status} Answer\r\nContent-Type: text/xml\r\nContent-Length: {len(data)}\r\n"
                "Connection: close\r\n\r\n".encode()
                + data
            )
            await writer.drain()
            writer.close()

        webhook = await asyncio.start_server(respond, HOST, 0)
        async with webhook:
            yield Application(f"http://{HOST}:{webhook.sockets[0].getsockname()[1]}", stream_url, asked)


def _connect(stream_url: str, parameters: dict[str, str]) -> str:
    inner = "".join(f"<Parameter name={quoteattr(k)} value={quoteattr(v)}/>" for k, v in parameters.items())
    return f"<Response><Connect><Stream url={quoteattr(stream_url)}>{inner}</Stream></Connect></Response>"
