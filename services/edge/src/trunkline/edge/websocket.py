"""Carrier lines over WebSocket, on the port of the webhooks, and cheap: fifty messages a second come in on each.

uvicorn serves HTTP; when a client asks for an upgrade, the connection is picows' from there on
(https://picows.readthedocs.io). No framework layer and no parser in Python stand between the socket and the call. Knows
no carrier's language.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final
from urllib.parse import urlsplit

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest
from picows.common import WSUpgradeResponse, WSUpgradeResponseWithListener
from picows.picows import WSAutoPingStrategy, WSProtocol  # type: ignore[attr-defined] # compiled, not in the stub
from starlette.types import Scope

from trunkline.edge.carrier import Line, Message
from trunkline.edge.close_codes import ABNORMAL, INVALID_PAYLOAD, MESSAGE_TOO_BIG
from trunkline.edge.errors import LineClosed
from trunkline.edge.gate import Gate, Visitor
from trunkline.edge.metrics import EdgeMetrics

log = logging.getLogger("trunkline.edge.websocket")
_picows = logging.getLogger("trunkline.edge.picows")
_picows.setLevel(logging.CRITICAL)  # what is wrong with a connection, its line tells

MAX_MESSAGE_BYTES: Final = 65_536
_REASON_BYTES: Final = 123  # RFC 6455, section 5.5: a control frame carries 125 bytes, two of them the code
_MOST_WAITING: Final = 256
"""Messages that wait to be taken before the socket is read no further: five seconds of a call."""
_HANDSHAKE_S: Final = 5.0
_CLOSE_S: Final = 2.0
"""How long the other side may take to close, once it was told; until then it is still read."""
_IDLE_S: Final = 20.0
"""A line that is silent for so long is asked whether it lives, and has as long to answer."""


class WebSocketLine(WSListener):
    """A `Line` on a WebSocket, served by `answer` as soon as it is open."""

    def __init__(self, answer: Callable[[Line], Coroutine[Any, Any, None]]) -> None:
        self._answer = answer
        self._transport: WSTransport | None = None
        self._messages: deque[Message] = deque()
        self._taker: Callable[[Message], None] | None = None
        self._parts: bytearray | None = None
        self._parts_are_text = False
        self._news: asyncio.Future[None] | None = None
        self._reading = True
        self._writable = asyncio.Event()
        self._writable.set()
        self._closed: LineClosed | None = None
        self._serving: asyncio.Task[None] | None = None

    # --- what a call uses ---------------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """Wait for the next message."""
        while not self._messages:
            if self._closed is not None:
                raise self._why(self._closed)
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        self._read_on()
        return self._messages.popleft()

    async def listen(self, take: Callable[[Message], None]) -> None:
        """Hand every message to `take` from now on."""
        while self._messages:
            take(self._messages.popleft())
        self._read_on()
        self._taker = take
        try:
            while self._closed is None:
                self._news = asyncio.get_running_loop().create_future()
                await self._news
        finally:
            self._taker = None
        raise self._why(self._closed)

    async def send(self, message: Message) -> None:
        """Send `message`; waits while the socket's buffer is full."""
        await self._writable.wait()
        if self._closed is not None or self._transport is None:
            raise self._why(self._closed or LineClosed(ABNORMAL))
        if isinstance(message, str):
            self._transport.send(WSMsgType.TEXT, message.encode())
        else:
            self._transport.send(WSMsgType.BINARY, message)

    async def close(self, code: int, reason: str) -> None:
        """Close; the reason is cut to what a close frame holds."""
        if self._closed is None:
            self._say_goodbye(code, reason.encode()[:_REASON_BYTES].decode(errors="ignore"))

    # --- what picows calls --------------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Serve the line."""
        self._transport = transport
        self._serving = asyncio.create_task(self._answer(self), name="line")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take a frame, or a part of a message."""
        kind = frame.msg_type
        if transport.is_close_frame_sent and self._closed is None:
            self._found_fault(transport)  # and yet it hands over what comes until the socket is closed
        if kind is WSMsgType.CLOSE:
            self._on_close(transport, frame)
        elif self._closed is not None or kind is WSMsgType.PONG:
            return
        else:
            try:
                message = self._message_of(frame)
            except UnicodeDecodeError:
                self._say_goodbye(INVALID_PAYLOAD, "no UTF-8")
            else:
                if message is not None:
                    self._take(message)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Nothing comes any more; if nobody said goodbye, picows may have."""
        self._found_fault(transport)

    def pause_writing(self) -> None:
        """The other side does not read."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It reads again."""
        self._writable.set()

    # --- inside -------------------------------------------------------------------------------------------------------

    def _message_of(self, frame: WSFrame) -> Message | None:
        """Return the message that ends with `frame`; None while there is more to come, or too much has."""
        kind = frame.msg_type
        if frame.fin and kind is WSMsgType.TEXT:
            text: str = frame.get_payload_as_utf8_text()
            return text
        if frame.fin and kind is WSMsgType.BINARY:
            return frame.get_payload_as_bytes()
        if self._parts is None:
            self._parts, self._parts_are_text = bytearray(), kind is WSMsgType.TEXT
        self._parts += frame.get_payload_as_bytes()
        if len(self._parts) > MAX_MESSAGE_BYTES:
            self._say_goodbye(MESSAGE_TOO_BIG, "message too big")
        elif frame.fin:
            whole, self._parts = bytes(self._parts), None
            return whole.decode() if self._parts_are_text else whole
        return None

    def _take(self, message: Message) -> None:
        taker = self._taker
        if taker is not None:
            try:
                taker(message)
            except Exception as error:  # noqa: BLE001 - raised where the taker came from
                self._taker = None
                self._tell(error)
            return
        self._messages.append(message)
        self._tell()
        if len(self._messages) >= _MOST_WAITING and self._reading and self._transport is not None:
            self._reading = False
            self._transport.underlying_transport.pause_reading()

    def _read_on(self) -> None:
        if not self._reading and len(self._messages) < _MOST_WAITING // 2 and self._transport is not None:
            self._reading = True
            self._transport.underlying_transport.resume_reading()

    def _on_close(self, transport: WSTransport, frame: WSFrame) -> None:
        code = int(frame.get_close_code().value)
        if not transport.is_close_frame_sent:
            transport.send_close(WSCloseCode.OK if code == WSCloseCode.NO_INFO.value else frame.get_close_code())
        self._end(LineClosed(code, frame.get_close_reason() or ""))
        transport.disconnect()

    def _found_fault(self, transport: WSTransport) -> None:
        """End the line as picows did, if it did: it speaks the protocol, and closes when the other side does not."""
        told = transport.close_handshake.sent if transport.close_handshake is not None else None
        self._end(LineClosed(int(told.code.value), told.reason) if told is not None else LineClosed(ABNORMAL))

    def _say_goodbye(self, code: int, reason: str) -> None:
        """Tell the other side, and read until it has answered: what it has sent meanwhile must not reset the line."""
        self._end(LineClosed(code, reason))
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send_close(WSCloseCode(code), reason.encode())
            if not self._reading:
                self._transport.underlying_transport.resume_reading()
            asyncio.get_running_loop().call_later(_CLOSE_S, self._transport.disconnect)

    def _end(self, closed: LineClosed) -> None:
        if self._closed is None:
            self._closed = closed
            self._taker = None
            self._writable.set()
            self._tell()

    @staticmethod
    def _why(closed: LineClosed) -> LineClosed:
        """Return another one to raise: one that is kept would keep whoever it is raised to."""
        return LineClosed(closed.code, closed.reason)

    def _tell(self, error: Exception | None = None) -> None:
        news, self._news = self._news, None
        if news is None or news.done():
            return
        if error is None:
            news.set_result(None)
        else:
            news.set_exception(error)


class _Connection(WSProtocol):  # type: ignore[misc] # a class of picows' compiled module
    """One connection, from the upgrade on. uvicorn makes it, and hands it the request it has read."""

    _host: str = ""

    def __init__(self, open_line: Callable[[WSUpgradeRequest, str], Any], connections: set[Any]) -> None:
        super().__init__(
            None,
            None,
            False,
            lambda request: open_line(request, self._host),
            _picows,
            True,
            _HANDSHAKE_S,
            True,
            _IDLE_S,
            _IDLE_S,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            True,
            MAX_MESSAGE_BYTES,
            None,
            4_096,
        )
        self._connections = connections

    def connection_made(self, transport: asyncio.Transport) -> None:
        peer = transport.get_extra_info("peername")
        self._host = str(peer[0]) if peer else ""
        self._connections.add(self)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Take what uvicorn has read of the connection. What follows comes through picows' own buffer."""
        rest = memoryview(data)
        while rest:
            room = self.get_buffer(-1)
            taken = min(len(room), len(rest))
            room[:taken] = rest[:taken]
            self.buffer_updated(taken)
            rest = rest[taken:]

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close, because the server stops."""
        self.transport.send_close(WSCloseCode.SERVICE_RESTART)
        self.transport.disconnect()


class MediaSocket:
    """Where carriers connect to: lets in whom the gate lets in, and has their lines answered.

    Args:
        path: of the socket; others are not found.
        gate: who is let in.
        answer: serves a line to its end.
        metrics: the edge's.
    """

    def __init__(self, path: str, gate: Gate, answer: Callable[[Line], Awaitable[None]], metrics: EdgeMetrics) -> None:
        self._path = path
        self._gate = gate
        self._answer = answer
        self._metrics = metrics

    def connection(self, config: object, server_state: Any, app_state: object) -> _Connection:
        """Return what takes a connection over, as uvicorn's setting ``ws`` has it."""
        del config, app_state
        return _Connection(self._open, server_state.connections)

    def _open(self, request: WSUpgradeRequest, host: str) -> WSUpgradeResponseWithListener:
        url = urlsplit(request.path.decode("latin-1"))
        if url.path != self._path:
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(404, b"not found"), None)
        headers = {name.lower(): value for name, value in request.headers.items()}
        problem = self._gate.socket(Visitor(host, url.path, url.query, headers))
        if problem is not None:
            self._metrics.refused["socket-not-allowed"] += 1
            log.warning("socket refused", extra={"problem": problem})
            response = WSUpgradeResponse.create_error_response(403, problem.encode())
            return WSUpgradeResponseWithListener(response, None)
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(), WebSocketLine(self._serve))

    async def _serve(self, line: Line) -> None:
        try:
            await self._answer(line)
        except Exception:
            log.exception("line failed")
            await line.close(WSCloseCode.INTERNAL_ERROR.value, "")


def visitor_of(scope: Scope) -> Visitor:
    """Return who is behind an HTTP request."""
    client = scope.get("client")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    raw_path = scope.get("raw_path") or scope["path"].encode()
    return Visitor(
        client[0] if client else "", raw_path.decode("latin-1"), scope["query_string"].decode("latin-1"), headers
    )
