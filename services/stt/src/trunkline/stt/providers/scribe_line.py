"""A WebSocket to Scribe: audio and commits out in order, messages in, and what went wrong as one of our errors.

What is sent is written by the SDK's connection class. The rest is our own, for what the SDK opens builds a TLS context
in the event loop for every call, compresses audio, and waits 10 s for the goodbye of a silent peer; and its reader
prints what goes wrong in a callback to the standard output, takes the loss of the connection for one more error
message, and forgets everything about a refusal but the exception.

Audio goes as G.711 μ-law, what the telephone delivered, in messages of 100 ms; a commit waits for none to fill.
"""

import asyncio
import base64
import contextlib
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from elevenlabs.realtime.connection import RealtimeConnection
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Response

from trunkline.audio.g711 import pcm16_to_mulaw
from trunkline.providers.errors import ProviderError, Rejected, Throttled, Transient, of_status
from trunkline.providers.keys import without_key
from trunkline.providers.sockets import connected
from trunkline.stt.provider import RATE_HZ

log = logging.getLogger("trunkline.stt.elevenlabs")

MESSAGE_BYTES: Final = 800
KEPT_BYTES: Final = 10 * RATE_HZ
SEND_S: Final = 2.0
"""A send that takes longer goes to a peer that is dead."""
_GOODBYE_S: Final = 0.3
_POLICY: Final = 1008
_INTERNAL: Final = 1011


class Line:
    """One call's connection, made and kept in the background.

    Args:
        url: where to, with the query.
        key: ElevenLabs' key.
        connect_s: how long making it may take.
        on_message: takes what comes; a `ValueError` of its means it cannot be read, a `ProviderError` that the stream
            is over.
        on_lost: told once, when the connection cannot be used any more.
    """

    def __init__(
        self,
        url: str,
        key: str,
        connect_s: float,
        on_message: Callable[[dict[str, Any]], None],
        on_lost: Callable[[ProviderError], None],
    ) -> None:
        self._url = url
        self._key = key
        self._connect_s = connect_s
        self._on_message = on_message
        self._on_lost = on_lost
        self._waiting: deque[bytearray | None] = deque()  # None: a commit
        self._waiting_bytes = 0
        self._more = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._run(), name="elevenlabs")

    def push(self, pcm: bytes) -> None:
        """Send audio; of what cannot be sent the oldest is dropped."""
        if self._task.done():
            return
        data = pcm16_to_mulaw(pcm)
        last = self._waiting[-1] if self._waiting else None
        if last is None:
            self._waiting.append(bytearray(data))
        else:
            last += data
        self._waiting_bytes += len(data)
        self._drop(self._waiting_bytes - KEPT_BYTES)
        if len(self._waiting) > 1 or self._waiting_bytes >= MESSAGE_BYTES:
            self._more.set()

    def commit(self) -> None:
        """Have all audio so far transcribed."""
        if not self._task.done():
            self._waiting.append(None)
            self._more.set()

    async def aclose(self) -> None:
        """Say goodbye if the other side takes part, and hang up."""
        self._closing = True
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=2 * _GOODBYE_S)

    async def _run(self) -> None:
        try:
            connection = await connected(self._url, {"xi-api-key": self._key}, self._connect_s, self._refused)
            try:
                await self._talk(connection)
            finally:
                await _leave(connection, _GOODBYE_S if self._closing else 0)
        except ConnectionClosed as closed:
            error = _closed_error(closed, self._key)
        except ProviderError as problem:
            error = problem
        except Exception as problem:
            log.exception("stream broke for a reason of our own")
            error = ProviderError(f"{type(problem).__name__} in the adapter")
        if not self._closing:
            self._closing = True
            self._on_lost(error)

    def _refused(self, response: Response) -> ProviderError:
        word, message = _detail(response.body)
        text = ": ".join(part for part in (f"HTTP {response.status_code}", word, message) if part)
        text = without_key(text, self._key)
        if word == "quota_exceeded":  # comes with 401
            return Throttled(text)
        return of_status(response.status_code, text, response.headers.get("retry-after"))

    async def _talk(self, connection: ClientConnection) -> None:
        sender = asyncio.create_task(self._send_all(connection), name="elevenlabs sender")
        reader = asyncio.create_task(self._read_all(connection), name="elevenlabs reader")
        try:
            done, _ = await asyncio.wait({sender, reader}, return_when=asyncio.FIRST_COMPLETED)
            # What was said before it closed explains why a send failed.
            if reader not in done:
                await asyncio.wait({reader}, timeout=_GOODBYE_S)
            (reader if reader.done() else sender).result()
        finally:
            for task in (sender, reader):
                task.cancel()
            await asyncio.gather(sender, reader, return_exceptions=True)

    async def _read_all(self, connection: ClientConnection) -> None:
        while True:
            raw = await connection.recv()
            if self._closing:
                continue
            try:
                message = msgspec.json.decode(raw)  # which refuses half a character; the standard library takes it
                if not isinstance(message, dict):
                    raise Transient("a message that is no object", "malformed")
                self._on_message(message)
            except (ValueError, RecursionError, msgspec.DecodeError) as error:
                raise Transient("a message that cannot be read", "malformed") from error

    async def _send_all(self, connection: ClientConnection) -> None:
        scribe = RealtimeConnection(websocket=connection, current_sample_rate=RATE_HZ)
        while True:
            await self._more.wait()
            self._more.clear()
            while self._due():
                if (data := self._next()) is None:
                    await _bounded(scribe.commit())
                else:
                    await _bounded(scribe.send({"audio_base_64": base64.b64encode(data).decode()}))

    def _due(self) -> bool:
        """Tell whether something is to be sent now; less than a message of audio waits, unless a commit follows."""
        first = self._waiting[0] if self._waiting else b""
        return first is None or len(first) >= MESSAGE_BYTES or len(self._waiting) > 1

    def _next(self) -> bytes | None:
        first = self._waiting[0]
        if first is None:
            self._waiting.popleft()
            return None
        data = bytes(first[:MESSAGE_BYTES])
        del first[:MESSAGE_BYTES]
        if not first:
            self._waiting.popleft()
        self._waiting_bytes -= len(data)
        return data

    def _drop(self, count: int) -> None:
        if count <= 0:
            return
        self._waiting_bytes -= count
        for part in self._waiting:
            if part is not None:
                here = min(count, len(part))
                del part[:here]
                count -= here
        self._waiting = deque(part for part in self._waiting if part is None or part)


async def _bounded(sending: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(SEND_S):
            await sending
    except TimeoutError as error:
        raise Transient(f"nothing could be sent for {SEND_S:.0f} s", "dropped") from error


async def _leave(connection: ClientConnection, goodbye_s: float) -> None:
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(goodbye_s):
                await connection.close()
    finally:
        connection.transport.abort()


def _detail(body: bytes | bytearray | None) -> tuple[str, str]:
    """Return what ElevenLabs said when it refused: a word and a text."""
    try:
        match json.loads(body or b""):
            case {"detail": {"status": str(word), "message": str(message)}}:
                return word, message
            case {"detail": str(message)}:
                return "", message
    except (ValueError, RecursionError):
        pass
    return "", ""


def _closed_error(closed: ConnectionClosed, key: str) -> ProviderError:
    code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "without a word")
    text = without_key(f"closed ({code}): {reason}", key)
    return Rejected(text) if code == _POLICY else Transient(text, "server" if code == _INTERNAL else "dropped")
