"""A call's audio on its way through STT: frames in, blocks out, with the recent past kept. Pure.

Frames are 20 ms and blocks 32 ms, so a block's frames have to be remembered: `Block` says in which frame it begins and
ends, and when those were captured.
"""

from collections import deque
from typing import Final, NamedTuple

from trunkline.proto.frame import MediaFrame
from trunkline.proto.ids import Seq

RATE_HZ: Final = 8_000
PAST_BYTES: Final = 2 * RATE_HZ * 3
"""3 s: longer than the longest `min_speech_ms` and the pre-roll together."""


class Block(NamedTuple):
    """32 ms of a call."""

    pcm: bytes
    first: Seq
    last: Seq


class Track:
    """One call's audio. Positions are bytes of PCM16 since the first frame."""

    def __init__(self, block_bytes: int) -> None:
        self._block_bytes = block_bytes
        self._pending = bytearray()
        self._past = bytearray()
        self._position = 0
        self._arrived = 0
        self._frames: deque[tuple[int, Seq]] = deque()
        self._captured: dict[Seq, float] = {}
        self._begins: dict[Seq, int] = {}
        self._next = Seq(0)
        self.lost = 0
        """Frames that never came."""
        self.repeated = 0
        """Frames that came again, or too late."""

    def add(self, frame: MediaFrame, pcm: bytes) -> None:
        """Append a frame. What is missing before it is left out: the silence would only sound like an end of turn."""
        seq = frame.seq
        if seq < self._next:
            self.repeated += 1
            return
        if self._arrived:
            self.lost += seq - self._next
        self._next = Seq(seq + 1)
        self._captured[seq] = frame.captured_us / 1e6
        self._begins[seq] = self._arrived
        self._arrived += len(pcm)
        self._frames.append((self._arrived, seq))
        self._pending += pcm

    @property
    def ready(self) -> bool:
        """Whether there is a whole block."""
        return len(self._pending) >= self._block_bytes

    def take(self) -> Block:
        """Return the next block. There must be one (`ready`)."""
        pcm = bytes(self._pending[: self._block_bytes])
        del self._pending[: self._block_bytes]
        while self._frames[0][0] <= self._position:
            self._frames.popleft()
        first = self._frames[0][1]
        self._position += len(pcm)
        last = next(seq for end, seq in self._frames if end >= self._position)
        self._past += pcm
        if len(self._past) > 2 * PAST_BYTES:
            del self._past[:-PAST_BYTES]
            self._forget()
        return Block(pcm, first, last)

    def since(self, seq: Seq, before_ms: int) -> bytes:
        """Return the audio from `before_ms` ahead of frame `seq` up to the last block taken."""
        start = self._begins.get(seq, 0) - before_ms * 2 * RATE_HZ // 1000
        begin = len(self._past) - (self._position - start)
        return bytes(self._past[max(0, begin) :])

    def captured_at(self, seq: Seq) -> float:
        """Return when frame `seq` was captured, wall-clock seconds; 0 when it is long past."""
        return self._captured.get(seq, 0.0)

    def _forget(self) -> None:
        # Frames of the longest utterance are asked for at its end.
        oldest = self._next - 40 * 50
        for kept in (self._captured, self._begins):
            for seq in [seq for seq in kept if seq < oldest]:
                del kept[seq]
