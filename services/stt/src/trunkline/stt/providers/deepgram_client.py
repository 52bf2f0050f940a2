"""A WebSocket to Deepgram: audio and orders out in order, messages in, and what went wrong as one of our errors.

The messages are the SDK's: its socket classes write what is sent and read what comes. The connection is our own, for
the one the SDK opens cannot be given up while its peer is silent (it waits 10 s and more for a polite end), hides why
it was refused and when to come again, builds a TLS context in the event loop for every call, and compresses audio.

Audio goes as G.711 μ-law, which is what the telephone delivered: nothing is lost, and half the bytes are sent. It is
put together into messages of 80 ms; orders do not wait for one to fill.
"""

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol
from urllib.parse import urlencode

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Response

from trunkline.audio.g711 import pcm16_to_mulaw
from trunkline.proto.agent import Option
from trunkline.providers.errors import Misconfigured, ProviderError, Rejected, Transient, of_status
from trunkline.providers.keys import BadAddress, MissingKey, address_of, key_of, socket_address, without_key
from trunkline.providers.sockets import connected
from trunkline.stt.provider import RATE_HZ

log = logging.getLogger("trunkline.stt.deepgram")

MESSAGE_BYTES: Final = 640
KEPT_BYTES: Final = 10 * RATE_HZ
SEND_S: Final = 2.0
"""A send that takes longer goes to a peer that is dead."""
KEEP_ALIVE_S: Final = 4.0
GOODBYE_S: Final = 0.3

Query = list[tuple[str, str]]


class Socket(Protocol):
    """What the SDK's socket classes for listening have in common."""

    async def send_media(self, message: bytes) -> None:
        """Send audio."""
        ...

    async def send_close_stream(self) -> None:
        """Say that there is no more audio."""
        ...

    async def recv(self) -> object:
        """Return the next message; None for one of an unknown type."""
        ...


Order = Callable[[Any], Awaitable[None]]
"""Sends something on a socket."""


def access(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the address and the key.

    Raises:
        Misconfigured: one is missing or cannot be used.
    """
    try:
        return socket_address(address_of("deepgram", environ, "https://api.deepgram.com")), key_of("deepgram", environ)
    except MissingKey as error:
        raise Misconfigured(error.variable, str(error)) from error
    except BadAddress as error:
        raise Misconfigured("DEEPGRAM_BASE_URL", str(error)) from error


def options_of(options: Mapping[str, Option], known: Mapping[str, Callable[[Option], bool]]) -> Query:
    """Return `options` as they stand in a query.

    Raises:
        Misconfigured: one is unknown, or its value is none it takes.
    """
    query: Query = []
    for name, value in options.items():
        if name not in known:
            raise Misconfigured(f"stt.options.{name}", f"unknown; expected one of {', '.join(sorted(known))}")
        if not known[name](value):
            raise Misconfigured(f"stt.options.{name}", f"cannot be {value!r}")
        query.append((name, str(value).lower() if isinstance(value, bool) else str(value)))
    return query


def is_flag(value: Option) -> bool:
    """Tell whether `value` is true or false."""
    return isinstance(value, bool)


def is_text(value: Option) -> bool:
    """Tell whether `value` is text that says something."""
    return isinstance(value, str) and bool(value.strip())


def within(low: float, high: float) -> Callable[[Option], bool]:
    """Return a test for numbers from `low` to `high`."""
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


class Line:
    """One call's connection, made and kept in the background.

    Args:
        url: where to, with the query.
        key: Deepgram's key.
        connect_s: how long making it may take.
        wrap: makes the SDK's socket of a connection.
        on_message: takes what comes; a `ValueError` or `msgspec.ValidationError` of its means it cannot be read, a
            `ProviderError` that the stream is over.
        on_lost: told once, when the connection cannot be used any more.
        keep_alive: sent after `KEEP_ALIVE_S` of silence.
    """

    def __init__(
        self,
        url: str,
        key: str,
        connect_s: float,
        wrap: Callable[[Any], Socket],
        on_message: Callable[[object], None],
        on_lost: Callable[[ProviderError], None],
        keep_alive: Order | None = None,
    ) -> None:
        self._url = url
        self._key = key
        self._connect_s = connect_s
        self._wrap = wrap
        self._on_message = on_message
        self._on_lost = on_lost
        self._keep_alive = keep_alive
        self._waiting: deque[bytearray | Order] = deque()
        self._waiting_bytes = 0
        self._sent_bytes = 0
        self._more = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._run(), name="deepgram")

    @property
    def at_s(self) -> float:
        """How much audio the stream has when all that waits is sent."""
        return (self._sent_bytes + self._waiting_bytes) / RATE_HZ

    def push(self, pcm: bytes) -> tuple[float, float] | None:
        """Send audio, or drop the oldest of it; return what was dropped: from where on, and how much, in s."""
        if self._task.done():
            return None
        data = pcm16_to_mulaw(pcm)
        if self._waiting and isinstance(self._waiting[-1], bytearray):
            self._waiting[-1] += data
        else:
            self._waiting.append(bytearray(data))
        self._waiting_bytes += len(data)
        too_much = self._waiting_bytes - KEPT_BYTES
        if too_much > 0:
            self._drop(too_much)
        if len(self._waiting) > 1 or self._waiting_bytes >= MESSAGE_BYTES:
            self._more.set()
        return (self._sent_bytes / RATE_HZ, too_much / RATE_HZ) if too_much > 0 else None

    def order(self, order: Order) -> None:
        """Send `order` behind all audio so far."""
        if not self._task.done():
            self._waiting.append(order)
            self._more.set()

    async def aclose(self) -> None:
        """Say goodbye if the other side takes it, and hang up."""
        self._closing = True
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=2 * GOODBYE_S)

    # --- the connection -----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            headers = {"Authorization": f"Token {self._key}"}
            connection = await connected(self._url, headers, self._connect_s, self._refused)
            try:
                await self._talk(self._wrap(connection), connection)
            finally:
                connection.transport.abort()
        except ProviderError as problem:
            error: ProviderError = problem
        except Exception as problem:
            log.exception("stream broke for a reason of our own")
            error = ProviderError(f"{type(problem).__name__} in the adapter")
        if not self._closing:
            self._closing = True
            self._on_lost(error)

    def _refused(self, response: Response) -> ProviderError:
        return refusal(response, self._key)

    async def _talk(self, socket: Socket, connection: ClientConnection) -> None:
        sender = asyncio.create_task(self._send_all(socket), name="deepgram sender")
        reader = asyncio.create_task(self._read_all(socket), name="deepgram reader")
        try:
            done, _ = await asyncio.wait({sender, reader}, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda task: task is sender):
                task.result()
        except ConnectionClosed as closed:
            raise closed_error(closed, self._key) from closed
        except asyncio.CancelledError:
            sender.cancel()
            with contextlib.suppress(TimeoutError, ConnectionClosed):
                async with asyncio.timeout(GOODBYE_S):
                    await socket.send_close_stream()
                    await connection.wait_closed()
            raise
        finally:
            for task in (sender, reader):
                task.cancel()
            await asyncio.gather(sender, reader, return_exceptions=True)

    async def _read_all(self, socket: Socket) -> None:
        while True:
            try:
                message = await socket.recv()
                if not self._closing:
                    self._on_message(message)
            except (ValueError, OverflowError, RecursionError, msgspec.ValidationError) as error:
                raise Transient("a message that cannot be read", "malformed") from error

    async def _send_all(self, socket: Socket) -> None:
        while True:
            try:
                async with asyncio.timeout(KEEP_ALIVE_S if self._keep_alive else None):
                    await self._more.wait()
            except TimeoutError:
                if self._keep_alive is not None:
                    await _bounded(self._keep_alive(socket))
                continue
            self._more.clear()
            while (next_ := self._next()) is not None:
                await _bounded(socket.send_media(next_) if isinstance(next_, bytes) else next_(socket))

    def _next(self) -> bytes | Order | None:
        """Return what is to be sent now; less than a message of audio waits for more, unless an order follows."""
        if not self._waiting:
            return None
        first = self._waiting[0]
        if not isinstance(first, bytearray):
            self._waiting.popleft()
            return first
        if len(first) < MESSAGE_BYTES and len(self._waiting) == 1:
            return None
        data = bytes(first[:MESSAGE_BYTES])
        del first[:MESSAGE_BYTES]
        if not first:
            self._waiting.popleft()
        self._waiting_bytes -= len(data)
        self._sent_bytes += len(data)
        return data

    def _drop(self, count: int) -> None:
        for part in self._waiting:
            if isinstance(part, bytearray):
                here = min(count, len(part))
                del part[:here]
                self._waiting_bytes -= here
                count -= here
        self._waiting = deque(part for part in self._waiting if part or not isinstance(part, bytearray))


async def _bounded(sending: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(SEND_S):
            await sending
    except TimeoutError as error:
        raise Transient(f"nothing could be sent for {SEND_S:.0f} s", "dropped") from error


def refusal(response: Response, key: str) -> ProviderError:
    """Return what a refused handshake stands for: of the JSON body ``err_code`` and ``err_msg``, else a header."""
    try:
        said = json.loads(response.body or b"")
        text = f"{said['err_code']}: {said['err_msg']}"
    except (ValueError, LookupError, TypeError, RecursionError):
        text = response.headers.get("dg-error", "refused")
    return of_status(response.status_code, without_key(text, key), response.headers.get("retry-after"))


def closed_error(closed: ConnectionClosed, key: str) -> ProviderError:
    """Return what a closed connection stands for, by its code and by Deepgram's own in the reason (``NET-0001``)."""
    code = closed.rcvd.code if closed.rcvd else 1006
    reason = without_key(closed.rcvd.reason, key) if closed.rcvd else "without a word"
    text = f"closed ({code}): {reason}"
    if code == 1008:  # DATA-0000: what was sent is no audio
        return Rejected(text)
    return Transient(text, "server" if code == 1011 and "NET-0001" not in reason else "dropped")


def url_of(address: str, path: str, query: Query) -> str:
    """Return the address of a stream; keys may repeat."""
    return f"{address}{path}?{urlencode(query)}"
