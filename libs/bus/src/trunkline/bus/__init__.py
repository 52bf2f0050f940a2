"""The bus: the only importer of NATS.

What belongs here: connections and their settings, the media lane, claims and capacity, heartbeats, streams. What does
not: anything about audio, speech, carriers or providers; this library carries the contract and does not read it beyond
what ownership of a call needs.
"""

from trunkline.bus.calls import CallStore, CallWriter, Stored
from trunkline.bus.clips import ClipStore
from trunkline.bus.connection import Bus, Subscription
from trunkline.bus.direct import Address
from trunkline.bus.doubt import Doubt
from trunkline.bus.ending import ended
from trunkline.bus.errors import BusError, BusTimeout, BusUnavailable, NoWorker, Outdated, Unservable
from trunkline.bus.event_log import SETTLED_S, EventLog
from trunkline.bus.event_reader import Delivery, EventReader, Recorded, facts_of, read_envelope, recorded
from trunkline.bus.heartbeat import Heartbeat
from trunkline.bus.media import MediaLane
from trunkline.bus.outbox import BACK_S
from trunkline.bus.streams import ensure_events_stream
from trunkline.bus.worker import CallSession, Worker

__all__ = [
    "BACK_S",
    "SETTLED_S",
    "Address",
    "Bus",
    "BusError",
    "BusTimeout",
    "BusUnavailable",
    "CallSession",
    "CallStore",
    "CallWriter",
    "ClipStore",
    "Delivery",
    "Doubt",
    "EventLog",
    "EventReader",
    "Heartbeat",
    "MediaLane",
    "NoWorker",
    "Outdated",
    "Recorded",
    "Stored",
    "Subscription",
    "Unservable",
    "Worker",
    "ended",
    "ensure_events_stream",
    "facts_of",
    "read_envelope",
    "recorded",
]
