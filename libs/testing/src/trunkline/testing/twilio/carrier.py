"""A call from its first ring to its end: follows the application's TwiML and lets the caller live through it.

One frame leaves every 20 ms of an absolute schedule, so that a late one is followed by an early one and the call never
drifts. Whoever holds the telephone is a `Party`, who lives on when a media stream has ended and Twilio asks what next:
hears silence then, and speaks to nobody.

What Twilio does when `<Connect>` ends: https://www.twilio.com/docs/voice/twiml/connect. What it does when it gets no
TwiML in the middle of a call: it ends the call, https://www.twilio.com/docs/api/errors/11200.
"""

import asyncio
import random
import secrets
import time
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from trunkline.audio.g711 import mulaw_to_pcm16
from trunkline.testing.errors import CallFailed
from trunkline.testing.twilio.dial import Dial
from trunkline.testing.twilio.line import Line, LineEvent, StreamIds, Warned
from trunkline.testing.twilio.stream import ABNORMAL, NO_HANDSHAKE, NO_SOCKET, MediaStream, open_socket
from trunkline.testing.twilio.twiml import (
    ConnectVerb,
    HangupVerb,
    OtherVerb,
    PauseVerb,
    RedirectVerb,
    SayVerb,
    StreamVerb,
    Verb,
)
from trunkline.testing.twilio.webhook import Document, Unanswered, ask
from trunkline.testing.twilio.wire import FRAME_MS, RATE_HZ, SILENCE

_FRAME_S: Final = FRAME_MS / 1_000
_CHARACTERS_PER_S: Final = 14.0
_UNKNOWN_VERB: Final = "12200"


class Heard(NamedTuple):
    """What reached the caller's ear in the 20 ms that end now."""

    at_s: float
    """When they began, in seconds of the recording: one clock for the whole call, however many streams it has."""
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


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """A call that is over."""

    ids: StreamIds
    """Those of the last stream; no `stream_sid` if there was none."""
    started_at: float
    """Wall clock at sample 0: the opening of the first stream, or the first word of a call that begins without one."""
    left: NDArray[np.int16]
    """What the caller said, 8 kHz, also while nobody was there to hear it."""
    right: NDArray[np.int16]
    """What the caller heard, as long as `left` and aligned with it. Words of `<Say>` are silence here."""
    streams: int
    """How many media streams there were, one after the other."""
    gaps: tuple[tuple[float, float], ...]
    """From when to when there was no stream, in seconds of the recording, to a frame; the last may go on to its end."""
    said: tuple[str, ...]
    """What Twilio's own voice was told to say, as far as it got to it."""
    ended_by: Literal["caller", "application"]
    close_code: int
    """Of the last stream's socket; 0 if there was none."""
    close_reason: str
    warnings: tuple[Warned, ...]
    latest_ms: float
    """By how much the latest frame missed its time: above a few ms this machine, not the far side, was slow."""


async def place(dial: Dial, party: Party, observe: Callable[[LineEvent], None] | None = None) -> Recording:
    """Place the call, let `party` live through it, and return when it is over.

    A call that Twilio would have answered is a call, however short: `<Say>` and `<Hangup>` alone make one. What goes
    wrong after that ends it and stands among its warnings.

    Raises:
        CallFailed: the call did not begin. The voice webhook did not answer, or nothing that could be followed, or its
            WebSocket did not open and its TwiML has no more to say.
    """
    voice_hook = RedirectVerb(dial.voice_url, "POST")
    document = await ask(dial, voice_hook, "ringing", "voice webhook")
    if all(isinstance(verb, OtherVerb) for verb in document.verbs):
        verbs = ", ".join(f"<{verb.tag}>" for verb in document.verbs if isinstance(verb, OtherVerb)) or "nothing"
        raise CallFailed(f"the voice webhook answered {verbs} and no <Connect><Stream>", document.status)
    return await _Call(dial, party, observe).run(document)


class _Call:
    """Two things at once: the TwiML is followed, and the caller lives."""

    def __init__(self, dial: Dial, party: Party, observe: Callable[[LineEvent], None] | None) -> None:
        self._dial = dial
        self._party = party
        self._observe = observe
        self._begun = asyncio.Event()
        self._started_at = 0.0
        self._stream: MediaStream | None = None
        self._speaking = False
        self._left = bytearray()
        self._right = bytearray()
        self._latest_s = 0.0
        self._ids = StreamIds(dial.account_sid, dial.call_sid, "")
        self._streams = 0
        self._closed = (0, "")
        self._gaps: list[tuple[float, float]] = []
        self._gap_from_s: float | None = None
        self._said: list[str] = []
        self._warnings: list[Warned] = []

    @property
    def _at_s(self) -> float:
        return len(self._left) / RATE_HZ

    async def run(self, document: Document) -> Recording:
        program = asyncio.create_task(self._follow(document), name="twilio-twiml")
        begun = asyncio.create_task(self._begun.wait(), name="twilio-begun")
        try:
            await asyncio.wait({program, begun}, return_when=asyncio.FIRST_COMPLETED)
            hung_up = await self._live(program)
            if not hung_up:
                program.result()
        finally:
            for task in (program, begun):
                task.cancel()
            await asyncio.gather(program, begun, return_exceptions=True)
            if self._stream is not None:
                await self._stream.close()
        if self._gap_from_s != self._at_s:
            self._end_gap()
        return Recording(
            ids=self._ids,
            started_at=self._started_at,
            left=np.frombuffer(mulaw_to_pcm16(bytes(self._left)), np.int16),
            right=np.frombuffer(mulaw_to_pcm16(bytes(self._right)), np.int16),
            streams=self._streams,
            gaps=tuple(self._gaps),
            said=tuple(self._said),
            ended_by="caller" if hung_up else "application",
            close_code=self._closed[0],
            close_reason=self._closed[1],
            warnings=tuple(self._warnings),
            latest_ms=1_000 * self._latest_s,
        )

    async def _live(self, program: "asyncio.Task[None]") -> bool:
        """Let the caller live until one side ends the call; return whether the caller did."""
        clock = asyncio.get_running_loop().time
        start = clock()
        frame = 0
        while True:
            frame += 1
            due = start + frame * _FRAME_S
            # Sleeping even when late: the reader must have its turn.
            await asyncio.sleep(max(0.0, due - clock()))
            if program.done():
                return False
            self._latest_s = max(self._latest_s, clock() - due)
            if self._tick():
                await self._hang_up(program)
                return True

    def _tick(self) -> bool:
        """Let 20 ms pass; return whether the caller hangs up at their end."""
        stream = self._stream
        if stream is None:
            heard = Heard(self._at_s, SILENCE, self._speaking)
        else:
            heard = Heard(self._at_s, stream.line.hearing, stream.line.playing)
        uttered = self._party.tick(heard)
        if stream is not None:
            stream.send(stream.line.advance(uttered.audio))
            stream.send([stream.line.press(digit) for digit in uttered.digits])
        self._left.extend(uttered.audio)
        self._right.extend(heard.audio)
        return uttered.hang_up

    async def _hang_up(self, program: "asyncio.Task[None]") -> None:
        program.cancel()
        await asyncio.gather(program, return_exceptions=True)
        if self._stream is not None:
            await self._stream.stop()
            await self._let_go(self._stream)

    async def _follow(self, document: Document) -> None:
        """Run through `document` and those that follow it; return when there is nothing left to do."""
        verbs = list(document.verbs)
        while verbs:
            verb = verbs.pop(0)
            match verb:
                case ConnectVerb(stream=stream, action=action):
                    await self._connect(stream, ends_the_call=action is None and not verbs)
                    if action is not None:
                        verbs = await self._ask(action)
                case RedirectVerb():
                    self._begin()
                    verbs = await self._ask(verb)
                case SayVerb(text=text):
                    self._begin()
                    await self._say(text)
                case PauseVerb(length_s=length_s):
                    self._begin()
                    await asyncio.sleep(length_s)
                case HangupVerb():
                    self._begin()
                    return
                case OtherVerb(tag=tag):
                    self._warn(_UNKNOWN_VERB, f"<{tag}> is passed over: this emulator does not know it")

    async def _connect(self, verb: StreamVerb, *, ends_the_call: bool) -> None:
        """Run one media stream from its opening to its end."""
        try:
            socket = await open_socket(verb.url, self._dial.token)
        except CallFailed as error:
            if ends_the_call and not self._begun.is_set():
                raise
            self._begin()
            self._warn(NO_SOCKET if error.status is None else NO_HANDSHAKE, str(error))
            return
        self._ids = self._ids._replace(stream_sid="MZ" + secrets.token_hex(16))
        # Recorded sessions begin between 52 and 155 ms; whoever expects 0 is to find out here.
        first_ms = random.randint(40, 160)  # noqa: S311 - no secret
        line = Line(self._ids, verb.parameters, first_timestamp_ms=first_ms, start_s=self._at_s, observe=self._observe)
        if verb.query_dropped:
            line.warn(NO_HANDSHAKE, "the query string of <Stream url> is not passed on")
        stream = self._stream = MediaStream(socket, line)
        self._streams += 1
        self._end_gap()
        stream.send(line.open())
        self._begin()
        await stream.ended()
        if stream.close_code == ABNORMAL:
            await asyncio.sleep(self._dial.delays.notice_s)
        await self._let_go(stream)

    async def _let_go(self, stream: MediaStream) -> None:
        """Note how a stream ended. What it held for the caller's ear is gone."""
        self._stream = None
        self._gap_from_s = self._at_s
        self._closed = (stream.close_code, stream.close_reason)
        self._warnings += stream.line.warnings
        self._note("closed", f"{stream.close_code} {stream.close_reason}".strip())
        await stream.close()

    async def _ask(self, webhook: RedirectVerb) -> list[Verb]:
        """Return the verbs of the next document; none if there is no such thing, which ends the call."""
        await asyncio.sleep(random.uniform(*self._dial.delays.ask_s))  # noqa: S311 - no secret
        self._note("asked", webhook.url)
        try:
            document = await ask(self._dial, webhook, "in-progress", "webhook")
        except Unanswered as error:
            self._warn(error.code, str(error))
            return []
        return list(document.verbs)

    async def _say(self, text: str) -> None:
        self._said.append(text)
        self._note("said", text)
        self._speaking = True
        try:
            await asyncio.sleep(len(text) / _CHARACTERS_PER_S)
        finally:
            self._speaking = False

    def _begin(self) -> None:
        """Let the caller's time begin, if it has not."""
        if not self._begun.is_set():
            self._started_at = time.time()
            self._begun.set()
            if self._stream is None:
                self._gap_from_s = 0.0

    def _end_gap(self) -> None:
        if self._gap_from_s is not None:
            self._gaps.append((self._gap_from_s, self._at_s))
            self._gap_from_s = None

    def _warn(self, code: str, text: str) -> None:
        self._warnings.append(Warned(self._at_s, code, text))
        self._note("warning", f"{code} {text}")

    def _note(self, what: str, text: str) -> None:
        if self._observe is not None:
            self._observe(LineEvent(self._at_s, what, text))
