"""The asyncio shell: asks the webhook, opens the WebSocket and runs a `Line` in real time.

One frame leaves every 20 ms of an absolute schedule, so that a late one is followed by an early one and the call never
drifts. Whoever holds the telephone is a `Party`.
"""

import asyncio
import contextlib
import functools
import random
import secrets
import ssl
import time
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, Protocol
from urllib.parse import urlsplit

import httpx
import msgspec
import numpy as np
from numpy.typing import NDArray
from twilio.request_validator import RequestValidator
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from trunkline.audio.g711 import mulaw_to_pcm16
from trunkline.testing.errors import CallFailed
from trunkline.testing.twilio.line import SLOW_READER, Line, LineEvent, StreamIds, Warned
from trunkline.testing.twilio.twiml import StreamVerb, parse_twiml
from trunkline.testing.twilio.wire import FRAME_MS

_FRAME_S: Final = FRAME_MS / 1_000
_WEBHOOK_S: Final = 15.0
_OPEN_S: Final = 10.0
_CLOSE_S: Final = 2.0
_OUTBOX_MESSAGES: Final = 250
_FLUSH_S: Final = 1.0


class Heard(NamedTuple):
    """What reached the caller's ear in the 20 ms that end now."""

    at_s: float
    """Seconds since the start of the stream at which they began."""
    audio: bytes
    """160 bytes of μ-law, silence included."""
    playing: bool
    """Whether the far side's audio plays or waits: False means it has nothing more to say for now."""


class Uttered(NamedTuple):
    """What the caller did in the same 20 ms."""

    audio: bytes
    digits: str = ""
    hang_up: bool = False


class Party(Protocol):
    """Whoever holds the telephone."""

    def tick(self, heard: Heard) -> Uttered:
        """Live through 20 ms; called 50 times a second on the event loop."""


class Dial(msgspec.Struct, frozen=True, kw_only=True):
    """A call to be placed to a Twilio application."""

    voice_url: str
    """The voice webhook, query string included."""
    call_sid: str
    token: str | None = None
    """Auth token; with it, webhook and WebSocket carry `X-Twilio-Signature`."""
    caller: str = "+15550100"
    called: str = "+15550199"
    account_sid: str = "AC" + 32 * "0"


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """A call that is over."""

    ids: StreamIds
    started_at: float
    """Wall clock at sample 0."""
    left: NDArray[np.int16]
    """What the caller said, 8 kHz."""
    right: NDArray[np.int16]
    """What the caller heard, as long as `left` and aligned with it."""
    ended_by: Literal["caller", "application"]
    close_code: int
    close_reason: str
    warnings: tuple[Warned, ...]
    latest_ms: float
    """By how much the latest frame missed its time: above a few ms this machine, not the far side, was slow."""


def new_call_sid() -> str:
    """Return a fresh call SID: `CA` and 32 hexadecimal digits."""
    return "CA" + secrets.token_hex(16)


async def place(dial: Dial, party: Party, observe: Callable[[LineEvent], None] | None = None) -> Recording:
    """Place the call, let `party` live through it, and return when it is over.

    Raises:
        CallFailed: webhook, TwiML or WebSocket did not let the call begin.
    """
    verb = await _ask_webhook(dial)
    ids = StreamIds(dial.account_sid, dial.call_sid, "MZ" + secrets.token_hex(16))
    # Recorded sessions begin between 52 and 155 ms; whoever expects 0 is to find out here.
    first_ms = random.randint(40, 160)  # noqa: S311 - no secret
    line = Line(ids, verb.parameters, first_timestamp_ms=first_ms, observe=observe)
    if verb.query_dropped:
        line.warn("31920", "the query string of <Stream url> is not passed on")
    headers = {"X-Twilio-Signature": _signature(dial.token, verb.url, {})} if dial.token else {}
    try:
        socket = await connect(
            verb.url,
            additional_headers=headers,
            user_agent_header="Twilio.TmeWs/1.0",
            compression=None,
            ping_interval=None,
            open_timeout=_OPEN_S,
            close_timeout=_CLOSE_S,
            proxy=None if _is_local(verb.url) else True,
        )
    except (OSError, InvalidHandshake, TimeoutError) as error:
        status = error.response.status_code if isinstance(error, InvalidStatus) else None
        raise CallFailed(f"the WebSocket {verb.url} of the TwiML did not open: {_told(error)}", status) from error
    return await _Shell(socket, line, party).run(observe)


async def _ask_webhook(dial: Dial) -> StreamVerb:
    form = {
        "AccountSid": dial.account_sid,
        "ApiVersion": "2010-04-01",
        "CallSid": dial.call_sid,
        "CallStatus": "ringing",
        "Called": dial.called,
        "Caller": dial.caller,
        "Direction": "inbound",
        "From": dial.caller,
        "To": dial.called,
    }
    headers = {"User-Agent": "TwilioProxy/1.1"}
    if dial.token:
        headers["X-Twilio-Signature"] = _signature(dial.token, dial.voice_url, form)
    try:
        proxied = not _is_local(dial.voice_url)
        async with httpx.AsyncClient(timeout=_WEBHOOK_S, trust_env=proxied, verify=_tls()) as client:
            answer = await client.post(dial.voice_url, data=form, headers=headers)
    except httpx.HTTPError as error:
        raise CallFailed(f"no answer from the voice webhook {dial.voice_url}: {_told(error)}") from error
    except httpx.InvalidURL as error:
        raise CallFailed(f"{dial.voice_url!r} is no URL: {error}") from error
    if not answer.is_success:
        said = " ".join(answer.text.split())[:200]
        status = answer.status_code
        raise CallFailed(f"the voice webhook {dial.voice_url} answered {status} {answer.reason_phrase}: {said}", status)
    twiml = parse_twiml(answer.text, dial.voice_url)
    if twiml.stream is None:
        verbs = ", ".join(f"<{verb}>" for verb in twiml.verbs) or "nothing"
        raise CallFailed(f"the voice webhook answered {verbs} and no <Connect><Stream>", answer.status_code)
    return twiml.stream


class _Shell:
    """Moves messages between one socket and one line, on time."""

    def __init__(self, socket: ClientConnection, line: Line, party: Party) -> None:
        self._socket = socket
        self._line = line
        self._party = party
        self._outbox: asyncio.Queue[str] = asyncio.Queue(_OUTBOX_MESSAGES)
        self._latest_s = 0.0

    async def run(self, observe: Callable[[LineEvent], None] | None) -> Recording:
        line = self._line
        reader = asyncio.create_task(self._read(), name="twilio-reader")
        writer = asyncio.create_task(self._write(), name="twilio-writer")
        try:
            self._send(line.open())
            started_at = time.time()
            hung_up = await self._live(reader)
            if hung_up:
                self._send([line.stop()])
                await self._flush()
            await self._socket.close()
            await reader
        finally:
            reader.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
            await self._socket.close()
        code, reason = self._socket.close_code or 1006, self._socket.close_reason or ""
        if observe is not None:
            observe(LineEvent(line.at_s, "closed", f"{code} {reason}".strip()))
        return Recording(
            ids=line.ids,
            started_at=started_at,
            left=np.frombuffer(mulaw_to_pcm16(bytes(line.left)), np.int16),
            right=np.frombuffer(mulaw_to_pcm16(bytes(line.right)), np.int16),
            ended_by="caller" if hung_up else "application",
            close_code=code,
            close_reason=reason,
            warnings=tuple(line.warnings),
            latest_ms=1_000 * self._latest_s,
        )

    async def _live(self, reader: "asyncio.Task[None]") -> bool:
        """Run the stream until one side ends it; return whether the caller did."""
        clock = asyncio.get_running_loop().time
        start = clock()
        frame = 0
        while True:
            frame += 1
            due = start + frame * _FRAME_S
            # Sleeping even when late: the reader must have its turn.
            await asyncio.sleep(max(0.0, due - clock()))
            if reader.done():
                return False
            self._latest_s = max(self._latest_s, clock() - due)
            uttered = self._party.tick(Heard(self._line.at_s, self._line.hearing, self._line.playing))
            self._send(self._line.advance(uttered.audio))
            self._send([self._line.press(digit) for digit in uttered.digits])
            if uttered.hang_up:
                return True

    def _send(self, messages: list[str]) -> None:
        for message in messages:
            try:
                self._outbox.put_nowait(message)
            except asyncio.QueueFull:
                late_s = _OUTBOX_MESSAGES * _FRAME_S
                self._line.warn(SLOW_READER, f"the application has not read for {late_s:g} s; a message is lost")

    async def _flush(self) -> None:
        try:
            await asyncio.wait_for(self._outbox.join(), _FLUSH_S)
        except TimeoutError:
            self._line.warn(SLOW_READER, "the application did not read the end of the call")

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in self._socket:
                self._send(self._line.receive(message))

    async def _write(self) -> None:
        while True:
            message = await self._outbox.get()
            # Once the socket is closed there is nobody to tell, and `_flush` must not wait for it.
            with contextlib.suppress(ConnectionClosed):
                await self._socket.send(message)
            self._outbox.task_done()


def _signature(token: str, url: str, form: dict[str, str]) -> str:
    return str(RequestValidator(token).compute_signature(url, form))


@functools.cache
def _tls() -> ssl.SSLContext:
    """Return one context for all calls: making one takes tens of milliseconds, in which no frame would leave."""
    return httpx.create_ssl_context()


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__


def _is_local(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
