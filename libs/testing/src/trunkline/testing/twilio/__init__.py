"""Twilio's side of a call, on the real wire.

`line` is the protocol and the playout as a pure machine, clocked by samples. `carrier` is its asyncio shell: webhook,
WebSocket, 20 ms frames in real time. What is said and when is the `Party`'s business, not this package's.

Written against https://www.twilio.com/docs/voice/media-streams/websocket-messages and what recorded sessions show.
"""

from trunkline.testing.twilio.carrier import Dial, Heard, Party, Recording, Uttered, new_call_sid, place
from trunkline.testing.twilio.line import Line, LineEvent, StreamIds, Warned
from trunkline.testing.twilio.playout import Playout
from trunkline.testing.twilio.twiml import StreamVerb, Twiml, parse_twiml
from trunkline.testing.twilio.wire import FRAME_BYTES, FRAME_MS, RATE_HZ, SILENCE

__all__ = [
    "FRAME_BYTES",
    "FRAME_MS",
    "RATE_HZ",
    "SILENCE",
    "Dial",
    "Heard",
    "Line",
    "LineEvent",
    "Party",
    "Playout",
    "Recording",
    "StreamIds",
    "StreamVerb",
    "Twiml",
    "Uttered",
    "Warned",
    "new_call_sid",
    "parse_twiml",
    "place",
]
