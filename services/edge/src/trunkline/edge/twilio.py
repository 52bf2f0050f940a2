"""Twilio Media Streams, bidirectional: the wire language as a pure machine.

https://www.twilio.com/docs/voice/media-streams/websocket-messages. Knows no socket, clock, log or call id.

==================  =================  ============  ===========  ============  =======
state               connected          start         media        dtmf, mark    stop
==================  =================  ============  ===========  ============  =======
waiting-connected   waiting-start      live          close 1008   ignored       over
waiting-start       ignored            live          close 1008   ignored       over
live                ignored            ignored       live         live          over
over                ignored            ignored       ignored      ignored       ignored
==================  =================  ============  ===========  ============  =======

`start` opens the stream even if `connected` never came: nothing in `connected` is needed. "Ignored" is counted as a
bad message, except after the end, when a message may have crossed ours. More than `MAX_BAD` bad messages close the
socket: who sends that many is no Twilio. Before the stream is live, text that is no message at all closes it at once.
"""

from binascii import b2a_base64
from enum import Enum
from typing import Final, Literal

import msgspec

from trunkline.edge.carrier import CarrierEvent, Digit, MarkReturned, Message, Rejected, Started, Stopped
from trunkline.edge.close_codes import INVALID_PAYLOAD, POLICY_VIOLATION, UNSUPPORTED_DATA
from trunkline.edge.errors import NotStarted
from trunkline.proto.frame import Codec
from trunkline.proto.ids import MarkName

MAX_BAD: Final = 50
"""Bad messages a stream may send before it is closed."""
SAMPLE_RATE_HZ: Final = 8000
KEYS: Final = frozenset("0123456789*#ABCD")

Reason = Literal[
    "binary-message",
    "malformed-json",
    "unknown-event",
    "bad-field",
    "bad-base64",
    "bad-digit",
    "empty-media",
    "other-track",
    "wrong-stream-sid",
    "out-of-order",
    "media-before-start",
    "bad-start",
    "media-format",
    "too-many-bad-messages",
]
"""Every `Rejected.reason` of this carrier."""


class State(Enum):
    """Where a stream is in its life; the value is what it waits for."""

    WAITING_CONNECTED = "connected"
    WAITING_START = "start"
    LIVE = "live"
    OVER = "over"


class _Event(msgspec.Struct, tag_field="event", rename="camel"):
    """All numbers on this wire are strings, but for those of mediaFormat. Fields we do not use are not checked."""


class _Connected(_Event, tag="connected"):
    pass


class _MediaFormat(msgspec.Struct, rename="camel"):
    encoding: str
    sample_rate: int
    channels: int


class _StartBody(msgspec.Struct, rename="camel"):
    account_sid: str
    stream_sid: str
    call_sid: str
    media_format: _MediaFormat
    custom_parameters: dict[str, str] = {}


class _Start(_Event, tag="start"):
    stream_sid: str
    start: _StartBody


class _MediaBody(msgspec.Struct, gc=False):
    payload: bytes  # msgspec decodes base64 strictly, in the same pass
    track: str = "inbound"


class _Media(_Event, tag="media", gc=False):
    stream_sid: str
    media: _MediaBody


class _DtmfBody(msgspec.Struct):
    digit: str


class _Dtmf(_Event, tag="dtmf"):
    stream_sid: str
    dtmf: _DtmfBody


class _MarkBody(msgspec.Struct):
    name: str


class _Mark(_Event, tag="mark"):
    stream_sid: str
    mark: _MarkBody


class _Stop(_Event, tag="stop"):
    stream_sid: str


class _AnyEvent(msgspec.Struct):
    event: str


_Said = _Connected | _Start | _Media | _Dtmf | _Mark | _Stop
_SAID: Final[msgspec.json.Decoder[_Said]] = msgspec.json.Decoder(_Said)
_ANY: Final = msgspec.json.Decoder(_AnyEvent)
_EVENTS: Final = frozenset({"connected", "start", "media", "dtmf", "mark", "stop"})


class TwilioStream:
    """One stream of Twilio: messages in, carrier events out; and the three messages that go the other way."""

    def __init__(self) -> None:
        self._state = State.WAITING_CONNECTED
        self._sid = ""
        self._bad = 0
        self._media_head = self._mark_head = self._clear = ""

    @property
    def name(self) -> str:
        """Name of the carrier."""
        return "twilio"

    @property
    def state(self) -> State:
        """Where the stream is in its life."""
        return self._state

    @property
    def waiting_for(self) -> str | None:
        """``connected`` or ``start`` until the stream has begun."""
        waiting = self._state in {State.WAITING_CONNECTED, State.WAITING_START}
        return self._state.value if waiting else None

    def receive(self, message: Message) -> CarrierEvent | None:
        """Take one WebSocket message (text as str, binary as bytes) and return what it means."""
        if isinstance(message, bytes):
            return self._refused("binary-message", "this socket takes text messages only", UNSUPPORTED_DATA)
        try:
            said = _SAID.decode(message)
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
            return self._unreadable(message, error)
        if self._state is State.LIVE and said.__class__ is _Media:
            media = said.media
            if said.stream_sid == self._sid and media.track == "inbound" and media.payload:
                return media.payload
            return self._unfit(said)
        return self._step(said) if self._state is not State.OVER else None

    def media(self, audio: bytes) -> str:
        """Return the message that queues `audio`: G.711 μ-law, 8 kHz, any length, no header.

        Raises:
            NotStarted: no stream has begun.
        """
        if not self._media_head:
            raise NotStarted("media before the stream began")
        return f'{self._media_head}{b2a_base64(audio, newline=False).decode("ascii")}"}}}}'

    def mark(self, name: MarkName) -> str:
        """Return the message that asks for `name` back. Twilio returns it when played *or* cleared.

        Raises:
            NotStarted: no stream has begun.
        """
        if not self._mark_head:
            raise NotStarted("mark before the stream began")
        return f"{self._mark_head}{_quoted(name)}}}}}"

    def clear(self) -> str:
        """Return the message that empties Twilio's buffer.

        Raises:
            NotStarted: no stream has begun.
        """
        if not self._clear:
            raise NotStarted("clear before the stream began")
        return self._clear

    def _unfit(self, said: _Media) -> Rejected:
        if said.stream_sid != self._sid:
            return self._ignored("wrong-stream-sid", "media of another stream")
        if said.media.track != "inbound":
            return self._ignored("other-track", "only the inbound track is taken")
        return self._ignored("empty-media", "media.payload is empty")

    def _step(self, said: _Said) -> CarrierEvent | None:
        live = self._state is State.LIVE
        match said:
            case _Connected() if self._state is State.WAITING_CONNECTED:
                self._state = State.WAITING_START
                return None
            case _Start() if not live:
                return self._started(said)
            case _Media():
                return self._refused("media-before-start", "media came before start", POLICY_VIOLATION)
            case _Stop() if not live or said.stream_sid == self._sid:
                self._state = State.OVER
                return Stopped()
            case _Connected() | _Start():
                return self._ignored("out-of-order", "connected or start came again")
            case _Dtmf() | _Mark() if not live:
                return self._ignored("out-of-order", "dtmf or mark came before start")
            case _Dtmf(stream_sid=self._sid):
                if said.dtmf.digit not in KEYS:
                    return self._ignored("bad-digit", "dtmf.digit is no key of a telephone")
                return Digit(said.dtmf.digit)
            case _Mark(stream_sid=self._sid):
                return MarkReturned(MarkName(said.mark.name))
            case _:
                return self._ignored("wrong-stream-sid", "message of another stream")

    def _started(self, said: _Start) -> Started | Rejected:
        body = said.start
        form = body.media_format
        if (form.encoding, form.sample_rate, form.channels) != ("audio/x-mulaw", SAMPLE_RATE_HZ, 1):
            asked = f"{form.encoding[:40]} {form.sample_rate} Hz {form.channels} ch"
            return self._refused("media-format", f"only audio/x-mulaw 8000 Hz 1 ch, not {asked}", UNSUPPORTED_DATA)
        if not body.call_sid or not body.stream_sid or said.stream_sid != body.stream_sid:
            return self._refused("bad-start", "start: callSid or streamSid is empty or contradicts", INVALID_PAYLOAD)
        self._state = State.LIVE
        self._sid = body.stream_sid
        sid = _quoted(body.stream_sid)
        self._media_head = f'{{"event":"media","streamSid":{sid},"media":{{"payload":"'
        self._mark_head = f'{{"event":"mark","streamSid":{sid},"mark":{{"name":'
        self._clear = f'{{"event":"clear","streamSid":{sid}}}'
        return Started(
            carrier_call=body.call_sid,
            stream=body.stream_sid,
            account=body.account_sid,
            agent=body.custom_parameters.get("agent"),
            parameters=body.custom_parameters,
            codec=Codec.MULAW,
            sample_rate_hz=form.sample_rate,
        )

    def _unreadable(self, message: str, error: Exception) -> Rejected | None:
        """Say what is wrong with text that is none of our messages; a second, loose look tells which wrong it is."""
        if self._state is State.OVER:
            return None
        text = str(error)[:120]
        try:
            event = _ANY.decode(message).event
        except msgspec.ValidationError:
            return self._ignored("unknown-event", "the message has no event")
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            if self._state is State.LIVE:
                return self._ignored("malformed-json", text)
            return self._refused("malformed-json", text, INVALID_PAYLOAD)
        if event not in _EVENTS:
            return self._ignored("unknown-event", f"event {event[:40]!r} is unknown")
        if event == "start" and self._state is not State.LIVE:
            return self._refused("bad-start", text, INVALID_PAYLOAD)
        if event == "media" and self._state is not State.LIVE:
            return self._refused("media-before-start", "media came before start", POLICY_VIOLATION)
        if "base64" in text:
            return self._ignored("bad-base64", text)
        return self._ignored("bad-field", text)

    def _ignored(self, reason: Reason, detail: str) -> Rejected:
        self._bad += 1
        if self._bad > MAX_BAD:
            text = f"more than {MAX_BAD} bad messages; the last: {reason}"
            return self._refused("too-many-bad-messages", text, POLICY_VIOLATION)
        return Rejected(reason=reason, detail=detail)

    def _refused(self, reason: Reason, detail: str, close_code: int) -> Rejected:
        self._state = State.OVER
        return Rejected(reason=reason, detail=detail, close_code=close_code)


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()
