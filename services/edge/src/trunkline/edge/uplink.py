"""Caller audio on its way to STT: every frame once, in order, to whichever worker has the call.

Frames are kept in a ring and a pointer says which is due next. As long as it keeps up, a frame goes out as it comes: no
task, no header, no log line. When it falls behind (no worker yet, a new worker, the bus away) it catches up from the
ring, with `Flag.REPLAY`, faster than real time; only what the ring has forgotten by then is lost.

Every frame carries a reply address, on which the bus says that nobody heard it: the worker is dead, or it is not back
yet after the bus was away. Then the pointer goes back to that frame, which is tried alone, once for every new one,
until it is heard. When the connection breaks it goes back a little as well; who has heard a frame leaves it out.
"""

from collections import Counter
from typing import Final

from trunkline.bus import Address, MediaLane
from trunkline.edge.ring import Kept, Ring
from trunkline.proto import subjects
from trunkline.proto.frame import SEQ_AND_CAPTURED, Codec, Flag, pack_origin
from trunkline.proto.ids import CallId, Epoch, Seq, WorkerId
from trunkline.runtime.journal import Journal

SOCKET_FRAMES: Final = 10
"""So many frames may be lost with a connection that breaks, sent but not arrived; they are sent again."""
_SILENT = Journal()


class Uplink:
    """The audio of one call."""

    def __init__(
        self,
        lane: MediaLane,
        ring: Ring,
        codec: Codec,
        sample_rate_hz: int,
        traffic: Counter[str],
        journal: Journal = _SILENT,
    ) -> None:
        self._journal = journal
        self._call = ""
        self._lane = lane
        self._ring = ring
        self.codec: Final = codec
        self._rate_hz = sample_rate_hz
        self._traffic = traffic
        self._address: Address | None = None
        """Where frames go; None while there is nobody to hear them."""
        self._live = self._replayed = b""
        """How frames begin that go out as they come, and those from the ring."""
        self._epoch = Epoch(0)
        self._since = self._due = 0
        self._unheard = False
        self._in_a_row = 0
        self._breaks = lane.breaks

    def push(self, captured_us: int, payload: bytes) -> None:
        """Take the next frame, in the codec of the uplink."""
        kept = self._ring.push(captured_us, payload)
        if not self._unheard:
            self._in_a_row = 0
        if self._address is None:
            return
        if self._breaks != self._lane.breaks:
            self._breaks = self._lane.breaks
            self._due = max(self._since, self._due - SOCKET_FRAMES)
        if self._due == kept.seq:
            self._send(kept, self._live)
        else:
            self._catch_up()

    def connect(self, call: CallId, worker: WorkerId, epoch: Epoch, since: Seq) -> None:
        """Send to `worker` from now on, beginning with the frame `since` or the oldest that is kept."""
        self._epoch, self._due = epoch, since
        self._call, self._since = call, since
        self._address = Address(subjects.media(worker, call), self._lane.reply_to(f"{call}-{epoch}-"))
        self._live, self._replayed = (
            pack_origin(self.codec, self._rate_hz, flags, epoch) for flags in (Flag.NONE, Flag.REPLAY)
        )
        self._unheard = False
        self._in_a_row = 0
        self._catch_up()

    def disconnect(self) -> None:
        """Keep frames, send none."""
        self._address = None

    def unheard(self, epoch: Epoch, seq: Seq) -> int:
        """Take note that nobody listened when the frame `seq` was sent in `epoch`; return how often in a row by now."""
        if epoch != self._epoch or self._address is None:
            return 0
        self._traffic["frames_unheard"] += 1
        self._due = min(self._due, seq)
        self._unheard = True
        self._in_a_row += 1
        return self._in_a_row

    def _catch_up(self) -> None:
        probing, self._unheard = self._unheard, False
        behind = self._ring.since(self._due)
        if behind:
            self._traffic["frames_forgotten"] += behind[0].seq - self._due
        for kept in behind[:1] if probing else behind:
            if not self._send(kept, self._replayed):
                return
            self._traffic["frames_replayed"] += 1

    def _send(self, kept: Kept, origin: bytes) -> bool:
        """Send one frame and move the pointer behind it; return whether there is any point in sending the next."""
        address, seq = self._address, kept.seq
        header = origin + SEQ_AND_CAPTURED.pack(seq, kept.captured_us)
        if address is None or not self._lane.gather(address, seq, header, kept.payload):
            return False
        if self._journal.on:
            replay = int(origin is self._replayed)
            self._journal.note("frame", self._call, epoch=self._epoch, seq=seq, replay=replay)
        self._due = seq + 1
        return True


def unheard_of(token: str) -> tuple[CallId, Epoch, Seq]:
    """Return which frame a reply address speaks of.

    Raises:
        ValueError: it is none of ours.
    """
    call, epoch, seq = token.split("-")
    return CallId(call), Epoch(int(epoch)), Seq(int(seq))
