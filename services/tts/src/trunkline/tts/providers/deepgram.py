"""Deepgram's Aura: one WebSocket per call, into which sentences go as they are written, and out of which sound comes.

``Flushed`` ends a sentence. One that is broken off is cleared, and what still comes of it dropped until ``Cleared``; if
that is not there when the next sentence wants to begin, the connection is replaced. So is one that Deepgram closed in
the meantime. The messages are the SDK's; the connection is our own, for the reasons that the recogniser's gives: the
SDK's cannot be given up while its peer is silent, and hides why it was refused.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from functools import partial
from typing import Any, Final, cast
from urllib.parse import urlencode

from deepgram.speak.v1.socket_client import AsyncV1SocketClient
from deepgram.speak.v1.types.speak_v1text import SpeakV1Text
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Response

from trunkline.proto.agent import Tts
from trunkline.providers.errors import Misconfigured, ProviderError, Rejected, Throttled, Transient, of_status
from trunkline.providers.keys import BadAddress, MissingKey, address_of, key_of, socket_address, without_key
from trunkline.providers.sockets import connected, tls
from trunkline.tts.provider import Spoken, TtsCapabilities, TtsVoice

log = logging.getLogger("trunkline.tts.deepgram")

VOICE: Final = "aura-2-thalia-en"
RATE_HZ: Final = 8_000
"""The telephone's: nothing would be gained by more, which would be thrown away on the way."""
_MOST_BYTES: Final = 600 * 2 * RATE_HZ
_SEND_S: Final = 2.0
_CLEARED_S: Final = 0.3
_GOODBYE_S: Final = 0.3
_STUCK_S: Final = 1.5
"""A connection that is not there after so long is not waited for by another sentence."""


class _Talk:
    """One connection, and what comes out of it."""

    def __init__(self, connection: ClientConnection, key: str) -> None:
        self._connection = connection
        self._socket = AsyncV1SocketClient(websocket=cast("Any", connection))
        self._key = key
        self._heard: asyncio.Queue[bytes | ProviderError | None] = asyncio.Queue()
        self._clearing = 0
        self._clear = asyncio.Event()
        self._clear.set()
        self._forgetting: asyncio.Task[None] | None = None
        self._got_bytes = 0
        self._reader = asyncio.create_task(self._read_all(), name="aura reader")

    @property
    def broken(self) -> bool:
        """Whether it is of no use any more."""
        return self._reader.done()

    async def ready(self) -> bool:
        """Wait for the last sentence to be gone; return whether it is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLEARED_S):
                await self._clear.wait()
        return self._clear.is_set() and not self.broken

    async def say(self, text: AsyncIterable[str]) -> None:
        """Send a sentence as it is written; nothing of it if it has nothing to pronounce."""
        self._got_bytes = 0
        held, sent = "", False
        async for piece in text:
            held += piece
            if sent or any(character.isalnum() for character in held):
                await self._send(self._socket.send_text(SpeakV1Text(text=held)))
                held, sent = "", True
        if sent:
            await self._send(self._socket.send_flush())
        else:
            self._heard.put_nowait(None)

    async def next(self) -> bytes | None:
        """Return more of the sentence; None at its end.

        Raises:
            ProviderError: there is no more.
        """
        heard = await self._heard.get()
        if isinstance(heard, ProviderError):
            raise heard
        return heard

    def clear(self) -> None:
        """Have the sentence forgotten, without waiting for it."""
        self._clearing += 1
        self._clear.clear()
        self._heard = asyncio.Queue()
        self._forgetting = asyncio.create_task(self._send_clear(), name="aura clear")

    async def hang_up(self, *, politely: bool = False) -> None:
        """Close."""
        if politely and not self.broken:
            with contextlib.suppress(TimeoutError, ConnectionClosed, ProviderError):
                async with asyncio.timeout(_GOODBYE_S):
                    await self._socket.send_close()
                    await self._connection.wait_closed()
        self._connection.transport.abort()
        tasks = [task for task in (self._reader, self._forgetting) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _send_clear(self) -> None:
        with contextlib.suppress(ProviderError):
            await self._send(self._socket.send_clear())

    async def _send(self, sending: Any) -> None:
        try:
            async with asyncio.timeout(_SEND_S):
                await sending
        except TimeoutError as error:
            raise Transient(f"nothing could be sent for {_SEND_S:.0f} s", "dropped") from error
        except ConnectionClosed as closed:
            raise self._closed(closed) from closed

    async def _read_all(self) -> None:
        try:
            while True:
                self._on_message(await self._socket.recv())
        except ConnectionClosed as closed:
            self._heard.put_nowait(self._closed(closed))
        except ProviderError as error:
            self._heard.put_nowait(error)
        except (ValueError, RecursionError):
            self._heard.put_nowait(Transient("a message that cannot be read", "malformed"))
        except Exception as error:
            log.exception("voice broke for a reason of our own")
            self._heard.put_nowait(ProviderError(f"{type(error).__name__} in the adapter"))

    def _on_message(self, message: object) -> None:
        kind = getattr(message, "type", None)
        if self._clearing:
            if kind == "Cleared":
                self._clearing -= 1
            if not self._clearing:
                self._clear.set()
        elif isinstance(message, bytes):
            self._got_bytes += len(message)
            if self._got_bytes > _MOST_BYTES:
                raise Transient("more sound than a sentence can have", "malformed")
            self._heard.put_nowait(message)
        elif kind == "Flushed":
            self._heard.put_nowait(None)
        elif kind == "Warning":
            code = str(getattr(message, "code", ""))
            # More than 20 flushes a minute are not heeded: the sentence would never be spoken.
            if "flush" in f"{code} {getattr(message, 'description', '')}".lower():
                self._heard.put_nowait(Throttled(f"{code}: too many sentences a minute"))
        elif kind == "Error":
            code = str(getattr(message, "code", None) or getattr(message, "variant", None))
            raise Transient(without_key(f"{code}: {getattr(message, 'description', '')}", self._key))

    def _closed(self, closed: ConnectionClosed) -> ProviderError:
        code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "without a word")
        text = without_key(f"closed ({code}): {reason}", self._key)
        return Rejected(text) if code == 1008 else Transient(text, "server" if code == 1011 else "dropped")


class AuraVoice:
    """A voice of one call."""

    sample_rate_hz: Final = RATE_HZ

    def __init__(self, url: str, key: str, connect_s: float) -> None:
        self._url = url
        self._key = key
        self._connect_s = connect_s
        self._opening = self._begin_to_open()

    async def speak(self, text: AsyncIterable[str]) -> AsyncGenerator[Spoken, None]:
        """Yield the sentence as it comes."""
        talk = await self._talk()
        writer = asyncio.create_task(talk.say(text), name="aura writer")
        over = False
        try:
            while not over:
                piece = await self._next(talk, writer)
                over = piece is None
                if piece:
                    yield piece
        except ProviderError:
            over = True
            await talk.hang_up()
            raise
        finally:
            writer.cancel()
            if not over:
                talk.clear()
            await asyncio.gather(writer, return_exceptions=True)

    async def aclose(self) -> None:
        """Hang up."""
        self._opening.cancel()
        done, _ = await asyncio.wait({self._opening}, timeout=_GOODBYE_S)
        for opening in done:
            if not opening.cancelled() and opening.exception() is None:
                await opening.result().hang_up(politely=True)

    async def _next(self, talk: _Talk, writer: asyncio.Task[None]) -> bytes | None:
        """Return what comes next, unless the text breaks off first."""
        if writer.done():
            writer.result()
            return await talk.next()
        heard = asyncio.ensure_future(talk.next())
        try:
            await asyncio.wait({heard, writer}, return_when=asyncio.FIRST_COMPLETED)
            if not heard.done():
                writer.result()
            return await heard
        finally:
            heard.cancel()

    async def _talk(self) -> _Talk:
        """Return a connection that is ready for a sentence."""
        if not self._opening.done():
            if asyncio.get_running_loop().time() - self._opening_at > _STUCK_S:
                self._opening.cancel()
                self._opening = self._begin_to_open()
        elif not await self._still_good(self._opening):
            self._opening = self._begin_to_open()
        # Whoever gives up waiting for it leaves it to the next sentence.
        return await asyncio.shield(self._opening)

    async def _still_good(self, opening: asyncio.Task[_Talk]) -> bool:
        if opening.cancelled() or opening.exception() is not None:
            return False
        talk = opening.result()
        good = await talk.ready()
        if not good:
            await talk.hang_up()
        return good

    def _begin_to_open(self) -> asyncio.Task[_Talk]:
        self._opening_at = asyncio.get_running_loop().time()
        return asyncio.create_task(self._open(), name="aura")

    async def _open(self) -> _Talk:
        headers = {"Authorization": f"Token {self._key}"}
        refused = partial(_refusal, key=self._key)
        return _Talk(await connected(self._url, headers, self._connect_s, refused), self._key)


class AuraProvider:
    """Deepgram's voices. `DEEPGRAM_API_KEY` and, for other than its public address, `DEEPGRAM_BASE_URL`."""

    capabilities: Final = TtsCapabilities(model=VOICE, adjusts=frozenset({"speed"}), streams_text=True)

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        tls()

    def check(self, tts: Tts) -> None:
        """Check the key, the voice's name and the options."""
        self._access()
        _query(tts)

    async def warm(self, tts: Tts) -> None:
        """Keep nothing: a voice connects when it is opened, before its first sentence is thought of."""

    async def open(self, tts: Tts) -> TtsVoice:
        """Return a voice that connects by itself."""
        address, key = self._access()
        return AuraVoice(f"{address}/v1/speak?{urlencode(_query(tts))}", key, tts.timeouts.connect_ms / 1_000)

    async def aclose(self) -> None:
        """Hold nothing."""

    def _access(self) -> tuple[str, str]:
        try:
            address = address_of("deepgram", self._environ, "https://api.deepgram.com")
            return socket_address(address), key_of("deepgram", self._environ)
        except MissingKey as error:
            raise Misconfigured(error.variable, str(error)) from error
        except BadAddress as error:
            raise Misconfigured("DEEPGRAM_BASE_URL", str(error)) from error


def _query(tts: Tts) -> dict[str, str]:
    if tts.voice and tts.model and tts.voice != tts.model:
        raise Misconfigured("tts.model", "Deepgram's voices are its models: give one name, as tts.voice")
    voice = tts.voice or tts.model or VOICE
    if not voice.startswith("aura-"):
        raise Misconfigured("tts.voice", f"{voice} is no voice of Aura; they are called like {VOICE}")
    query = {"model": voice, "encoding": "linear16", "sample_rate": str(RATE_HZ)}
    if tts.speed != 1:
        query["speed"] = f"{tts.speed:g}"
    for name, value in tts.options.items():
        if name != "mip_opt_out":
            raise Misconfigured(f"tts.options.{name}", "unknown; expected mip_opt_out")
        if not isinstance(value, bool):
            raise Misconfigured(f"tts.options.{name}", f"cannot be {value!r}")
        query[name] = str(value).lower()
    return query


def _refusal(response: Response, key: str) -> ProviderError:
    try:
        said = json.loads(response.body or b"")
        text = f"{said['err_code']}: {said['err_msg']}"
    except (ValueError, LookupError, TypeError, RecursionError):
        text = response.headers.get("dg-error", "refused")
    return of_status(response.status_code, without_key(text, key), response.headers.get("retry-after"))
