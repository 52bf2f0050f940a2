"""Taking up a call whose caller has come back on a new line: one edge gets it, and knows where the last one stopped."""

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from trunkline.bus import BusUnavailable, CallStore, Outdated
from trunkline.proto import codec
from trunkline.proto.errors import BadMessage
from trunkline.proto.frame import FRAME_MS
from trunkline.proto.ids import CallId, Seq, WorkerId
from trunkline.proto.records import CallRecord, edge_key

ATTEMPTS: Final = 3
MARGIN_FRAMES: Final = 320
"""10 s: for clocks that differ, and for a caller whose audio came in faster than it was spoken."""
_FRAMES_PER_S: Final = 1_000 / FRAME_MS


class TakenUp(NamedTuple):
    """A call that is ours now."""

    record: CallRecord
    """As the edge before left it."""
    revision: int
    """Of the record as we have written it."""


async def read_record(store: CallStore, call: CallId) -> tuple[CallRecord, int] | None:
    """Return the record of `call` and its revision; None when there is none.

    Raises:
        BusUnavailable: it cannot be read just now, or not by this version.
    """
    stored = await store.get(edge_key(call))
    if stored is None:
        return None
    try:
        return codec.decode(codec.RECORD, stored.data), stored.revision
    except BadMessage as error:
        raise BusUnavailable(f"the record of {call} cannot be read: {error}") from error


def reopened(record: CallRecord, edge: WorkerId) -> CallRecord:
    """Return `record` of a call whose caller has come back, to this `edge`."""
    return msgspec.structs.replace(
        record, state="live", edge=edge, planned=False, reason="", comebacks=record.comebacks + 1
    )


async def take_up(store: CallStore, call: CallId, edge: WorkerId, wall: Callable[[], float]) -> TakenUp | None:
    """Make `edge` the one who has `call`; None when nothing is known of it, or when it is over.

    Whoever had it learns of it when they next write its record.

    Raises:
        BusUnavailable: JetStream is away, or others wrote the record each time we tried.
    """
    for _ in range(ATTEMPTS):
        found = await read_record(store, call)
        if found is None or found[0].state == "ended":
            return None
        record, revision = found
        ours = msgspec.structs.replace(reopened(record, edge), written_at=wall())
        try:
            return TakenUp(record, await store.put(edge_key(call), codec.encode(ours), revision))
        except Outdated:
            continue
    raise BusUnavailable(f"the record of {call} was written by others {ATTEMPTS} times")


def next_seq(record: CallRecord, now: float) -> Seq:
    """Return a number above that of every frame of the caller's so far, for the first one of a new line.

    Utterances are named by the number of their first frame, so numbers must rise over a whole call; how far the edge
    before came after it last wrote `record` nobody knows. Nobody can have come further than the time allows, and
    for each line a margin.
    """
    by_record = record.next_seq + _frames(now - record.written_at) + MARGIN_FRAMES
    by_age = _frames(now - record.started_at) + MARGIN_FRAMES * (record.comebacks + 1)
    return Seq(max(by_record, by_age))


def _frames(seconds: float) -> int:
    return max(0, round(seconds * _FRAMES_PER_S))
