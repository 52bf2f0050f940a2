"""ElevenLabs over a WebSocket (``stream-input``): a sentence goes in as it is written, sound and times come out.

A socket takes one sentence: what it has been told cannot be taken back, so a sentence that is broken off ends with its
socket, which stops the synthesis. The next socket is opened ahead, and again when it dies unused, so that no sentence
waits for a handshake. The SDK has this protocol only with blocking calls; its types check what comes, and write what is
sent.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from functools import partial
from typing import Final, NamedTuple

from elevenlabs.types import AudioOutput, CloseConnection, SendText
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Response
from websockets.protocol import State

from trunkline.audio.g711 import mulaw_to_pcm16
from trunkline.providers.errors import ProviderError, Transient
from trunkline.providers.sockets import connected
from trunkline.tts.provider import Points, Spoken
from trunkline.tts.providers.elevenlabs_errors import of_answer, of_close, of_message
from trunkline.tts.providers.elevenlabs_times import Times

RATE_HZ: Final = 8_000
_MOST_BYTES: Final = 600 * RATE_HZ
_LONGEST_QUEUE: Final = 256
"""Messages. Were it short, a pong behind them would not be read while the sound waits to be played, and the connection
be taken for dead."""
_SEND_S: Final = 2.0
_GOODBYE_S: Final = 0.3
_STUCK_S: Final = 1.5
"""A connection that is not there after so long is not waited for by another sentence."""
_AGAIN_S: Final = 5.0
"""An unused connection that lived shorter is not opened again before it is needed: there is something wrong."""
_NORMAL: Final = 1000


class Asked(NamedTuple):
    """What a socket is opened with: all that distinguishes it from another."""

    url: str
    first: str
    """The first message."""
    key: str
    connect_s: float


class Link:
    """One socket, and the sentence on it."""

    def __init__(self, connection: ClientConnection, key: str) -> None:
        self.opened_at: Final = asyncio.get_running_loop().time()
        self._connection = connection
        self._key = key
        self._times = Times()
        self._sound_bytes = 0
        self._begun = False
        self._ended = False
        self._failure: BaseException | None = None

    @property
    def alive(self) -> bool:
        """Whether it is open, as far as is known."""
        return self._connection.state is State.OPEN

    async def wait_closed(self) -> None:
        """Wait until it is of no use any more."""
        await self._connection.wait_closed()

    async def write(self, begun: str, text: AsyncIterator[str]) -> None:
        """Send a sentence as it is written. Pieces are cut between words, and end with a space, as ElevenLabs asks."""
        try:
            await self._send_piece(begun)
            async for piece in text:
                await self._send_piece(piece)
            self._ended = True
            await self._send(CloseConnection().model_dump_json())
        except ConnectionClosed:
            pass  # whoever reads is told why

    def written(self, writer: asyncio.Task[None]) -> None:
        """Take note of how `write` ended; if it failed, whoever reads is told."""
        if not writer.cancelled() and (failure := writer.exception()) is not None:
            self._failure = failure
            self.abort()

    async def read(self) -> tuple[Spoken, ...] | None:
        """Return what comes next; None at the end of the sentence.

        Raises:
            ProviderError: there is no more.
        """
        try:
            raw = await self._connection.recv()
        except ConnectionClosed as closed:
            if self._failure is not None:
                raise self._failure from None
            code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")
            if code == _NORMAL and self._ended and self._sound_bytes:
                return None
            raise of_close(code, reason, self._key) from closed
        try:
            return self._heard(json.loads(raw))
        except (ValueError, OverflowError, RecursionError) as error:  # pydantic's and base64's are the first
            raise Transient("a message that cannot be read", "malformed") from error

    def abort(self) -> None:
        """Hang up."""
        self._connection.transport.abort()

    async def aclose(self) -> None:
        """Hang up, politely if the other side takes part."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await self._connection.close()
        finally:
            self.abort()

    def _heard(self, said: object) -> tuple[Spoken, ...] | None:
        if not isinstance(said, dict):
            raise Transient("a message that is no object", "malformed")
        if isinstance(word := said.get("error"), str) and not said.get("audio"):
            raise of_message(word, str(said.get("message", "")), said.get("code"), self._key)
        if said.get("audio") is None:
            return None if said.get("isFinal") or said.get("is_final") else ()
        message = AudioOutput.model_validate(said)
        sound = base64.b64decode(message.audio, validate=True)
        before_ms = 1_000 * self._sound_bytes / RATE_HZ
        self._sound_bytes += len(sound)
        if self._sound_bytes > _MOST_BYTES:
            raise Transient("more sound than a sentence can have", "malformed")
        points = self._points(message, before_ms)
        pcm = mulaw_to_pcm16(sound)
        return (Points(points), pcm) if points else (pcm,)

    def _points(self, message: AudioOutput, before_ms: float) -> tuple[tuple[int, int], ...]:
        if (alignment := message.alignment) is None:
            return ()
        durations = alignment.char_durations_ms
        if durations is None:  # spelt so in the API's description, and otherwise in what it sends
            found = (alignment.model_extra or {}).get("charsDurationsMs")
            durations = [ms if isinstance(ms, int) else 0 for ms in found] if isinstance(found, list) else []
        return self._times.push(alignment.chars or [], alignment.char_start_times_ms or [], durations, before_ms)

    async def _send_piece(self, piece: str) -> None:
        self._times.write(piece)
        if words := piece.strip():  # an empty one would end the sentence
            # The first piece is spoken at once: to wait until the schedule's fifty characters are written costs a
            # tenth of a second at a model's usual pace, and the pieces are cut where a voice may begin.
            first, self._begun = not self._begun, True
            await self._send(
                SendText(text=f"{words} ", flush=True if first else None).model_dump_json(exclude_none=True)
            )

    async def _send(self, message: str) -> None:
        try:
            async with asyncio.timeout(_SEND_S):
                await self._connection.send(message)
        except TimeoutError as error:
            raise Transient(f"nothing could be sent for {_SEND_S:.0f} s", "dropped") from error


class Spare:
    """A socket that is opened ahead of its use."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._watching: asyncio.Task[None] | None = None
        self._given: asyncio.Task[Link] | None = None
        self._begin()

    async def take(self) -> Link:
        """Return an open socket, and begin to open the next one.

        Raises:
            ProviderError: there is none to be had.
        """
        if not self._opening.done():
            if asyncio.get_running_loop().time() - self._began_at > _STUCK_S:
                self._opening.cancel()
                self._begin()
        elif self._opening.cancelled() or self._opening.exception() is not None or not self._opening.result().alive:
            self._begin()
        # Whoever gives up waiting for it leaves it to the next sentence.
        opening = self._opening
        link = await asyncio.shield(opening)
        self._given = opening
        self._begin()
        return link

    async def aclose(self) -> None:
        """Give it back."""
        self._unwatch()
        self._opening.cancel()
        done, _ = await asyncio.wait({self._opening}, timeout=_GOODBYE_S)
        for opening in done:
            if not opening.cancelled() and opening.exception() is None:
                self._unwatch()
                await opening.result().aclose()

    def _begin(self) -> None:
        self._unwatch()
        self._began_at = asyncio.get_running_loop().time()
        self._opening = asyncio.create_task(_open(self._asked), name="elevenlabs opening")
        self._opening.add_done_callback(self._opened)

    def _opened(self, opening: asyncio.Task[Link]) -> None:
        if opening.cancelled() or opening.exception() is not None:
            return
        if opening is self._given:
            pass  # it was taken in the moment in which it was there, before it could be watched
        elif opening is self._opening:
            self._watching = asyncio.create_task(self._watch(opening.result()), name="elevenlabs watching")
        else:
            opening.result().abort()

    async def _watch(self, link: Link) -> None:
        await link.wait_closed()
        if asyncio.get_running_loop().time() - link.opened_at > _AGAIN_S:
            self._watching = None
            self._begin()

    def _unwatch(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None


class SocketVoice:
    """A voice of one call."""

    sample_rate_hz: Final = RATE_HZ

    def __init__(self, spare: Spare) -> None:
        self._spare = spare
        self._leaving: set[asyncio.Task[None]] = set()

    async def speak(self, text: AsyncIterable[str]) -> AsyncGenerator[Spoken, None]:
        """Yield the sentence as it comes; a socket is used up for it once there is something to pronounce."""
        pieces = aiter(text)
        begun = ""
        while not any(character.isalnum() for character in begun):
            piece = await anext(pieces, None)
            if piece is None:
                return
            begun += piece
        link = await self._spare.take()
        writer = asyncio.create_task(link.write(begun, pieces), name="elevenlabs writer")
        writer.add_done_callback(link.written)
        try:
            while (heard := await link.read()) is not None:
                for thing in heard:
                    yield thing
        finally:
            writer.cancel()
            leaving = asyncio.create_task(link.aclose(), name="elevenlabs goodbye")
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
            await asyncio.gather(writer, return_exceptions=True)

    async def aclose(self) -> None:
        """Hang up."""
        await asyncio.gather(self._spare.aclose(), *self._leaving, return_exceptions=True)


async def _open(asked: Asked) -> Link:
    headers = {"xi-api-key": asked.key}
    refused = partial(_refusal, key=asked.key)
    connection = await connected(asked.url, headers, asked.connect_s, refused, max_queue=_LONGEST_QUEUE)
    link = Link(connection, asked.key)
    try:
        with contextlib.suppress(ConnectionClosed):  # whoever reads is told why
            await connection.send(asked.first)
    except asyncio.CancelledError:
        connection.transport.abort()
        raise
    return link


def _refusal(response: Response, key: str) -> ProviderError:
    return of_answer(response.status_code, response.body, response.headers.get("retry-after"), key)
