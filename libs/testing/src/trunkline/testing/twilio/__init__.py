"""Twilio's side of a call, on the real wire.

`line` is the protocol and the playout of one media stream as a pure machine, clocked by samples; `stream` is its
socket. `carrier` is the whole call: it follows the TwiML of the webhooks, stream after stream, in frames of 20 ms in
real time. What is said and when is the `Party`'s business, not this package's.

Written against https://www.twilio.com/docs/voice/media-streams/websocket-messages and what recorded sessions show.
"""

from trunkline.testing.twilio.carrier import Heard, Party, Recording, Uttered, place
from trunkline.testing.twilio.dial import Delays, Dial, new_call_sid
from trunkline.testing.twilio.line import Line, LineEvent, StreamIds, Warned
from trunkline.testing.twilio.playout import Playout
from trunkline.testing.twilio.twiml import StreamVerb, Twiml, parse_twiml
from trunkline.testing.twilio.wire import FRAME_BYTES, FRAME_MS, RATE_HZ, SILENCE

__all__ = [
    "FRAME_BYTES",
    "FRAME_MS",
    "RATE_HZ",
    "SILENCE",
    "Delays",
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
