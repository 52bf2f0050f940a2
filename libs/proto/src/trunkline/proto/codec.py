"""One way to write and to read messages.

Encoding is JSON, because a person at night reads the bus with ``nats sub``. Decoding is lenient about fields it does
not know (a newer sender) and strict about types.
"""

from typing import Any, Final, TypeVar

import msgspec

from trunkline.proto import events, messages, records
from trunkline.proto.errors import BadMessage

T = TypeVar("T")

_ENCODER: Final = msgspec.json.Encoder()
encode = _ENCODER.encode

CLAIM: Final = msgspec.json.Decoder(messages.Claim)
CLAIM_REPLY: Final[msgspec.json.Decoder[messages.ClaimReply]] = msgspec.json.Decoder(messages.ClaimReply)
RELEASE: Final = msgspec.json.Decoder(messages.Release)
RELEASED: Final = msgspec.json.Decoder(messages.Released)
MISSED: Final = msgspec.json.Decoder(messages.Missed)
HOLDS: Final = msgspec.json.Decoder(messages.Holds)
HAND_OVER: Final = msgspec.json.Decoder(messages.HandOver)
HANDED_OVER: Final = msgspec.json.Decoder(messages.HandedOver)
DISOWNED: Final = msgspec.json.Decoder(messages.Disowned)
ALIVE: Final = msgspec.json.Decoder(messages.Alive)
SPEECH: Final[msgspec.json.Decoder[messages.SpeechMessage]] = msgspec.json.Decoder(messages.SpeechMessage)
SPEAK: Final = msgspec.json.Decoder(messages.Say)
INTERRUPT: Final = msgspec.json.Decoder(messages.Interrupt)
PLAYOUT: Final[msgspec.json.Decoder[messages.PlayoutMessage]] = msgspec.json.Decoder(messages.PlayoutMessage)
CONTROL: Final[msgspec.json.Decoder[messages.ControlMessage]] = msgspec.json.Decoder(messages.ControlMessage)
SPOKEN: Final[msgspec.json.Decoder[messages.SpokenMessage]] = msgspec.json.Decoder(messages.SpokenMessage)
USAGE: Final = msgspec.json.Decoder(messages.Used)
RINGING: Final = msgspec.json.Decoder(messages.Ringing)
MAKE_CLIP: Final = msgspec.json.Decoder(messages.MakeClip)
CLIP_MADE: Final = msgspec.json.Decoder(messages.ClipMade)
ASSIGNED: Final = msgspec.json.Decoder(messages.Assigned)
RECORD: Final = msgspec.json.Decoder(records.CallRecord)
DTMF: Final = msgspec.json.Decoder(messages.DigitPressed)
EVENT: Final = msgspec.json.Decoder(events.Event)

Story = (
    messages.SpeechMessage
    | messages.Say
    | messages.Interrupt
    | messages.PlayoutMessage
    | messages.ControlMessage
    | messages.SpokenMessage
    | messages.Used
    | messages.DigitPressed
    | messages.Assigned
)
"""Anything that can be seen on ``call.<id>.>``."""

_STORY: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    "speech": SPEECH,
    "speak": SPEAK,
    "interrupt": INTERRUPT,
    "playout": PLAYOUT,
    "control": CONTROL,
    "spoken": SPOKEN,
    "usage": USAGE,
    "dtmf": DTMF,
    "assigned": ASSIGNED,
}


def decode(decoder: "msgspec.json.Decoder[T]", data: bytes) -> T:
    """Decode `data`.

    Raises:
        BadMessage: it is not what `decoder` reads; the text names the place.
    """
    try:
        return decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise BadMessage(str(error)) from error


def decode_story(topic: str, data: bytes) -> Story:
    """Decode a message seen on ``call.<id>.<topic>``.

    Raises:
        BadMessage: the topic is unknown or the message is not one of its union.
    """
    decoder = _STORY.get(topic)
    if decoder is None:
        raise BadMessage(f"no such topic of a call: {topic!r}")
    message: Story = decode(decoder, data)
    return message
