"""What the carrier sends during a call: the caller's audio goes to the uplink as frames, the rest to the call."""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from trunkline.audio.framing import Framer
from trunkline.audio.g711 import mulaw_to_pcm16
from trunkline.edge.carrier import Carrier, CarrierEvent, Line, Message, Started
from trunkline.edge.uplink import Uplink
from trunkline.proto.frame import FRAME_MS, Codec
from trunkline.runtime.clock import Clock


class Leg(NamedTuple):
    """The carrier's side of a call: its stream, which has just started, and the line it comes on."""

    started: Started
    carrier: Carrier
    line: Line
    revision: int = 0
    """Of the call's record as it is stored; 0 when there is none."""


async def listen(
    leg: Leg, uplink: Uplink, clock: Clock, traffic: Counter[str], on_event: Callable[[CarrierEvent], None]
) -> None:
    """Take what comes on the line of `leg` until it ends; `on_event` gets all that is no audio.

    Raises:
        LineClosed: it has ended.
    """
    started = leg.started
    understood, push, wall = leg.carrier.receive, uplink.push, clock.wall
    decode = mulaw_to_pcm16 if (started.codec, uplink.codec) == (Codec.MULAW, Codec.PCM16) else None
    # Twilio sends 20 ms at a time, and promises no size.
    cut = Framer(FRAME_MS * started.sample_rate_hz * started.codec.bytes_per_sample // 1000).push

    def take(message: Message) -> None:
        event = understood(message)
        if isinstance(event, bytes):
            for audio in cut(event):
                traffic["frames_in"] += 1
                push(int(wall() * 1e6), decode(audio) if decode else audio)
        elif event is not None:
            on_event(event)

    await leg.line.listen(take)
