"""One call's frames on their way to the voice detector: checked, decoded, in order, cut into blocks.

Blocks lie on a grid that counts from seq 0, not from the first frame seen, and begin with the first whole one: a worker
that takes over in mid-call cuts the same audio at the same places, and so names utterances as its predecessor did. Lost
frames are filled with silence for the same reason. It knows no clock, no bus, and nothing of speech.
"""

from enum import StrEnum
from typing import Final, NamedTuple

from trunkline.audio.g711 import mulaw_to_pcm16
from trunkline.proto.errors import BadFrame
from trunkline.proto.frame import Codec, Flag, MediaFrame, unpack_media
from trunkline.proto.ids import Epoch
from trunkline.stt.endpointing import BLOCK_SAMPLES, FRAME_SAMPLES, RATE_HZ, seq_of

BLOCK_BYTES: Final = 2 * BLOCK_SAMPLES
FRAME_BYTES: Final = 2 * FRAME_SAMPLES
_FRAME_US: Final = 20_000
_REPLAY: Final = int(Flag.REPLAY)
_LONGEST_FILL: Final = 250
"""Frames (5 s, the edge's ring) that may be missing; beyond, the stream counts as broken off."""
_MEMORY: Final = 1_024
"""Frames whose capture times are kept. A power of two, above the 500 frames a backlog may hold."""
_LONGEST_BACKLOG_BYTES: Final = 500 * FRAME_BYTES


class Taken(StrEnum):
    """What became of a frame."""

    KEPT = "kept"
    FENCED = "fenced"
    """Of another epoch: sent by, or meant for, somebody who does not own the call any more."""
    REPEATED = "repeated"
    """Heard already."""
    BROKEN = "broken"
    """Kept, but what it joins on to is lost or was dropped: the stream begins anew, and has no block for now."""


class Block(NamedTuple):
    """Audio for the detector: 256 samples of PCM16, the first of them at `position`."""

    position: int
    pcm: bytes


class Intake:
    """Takes the frames of one call for one `epoch` and gives out blocks."""

    def __init__(self, epoch: Epoch) -> None:
        self.gaps = 0
        """Frames that never came."""
        self.live_us = 0
        """When the newest frame was captured; 0 if it was sent again."""
        self._epoch = epoch
        self._next: int | None = None
        self._pcm = bytearray()
        self._position = 0
        self._skip_bytes = 0
        """Of what comes next, what lies before the first block."""
        self._captured_us = [0] * _MEMORY

    @property
    def ready(self) -> bool:
        """Whether `block` has something to give."""
        return len(self._pcm) >= BLOCK_BYTES

    @property
    def newest(self) -> int:
        """Seq of the newest frame that was kept; -1 before there is one."""
        return -1 if self._next is None else self._next - 1

    def take(self, data: bytes) -> Taken:
        """Take a frame off the wire.

        Raises:
            BadFrame: it is no media frame, or not 20 ms at 8 kHz.
        """
        frame = unpack_media(data)
        if frame.epoch != self._epoch:
            return Taken.FENCED
        pcm = _pcm_of(frame)
        expected = self._next
        if expected is not None and frame.seq < expected:
            return Taken.REPEATED
        missing = 0 if expected is None else frame.seq - expected
        broken = missing > _LONGEST_FILL or len(self._pcm) > _LONGEST_BACKLOG_BYTES
        self.gaps += missing
        if expected is None or broken:
            self._begin(frame.seq)
            missing = 0
        for back in range(missing, 0, -1):
            self._captured_us[(frame.seq - back) % _MEMORY] = frame.captured_us - back * _FRAME_US
            self._pcm += bytes(FRAME_BYTES)
        self._captured_us[frame.seq % _MEMORY] = frame.captured_us
        self.live_us = 0 if frame.flags & _REPLAY else frame.captured_us
        self._pcm += pcm
        if self._skip_bytes:
            skipped = min(self._skip_bytes, len(self._pcm))
            del self._pcm[:skipped]
            self._skip_bytes -= skipped
        self._next = frame.seq + 1
        return Taken.BROKEN if broken else Taken.KEPT

    def block(self) -> Block:
        """Return the next block; only while `ready`."""
        block = Block(self._position, bytes(self._pcm[:BLOCK_BYTES]))
        del self._pcm[:BLOCK_BYTES]
        self._position += BLOCK_SAMPLES
        return block

    def captured_at(self, position: int) -> float:
        """Return when the frame that holds sample `position`, at most 20 s old, was captured; seconds since 1970."""
        return self._captured_us[seq_of(position) % _MEMORY] / 1e6

    def _begin(self, seq: int) -> None:
        start = seq * FRAME_SAMPLES
        self._position = -(-start // BLOCK_SAMPLES) * BLOCK_SAMPLES
        self._skip_bytes = 2 * (self._position - start)
        self._pcm = bytearray()


def _pcm_of(frame: MediaFrame) -> bytes:
    if frame.sample_rate_hz != RATE_HZ or len(frame.payload) != FRAME_SAMPLES * frame.codec.bytes_per_sample:
        found = f"{len(frame.payload)} bytes of {frame.codec.name} at {frame.sample_rate_hz} Hz"
        raise BadFrame(f"{found}; expected 20 ms at {RATE_HZ} Hz")
    return frame.payload if frame.codec is Codec.PCM16 else mulaw_to_pcm16(frame.payload)
