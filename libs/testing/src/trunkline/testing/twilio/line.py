"""One media stream as Twilio runs it, without a socket or a clock: samples in, messages out.

`advance` is called once every 20 ms. It takes the frame the caller spoke since the last time and returns what Twilio
sends: the media message, then the marks whose audio has just finished. `receive` takes what the application sends
whenever it comes.

Order and numbers follow recorded sessions: one sequence counter over everything after `connected`, marks included; the
first media timestamp is not 0; audio that arrives between two frames begins to play at the second, so that the mark
behind one second of audio comes back after the 51st media message.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import msgspec

from trunkline.testing.twilio.playout import Playout
from trunkline.testing.twilio.wire import (
    FRAME_BYTES,
    FRAME_MS,
    RATE_HZ,
    SENT,
    SILENCE,
    Message,
    SentClear,
    SentMark,
    SentMedia,
    write,
)

BINARY_FRAME: Final = "31950"
BAD_MESSAGE: Final = "31951"
SLOW_READER: Final = "31930"


class StreamIds(NamedTuple):
    """Who is who: `AC…`, `CA…`, `MZ…`."""

    account_sid: str
    call_sid: str
    stream_sid: str


class LineEvent(NamedTuple):
    """Something that happened on the line, `at_s` seconds of audio after the start of the call."""

    at_s: float
    what: str
    text: str


class Warned(NamedTuple):
    """What Twilio's debugger would show: a code of https://www.twilio.com/docs/api/errors and why."""

    at_s: float
    code: str
    text: str


class Line:
    """The protocol machine of one stream.

    Args:
        ids: names of account, call and stream.
        parameters: the `<Parameter>`s of the TwiML.
        first_timestamp_ms: timestamp of the first media message.
        start_s: where in the call the stream begins; events and warnings count from the start of the call.
        observe: told everything but media, as it happens.
    """

    def __init__(
        self,
        ids: StreamIds,
        parameters: Mapping[str, str] | None = None,
        *,
        first_timestamp_ms: int = 52,
        start_s: float = 0.0,
        observe: Callable[[LineEvent], None] | None = None,
    ) -> None:
        self.ids: Final = ids
        self.warnings: Final[list[Warned]] = []
        self.left: Final = bytearray()
        """What the caller said, μ-law."""
        self.right: Final = bytearray()
        """What the caller heard, μ-law; always as long as `left`."""
        self._parameters = dict(parameters or {})
        self._first_timestamp_ms = first_timestamp_ms
        self._start_s = start_s
        self._observe = observe
        self._sequence = 0
        self._chunk = 0
        self._playout = Playout()
        self._playing = b""

    @property
    def at_s(self) -> float:
        """Seconds of audio since the start of the call."""
        return self._start_s + len(self.left) / RATE_HZ

    @property
    def hearing(self) -> bytes:
        """The frame that is playing, or has played since the last `advance`: 160 samples, silence included."""
        return self._playing + SILENCE[len(self._playing) :]

    @property
    def playing(self) -> bool:
        """Whether audio of the application plays or waits."""
        return not self._playout.idle

    def open(self) -> list[str]:
        """Return what Twilio says first: connected, start."""
        self._note("connected")
        self._note("start", self.ids.stream_sid)
        start = {
            "accountSid": self.ids.account_sid,
            "streamSid": self.ids.stream_sid,
            "callSid": self.ids.call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": RATE_HZ, "channels": 1},
            "customParameters": self._parameters,
        }
        return [
            write({"event": "connected", "protocol": "Call", "version": "1.0.0"}),
            self._numbered("start", {"start": start}),
        ]

    def advance(self, spoken: bytes) -> list[str]:
        """Let 20 ms pass, in which the caller said `spoken`; return what to send.

        Raises:
            ValueError: `spoken` is not one frame.
        """
        if len(spoken) != FRAME_BYTES:
            raise ValueError(f"a frame has {FRAME_BYTES} bytes, this one {len(spoken)}")
        self.left.extend(spoken)
        self.right.extend(self.hearing)
        self._chunk += 1
        media = {
            "track": "inbound",
            "chunk": str(self._chunk),
            "timestamp": str(self._first_timestamp_ms + FRAME_MS * (self._chunk - 1)),
            "payload": base64.b64encode(spoken).decode(),
        }
        messages = [self._numbered("media", {"media": media})]
        messages += self._returned(self._playout.pass_time())
        self._playing = self._playout.take(FRAME_BYTES)
        return messages

    def receive(self, text: str | bytes) -> list[str]:
        """Take a WebSocket message of the application; return what Twilio answers at once (marks).

        Nothing is fatal here: what Twilio would not understand is noted in `warnings` and ignored.
        """
        if isinstance(text, bytes):
            return self.warn(BINARY_FRAME, f"binary frame of {len(text)} bytes")
        try:
            message = SENT.decode(text)
        except msgspec.MsgspecError as error:
            return self.warn(BAD_MESSAGE, f"{error} in {text[:120]!r}")
        if message.stream_sid != self.ids.stream_sid:
            return self.warn(BAD_MESSAGE, f"streamSid {message.stream_sid!r} is not this stream's")
        match message:
            case SentMedia(media=body):
                try:
                    audio = base64.b64decode(body.payload, validate=True)
                except binascii.Error as error:
                    return self.warn(BAD_MESSAGE, f"payload is no base64: {error}")
                self._playout.queue(audio)
                return []
            case SentMark(mark=body):
                self._note("mark-received", body.name)
                return self._returned(self._playout.mark(body.name))
            case SentClear():
                self._note("clear", f"{self._playout.waiting_bytes * 1_000 // RATE_HZ} ms dropped")
                return self._returned(self._playout.clear())

    def press(self, digit: str) -> str:
        """Return the message for one key."""
        self._note("dtmf", digit)
        return self._numbered("dtmf", {"dtmf": {"track": "inbound_track", "digit": digit}})

    def stop(self) -> str:
        """Return the last message: the caller is gone."""
        self._note("stop")
        return self._numbered("stop", {"stop": {"accountSid": self.ids.account_sid, "callSid": self.ids.call_sid}})

    def warn(self, code: str, text: str) -> list[str]:
        """Note something Twilio would complain about; it answers nothing."""
        self.warnings.append(Warned(self.at_s, code, text))
        self._note("warning", f"{code} {text}")
        return []

    def _numbered(self, event: str, body: Message) -> str:
        self._sequence += 1
        sid = self.ids.stream_sid
        return write({"event": event, "sequenceNumber": str(self._sequence), "streamSid": sid, **body})

    def _returned(self, names: list[str]) -> list[str]:
        for name in names:
            self._note("mark-returned", name)
        return [self._numbered("mark", {"mark": {"name": name}}) for name in names]

    def _note(self, what: str, text: str = "") -> None:
        if self._observe is not None:
            self._observe(LineEvent(self.at_s, what, text))
