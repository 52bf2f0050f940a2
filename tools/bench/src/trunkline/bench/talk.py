"""One caller under load, as Twilio's side of a media stream: cheap enough for hundreds in a process. Pure.

The caller listens to the greeting, then says the same words again and again, each time when the agent has finished; in
every `interrupt_every`-th answer they speak in between. Times are seconds of one steady clock, given with every call.

Wire: https://www.twilio.com/docs/voice/media-streams/websocket-messages. What is sent is the same text that
`trunkline.testing.twilio` sends, put together from prepared pieces.
"""

import base64
import heapq
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from trunkline.testing.twilio.line import StreamIds
from trunkline.testing.twilio.wire import FRAME_BYTES, FRAME_MS, RATE_HZ

FRAME_S: Final = FRAME_MS / 1_000
_QUIET_S: Final = 0.3
"""The agent has finished when nothing has played for so long."""
_INTERRUPTS_S: Final = 0.6
"""How far into an answer a caller speaks in between."""
_GAP_S: Final = 0.02
"""Shorter gaps in the agent's audio than a frame nobody hears."""
_PATIENCE_S: Final = 8.0


class Media(msgspec.Struct):
    """The audio of a message."""

    payload: str


class Mark(msgspec.Struct):
    """The name of a mark."""

    name: str


class Said(msgspec.Struct):
    """A message of the application, as far as it matters here."""

    event: str
    media: Media | None = None
    mark: Mark | None = None


_SAID: Final = msgspec.json.Decoder(Said)


class Speech(NamedTuple):
    """What every caller says, as base64 frames: `words`, and the hiss of a line without them."""

    words: tuple[bytes, ...]
    hiss: tuple[bytes, ...]


def speech_of(words: bytes, hiss: Sequence[bytes]) -> Speech:
    """Cut μ-law `words` into frames; the last one is filled up with silence."""
    frames = [words[at : at + FRAME_BYTES].ljust(FRAME_BYTES, b"\xff") for at in range(0, len(words), FRAME_BYTES)]
    return Speech(tuple(map(base64.b64encode, frames)), tuple(map(base64.b64encode, hiss)))


class Seen(msgspec.Struct):
    """What a caller has lived through. Times in milliseconds; each with the second it was taken at."""

    responses: list[tuple[float, float]] = []
    """From the end of the caller's words to the first audio of the answer."""
    interrupts: list[tuple[float, float]] = []
    """From the first sound of words spoken in between to `clear`."""
    gaps: list[tuple[float, float]] = []
    """Silence within a sentence of the agent."""
    heard_s: float = 0.0
    """Audio of the agent."""
    unanswered: int = 0
    """How often there was no answer, or no end of what was interrupted, for eight seconds."""
    closed_early: bool = False
    frames: int = 0


class Caller:
    """One call.

    Args:
        ids: of its stream.
        speech: what is said.
        interrupt_every: every how many answers the caller speaks in between; 0 for never.
        offset: where in the hiss this caller begins.
    """

    def __init__(self, ids: StreamIds, speech: Speech, interrupt_every: int, offset: int) -> None:
        self.seen: Final = Seen()
        self._speech = speech
        self._interrupt_every = interrupt_every
        self._hiss_at = offset % len(speech.hiss)
        self._ids = ids
        self._sid = ids.stream_sid.encode()
        self._sequence = 1
        self._state: Literal["greeting", "speaking", "waiting", "hearing"] = "greeting"
        self._since = 0.0
        self._word = 0
        self._answers = 0
        self._interrupting = False
        self._clear_due: float | None = None
        self._plays_until = 0.0
        self._open = False
        self._marks: list[tuple[float, int, str]] = []
        self._marked = 0

    def tick(self, now: float) -> list[bytes]:
        """Let 20 ms pass; return what the carrier sends."""
        frame = self._next_frame(now)
        seen = self.seen
        seen.frames += 1
        chunk = str(seen.frames).encode()
        stamp = str(20 * seen.frames + 40).encode()
        messages = [
            b'{"event":"media","sequenceNumber":"%d","streamSid":"%b","media":{"track":"inbound","chunk":"%b",'
            b'"timestamp":"%b","payload":"%b"}}' % (self._number(), self._sid, chunk, stamp, frame)
        ]
        while self._marks and self._marks[0][0] <= now:
            messages.append(self._returned(heapq.heappop(self._marks)[2]))
        return messages

    def receive(self, text: bytes, now: float) -> list[bytes]:
        """Take a message of the application; return what the carrier answers at once."""
        said = _SAID.decode(text)
        if said.media is not None:
            self._hear(len(said.media.payload) * 3 // 4 / RATE_HZ, now)
        elif said.mark is not None:
            self._open = False
            if self._plays_until <= now:
                return [self._returned(said.mark.name)]
            self._marked += 1
            heapq.heappush(self._marks, (self._plays_until, self._marked, said.mark.name))
        elif said.event == "clear":
            if self._clear_due is not None:
                self.seen.interrupts.append((now, 1_000 * (now - self._clear_due)))
                self._clear_due = None
            self._plays_until, self._open = now, False
            names = [name for _, _, name in sorted(self._marks)]
            self._marks.clear()
            return [self._returned(name) for name in names]
        return []

    def stop(self) -> bytes:
        """Return the carrier's last message: the caller has hung up."""
        body = {"accountSid": self._ids.account_sid, "callSid": self._ids.call_sid}
        return msgspec.json.encode(
            {
                "event": "stop",
                "sequenceNumber": str(self._number()),
                "streamSid": self._ids.stream_sid,
                "stop": body,
            }
        )

    def _hear(self, length_s: float, now: float) -> None:
        if self._state == "waiting":
            self.seen.responses.append((now, 1_000 * (now - self._since)))
            self._answers += 1
            self._state, self._since = "hearing", now
        elif self._open and now - self._plays_until > _GAP_S:
            self.seen.gaps.append((now, 1_000 * (now - self._plays_until)))
        self._open = True
        self._plays_until = max(self._plays_until, now) + length_s
        self.seen.heard_s += length_s

    def _next_frame(self, now: float) -> bytes:
        if self._state == "greeting":
            self._since = self._since or now
            if self.seen.heard_s and self._finished(now):
                self._speak(now)
        elif self._state == "hearing":
            self._interrupting = bool(self._interrupt_every) and self._answers % self._interrupt_every == 0
            if self._interrupting and now - self._since > _INTERRUPTS_S and self._plays_until > now:
                self._clear_due = now
                self._speak(now)
            elif self._finished(now):
                self._speak(now)
        elif self._state == "waiting" and now - self._since > _PATIENCE_S:
            self.seen.unanswered += 1
            self._speak(now)
        if self._state == "speaking":
            frame = self._speech.words[self._word]
            self._word += 1
            if self._word == len(self._speech.words):
                self.seen.unanswered += self._clear_due is not None
                self._clear_due = None
                self._state, self._since = "waiting", now + FRAME_S
            return frame
        self._hiss_at = (self._hiss_at + 1) % len(self._speech.hiss)
        return self._speech.hiss[self._hiss_at]

    def _finished(self, now: float) -> bool:
        return now - self._plays_until > _QUIET_S

    def _speak(self, now: float) -> None:
        self._state, self._since, self._word = "speaking", now, 0

    def _returned(self, name: str) -> bytes:
        return b'{"event":"mark","sequenceNumber":"%d","streamSid":"%b","mark":{"name":"%b"}}' % (
            self._number(),
            self._sid,
            name.encode(),
        )

    def _number(self) -> int:
        self._sequence += 1
        return self._sequence
