"""Caller audio on its way to STT: every frame once, in order, to whichever worker has the call.

Frames are kept in a ring and a pointer says which is due next. As long as it keeps up, a frame goes out as it comes: no
task, no header, no log line. When it falls behind (no worker yet, a new worker, the bus away) it catches up from the
ring, with `Flag.REPLAY`, faster than real time; only what the ring has forgotten by then is lost.
"""

from collections import Counter

from trunkline.bus import MediaLane
from trunkline.edge.ring import Ring
from trunkline.proto.frame import Codec, Flag, MediaFrame, pack_media
from trunkline.proto.ids import Epoch, Seq

_NO_FLAGS = int(Flag.NONE)
_REPLAY = int(Flag.REPLAY)


class Uplink:
    """The audio of one call. One pusher at a time."""

    def __init__(self, lane: MediaLane, ring: Ring, codec: Codec, sample_rate_hz: int, traffic: Counter[str]) -> None:
        self._lane = lane
        self._ring = ring
        self._codec = codec
        self._rate_hz = sample_rate_hz
        self._traffic = traffic
        self._subject = ""
        self._epoch = Epoch(0)
        self._due = Seq(0)
        self._catching_up: Epoch | None = None

    async def push(self, captured_us: int, payload: bytes) -> None:
        """Take the next frame, in the codec of the uplink."""
        seq = self._ring.push(captured_us, payload).seq
        if not self._subject or self._catching_up is not None:
            return
        if self._due != seq:
            await self._catch_up()
            return
        frame = MediaFrame(self._codec, self._rate_hz, _NO_FLAGS, self._epoch, seq, captured_us, payload)
        epoch = self._epoch
        if await self._lane.publish_frame(self._subject, pack_media(frame)) and self._epoch == epoch:
            self._due = Seq(seq + 1)

    async def connect(self, subject: str, epoch: Epoch, since: Seq) -> None:
        """Send to `subject` from now on, beginning with the frame `since` or the oldest that is kept."""
        self._subject, self._epoch, self._due = subject, epoch, since
        await self._catch_up()

    def disconnect(self) -> None:
        """Keep frames, send none."""
        self._subject = ""

    async def _catch_up(self) -> None:
        epoch, subject = self._epoch, self._subject
        self._catching_up = epoch
        try:
            while kept := self._ring.since(self._due):
                self._traffic["frames_forgotten"] += kept[0].seq - self._due
                for seq, captured_us, payload in kept:
                    frame = MediaFrame(self._codec, self._rate_hz, _REPLAY, epoch, seq, captured_us, payload)
                    sent = await self._lane.publish_frame(subject, pack_media(frame))
                    if not sent or self._epoch != epoch or self._subject != subject:
                        return
                    self._due = Seq(seq + 1)
                    self._traffic["frames_replayed"] += 1
        finally:
            if self._catching_up == epoch:
                self._catching_up = None
