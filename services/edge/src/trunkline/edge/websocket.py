"""Carrier lines over WebSocket, straight on ASGI: a frame passes no framework layer on its way in.

https://asgi.readthedocs.io/en/latest/specs/www.html#websocket. Knows no carrier's language.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.types import Message as AsgiMessage
from starlette.types import Receive, Scope, Send

from trunkline.edge.carrier import Line, Message
from trunkline.edge.errors import LineClosed
from trunkline.edge.gate import Gate, Visitor
from trunkline.edge.metrics import EdgeMetrics

log = logging.getLogger("trunkline.edge.websocket")

_NO_STATUS: Final = 1005
_REASON_BYTES: Final = 123  # RFC 6455, section 5.5: a control frame carries 125 bytes, two of them the code


class WebSocketLine:
    """A `Line` on an accepted WebSocket."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._closed: LineClosed | None = None

    async def receive(self) -> Message:
        """Wait for the next message."""
        message = await self._receive()
        if message["type"] == "websocket.receive":
            text = message.get("text")
            return text if text is not None else bytes(message["bytes"])
        self._closed = LineClosed(int(message.get("code") or _NO_STATUS), str(message.get("reason") or ""))
        raise self._closed

    async def send(self, message: Message) -> None:
        """Send `message`; waits while the socket's buffer is full."""
        key = "text" if isinstance(message, str) else "bytes"
        await self._pass({"type": "websocket.send", key: message})

    async def close(self, code: int, reason: str) -> None:
        """Close; the reason is cut to what a close frame holds."""
        if self._closed is None:
            shortened = reason.encode()[:_REASON_BYTES].decode(errors="ignore")
            await self._pass({"type": "websocket.close", "code": code, "reason": shortened})
            self._closed = LineClosed(code, shortened)

    async def _pass(self, message: AsgiMessage) -> None:
        if self._closed is not None:
            raise self._closed
        try:
            await self._send(message)
        except (OSError, RuntimeError) as error:  # uvicorn: the peer is gone; or a close of its own went out before
            self._closed = LineClosed(1006, str(error))
            raise self._closed from error


class MediaSocket:
    """The ASGI endpoint: lets in whom the gate lets in, and hands their line over."""

    def __init__(self, gate: Gate, answer: Callable[[Line], Awaitable[None]], metrics: EdgeMetrics) -> None:
        self._gate = gate
        self._answer = answer
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        await receive()  # websocket.connect
        problem = self._gate.socket(visitor_of(scope))
        if problem is not None:
            self._metrics.refused["socket-not-allowed"] += 1
            log.warning("socket refused", extra={"problem": problem})
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "websocket.http.response.start", "status": 403, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": problem.encode()})
            return
        await send({"type": "websocket.accept"})
        await self._answer(WebSocketLine(receive, send))


def visitor_of(scope: Scope) -> Visitor:
    """Return who is behind an HTTP request or a WebSocket upgrade."""
    client = scope.get("client")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    raw_path = scope.get("raw_path") or scope["path"].encode()
    return Visitor(
        client[0] if client else "", raw_path.decode("latin-1"), scope["query_string"].decode("latin-1"), headers
    )
