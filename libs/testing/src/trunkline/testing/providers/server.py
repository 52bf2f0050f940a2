"""The server under every emulator: where it listens, what it has seen, and how it fails.

A vendor's emulator adds routes. Each handler first asks `Emulator.admit`, which fails the request if it is to fail
before the first byte, and sends what it has to say through an `Answer`, where the faults of a running answer happen.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from enum import StrEnum
from typing import Any, Final, NamedTuple, Self

from aiohttp import WSMsgType, web

_LORIS_S: Final = 0.1


class Fault(StrEnum):
    """A way to fail."""

    REFUSE = "refuse"
    """Nobody listens: connections are refused, and those that were open are reset."""
    UNAUTHORISED = "unauthorised"
    """HTTP 401, in the vendor's words."""
    THROTTLED = "throttled"
    """HTTP 429, with ``retry-after``."""
    SERVER_ERROR = "server-error"
    """HTTP 503."""
    HANG = "hang"
    """The request is read; not a byte comes back, and the connection stays open."""
    STALL = "stall"
    """The answer begins; then nothing more comes, and the connection stays open."""
    DROP = "drop"
    """The answer begins; then the connection is reset."""
    HALF_CLOSE = "half-close"
    """The answer begins; then our side of the connection is closed without a word, while the other is still read."""
    MALFORMED = "malformed"
    """In the answer stands a message that is no message at all."""
    UNKNOWN_TYPE = "unknown-type"
    """In the answer stands a well-formed message of a type nobody knows. Harmless, if it is taken so."""
    SLOW_LORIS = "slow-loris"
    """The answer begins; then it trickles, one byte every 100 ms."""


_CHOSEN: Final = web.RequestKey("trunkline.fault", Fault)

BEFORE: Final = frozenset({Fault.REFUSE, Fault.UNAUTHORISED, Fault.THROTTLED, Fault.SERVER_ERROR, Fault.HANG})
"""Faults that happen before the first byte of an answer."""


class Seen(NamedTuple):
    """A request, or the opening of a WebSocket."""

    at: float
    """Monotonic seconds."""
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    """Of a request; empty for a WebSocket."""


class Emulator:
    """One emulated provider. Use it as an async context manager; subclasses add routes and bodies.

    Attributes:
        key: what clients must authenticate with; anything else is refused as the vendor would.
        seen: every request and WebSocket so far, those that failed too; refused connections cannot be seen.
        choose: how a request fails, or a WebSocket for as long as it is open, while nothing is injected; so that one
            emulator serves the healthy and the failing at once. `Fault.REFUSE` resets the connection here.
    """

    def __init__(self, *, key: str = "test-key") -> None:
        self.key: Final = key
        self.seen: list[Seen] = []
        self.fault: Fault | None = None
        self.after = 2
        self.retry_after_s = 7
        self.choose: Callable[[Seen], Fault | None] = lambda _: None
        self._left: int | None = None
        self._port = 0
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._sockets: set[web.WebSocketResponse] = set()
        self._closing = asyncio.Event()

    # --- for subclasses -----------------------------------------------------------------------------------------------

    def routes(self) -> list[web.RouteDef]:
        """Return what is served; handlers take a request and return a response."""
        raise NotImplementedError

    def refusal(self, status: int, text: str) -> web.Response:
        """Return the vendor's way to say no with `status`. The base's is a JSON error with a message."""
        return web.json_response({"error": {"message": text, "type": "error", "code": status}}, status=status)

    def unknown(self) -> str | bytes:
        """Return a well-formed message of a type that does not exist, as it goes on the wire of this vendor."""
        return '{"type": "BrandNewThing", "value": 1}'

    def malformed(self) -> str | bytes:
        """Return what no client of this vendor can read."""
        return '{"type": "Resul'

    async def admit(self, request: web.Request, given_key: str) -> web.StreamResponse | None:
        """Note `request`; return the response that refuses it, or None when it may be served.

        With `Fault.HANG` this does not return until the client has gone or the emulator closes.
        """
        body = b"" if request.headers.get("upgrade") else await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        seen = Seen(time.monotonic(), request.method, request.path, dict(request.query), headers, body)
        self.seen.append(seen)
        if (chosen := self.choose(seen)) is not None:
            request[_CHOSEN] = chosen
        match self._take_fault() or chosen:
            case Fault.REFUSE if request.transport is not None:
                request.transport.abort()
                raise _Gone
            case Fault.UNAUTHORISED:
                return self.refusal(401, f"Incorrect API key provided: {given_key}")
            case Fault.THROTTLED:
                response = self.refusal(429, "Too many requests")
                response.headers["retry-after"] = str(self.retry_after_s)
                return response
            case Fault.SERVER_ERROR:
                return self.refusal(503, "The server is overloaded")
            case Fault.HANG:
                await self.until_gone(request)
                raise web.HTTPServiceUnavailable
            case _:
                pass
        if given_key != self.key:
            return self.refusal(401, f"Incorrect API key provided: {given_key}")
        return None

    async def until_gone(self, request: web.BaseRequest) -> None:
        """Wait until the client of `request` has gone, or the emulator closes."""
        while not self._closing.is_set() and (transport := request.transport) is not None:
            if transport.is_closing():
                return
            await asyncio.sleep(0.02)

    async def stream(self, request: web.Request, content_type: str, status: int = 200) -> "Answer":
        """Begin a streamed HTTP response and return its answer; `Answer.end` it."""
        response = web.StreamResponse(status=status, headers={"content-type": content_type})
        await response.prepare(request)
        return Answer(self, request, response.write, response)

    @contextlib.asynccontextmanager
    async def socket(self, request: web.Request) -> AsyncIterator[tuple[web.WebSocketResponse, "Answer"]]:
        """Accept a WebSocket; closed with 1000 at the end of the block, unless it is closed already."""
        ws = web.WebSocketResponse(compress=False, max_msg_size=2**24)
        await ws.prepare(request)
        self._sockets.add(ws)

        async def send(data: bytes) -> None:
            await ws.send_bytes(data)

        try:
            yield ws, Answer(self, request, send, ws)
            await ws.close()
        finally:
            self._sockets.discard(ws)

    # --- for whoever runs it ------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """``http://127.0.0.1:<port>``."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def sockets(self) -> int:
        """How many WebSockets are open."""
        return len(self._sockets)

    async def inject(self, fault: Fault, *, times: int | None = None, after: int = 2) -> None:
        """Fail from now on: open connections too, where the fault is one of a running answer.

        Args:
            fault: how.
            times: how many requests, or messages of open connections; None: until `heal`.
            after: messages of an answer that still go out before a fault in its midst.
        """
        await self.heal()
        self.fault, self._left, self.after = fault, times, after
        if fault is Fault.REFUSE:
            await self._stop_listening()
            self.drop_all()

    async def heal(self) -> None:
        """Work again."""
        self.fault = self._left = None
        if self._runner is not None and self._server is None:
            await self._listen(self._runner)

    def drop_all(self) -> None:
        """Reset every open connection."""
        server = self._runner.server if self._runner is not None else None
        for connection in server.connections if server is not None else ():
            if isinstance(connection.transport, asyncio.WriteTransport):
                connection.transport.abort()

    async def __aenter__(self) -> Self:
        """Listen."""
        app = web.Application(client_max_size=2**26, middlewares=[self._tracked])
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await self._listen(self._runner)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close everything."""
        self._closing.set()
        self.drop_all()
        await self._stop_listening()
        if self._runner is not None:
            await self._runner.cleanup()

    # --- inside -------------------------------------------------------------------------------------------------------

    def _take_fault(self) -> Fault | None:
        """Return the fault the next request or message suffers, counted."""
        if self.fault is None or self._left == 0:
            return None
        if self._left is not None and self.fault in BEFORE:
            self._left -= 1
        return self.fault

    def spend(self) -> bool:
        """Count one answer that fails in its midst; return whether it is to."""
        if self._left == 0:
            return False
        if self._left is not None:
            self._left -= 1
        return True

    async def _listen(self, runner: web.AppRunner) -> None:
        if runner.server is None:
            return
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(runner.server, "127.0.0.1", self._port, reuse_address=True)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    @web.middleware
    async def _tracked(self, request: web.Request, handler: Callable[[web.Request], Awaitable[Any]]) -> Any:
        try:
            return await handler(request)
        except (ConnectionError, _Gone):  # there is nobody left to answer
            raise asyncio.CancelledError from None


class _Gone(Exception):
    """The answer was broken off on purpose."""


class Answer:
    """What goes back on one connection."""

    def __init__(
        self,
        emulator: Emulator,
        request: web.Request,
        send: Callable[[bytes], Awaitable[None]],
        response: web.StreamResponse,
    ) -> None:
        self._emulator = emulator
        self._request = request
        self._send = send
        self._response = response
        self._sent = 0
        self._failing: Fault | None = None

    async def send(self, data: str | bytes) -> None:
        """Send a message of a WebSocket (text or binary), or a piece of an HTTP body. May never return.

        Raises:
            ConnectionError: the client is gone.
        """
        fault = self._now()
        match fault:
            case Fault.STALL:
                await self._emulator.until_gone(self._request)
                raise _Gone
            case Fault.DROP:
                if self._request.transport is not None:
                    self._request.transport.abort()
                raise _Gone
            case Fault.HALF_CLOSE:
                transport = self._request.transport
                if transport is not None and transport.can_write_eof():
                    transport.write_eof()
                await self._emulator.until_gone(self._request)
                raise _Gone
            case Fault.MALFORMED | Fault.UNKNOWN_TYPE:
                self._failing = None
                malformed = fault is Fault.MALFORMED
                await self._out(self._emulator.malformed() if malformed else self._emulator.unknown())
                await self._out(data)
            case Fault.SLOW_LORIS:
                await self._trickle(data)
            case _:
                await self._out(data)
        self._sent += 1

    async def end(self) -> web.StreamResponse:
        """End an HTTP body; return the response for the handler to return."""
        await self._response.write_eof()
        return self._response

    def _now(self) -> Fault | None:
        emulator = self._emulator
        fault = emulator.fault or self._request.get(_CHOSEN)
        due = fault is not None and fault not in BEFORE and self._sent >= emulator.after
        if self._failing is None and due and emulator.spend():
            self._failing = fault
            if self._failing in {Fault.MALFORMED, Fault.UNKNOWN_TYPE}:
                self._sent = 0  # again after as many messages
        return self._failing

    async def _out(self, data: str | bytes) -> None:
        response = self._response
        if isinstance(response, web.WebSocketResponse):
            await (response.send_str(data) if isinstance(data, str) else response.send_bytes(data))
        else:
            await self._send(data.encode() if isinstance(data, str) else data)

    async def _trickle(self, data: str | bytes) -> None:
        raw = data.encode() if isinstance(data, str) else data
        if isinstance(self._response, web.WebSocketResponse):
            raw = _frame(WSMsgType.TEXT if isinstance(data, str) else WSMsgType.BINARY, raw)
        for at in range(len(raw)):
            transport = self._request.transport
            if transport is None or transport.is_closing():
                raise _Gone
            if isinstance(self._response, web.WebSocketResponse):
                transport.write(raw[at : at + 1])
            else:
                await self._send(raw[at : at + 1])
            await asyncio.sleep(_LORIS_S)


def _frame(kind: WSMsgType, payload: bytes) -> bytes:
    """Return `payload` as one unmasked WebSocket frame (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        length = bytes([size])
    elif size < 65_536:
        length = bytes([126]) + size.to_bytes(2, "big")
    else:
        length = bytes([127]) + size.to_bytes(8, "big")
    return bytes([0x80 | int(kind)]) + length + payload
