"""The messages of a bidirectional media stream, both ways, with the field types Twilio uses.

Twilio writes every number as a string, except the sample rate and the channel count. What the application sends is read
strictly: a field too many is as wrong as one too few.

Source: https://www.twilio.com/docs/voice/media-streams/websocket-messages.
"""

from typing import Any, Final

import msgspec

RATE_HZ: Final = 8_000
FRAME_MS: Final = 20
FRAME_BYTES: Final = RATE_HZ * FRAME_MS // 1_000
SILENCE: Final = b"\xff" * FRAME_BYTES
"""One frame of μ-law zero."""

Message = dict[str, Any]
"""What goes to the application; one JSON object per text frame."""


class _Sent(msgspec.Struct, frozen=True, tag_field="event", forbid_unknown_fields=True, rename="camel"):
    stream_sid: str


class MediaBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """μ-law in base64; any number of bytes."""

    payload: str


class SentMedia(_Sent, frozen=True, tag="media"):
    """Audio for the caller."""

    media: MediaBody


class MarkBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A name of the application's choice."""

    name: str


class SentMark(_Sent, frozen=True, tag="mark"):
    """Tell me when everything up to here has been played."""

    mark: MarkBody


class SentClear(_Sent, frozen=True, tag="clear"):
    """Forget what has not been played yet."""


Sent = SentMedia | SentMark | SentClear
SENT: Final[msgspec.json.Decoder[Sent]] = msgspec.json.Decoder(Sent)


def write(message: Message) -> str:
    """Return the text frame that carries `message`."""
    return msgspec.json.encode(message).decode()
