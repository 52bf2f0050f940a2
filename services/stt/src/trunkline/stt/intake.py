"""One call's frames on their way to the voice detector: checked, in order, cut into blocks.

Blocks lie on a grid that counts from seq 0, not from the first frame seen, and begin with the first whole one: a worker
that takes over in mid-call cuts the same audio at the same places, and so names utterances as its predecessor did. Lost
frames are filled with silence for the same reason. Audio is kept as it came; `pcm16_of` decodes that of many calls at
once. It knows no clock, no bus, and nothing of speech.
"""

from array import array
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from trunkline.audio.g711 import SILENCE, mulaw_to_pcm16
from trunkline.proto.errors import BadFrame
from trunkline.proto.frame import (
    MEDIA_HEADER_BYTES,
    ORIGIN_BYTES,
    SEQ_AND_CAPTURED,
    Codec,
    Flag,
    MediaFrame,
    unpack_media,
)
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
_LONGEST_BACKLOG: Final = 500 * FRAME_SAMPLES
_SILENT: Final = {Codec.PCM16: bytes(2), Codec.MULAW: SILENCE}


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
    """256 samples, the first of them at `position`: PCM16 in 512 bytes, or μ-law in 256."""

    position: int
    audio: bytes


def pcm16_of(blocks: Sequence[Block]) -> list[bytes]:
    """Return the samples of each block as PCM16.

    Raises:
        ValueError: a block has neither size; it would spoil the whole batch.
    """
    coded = [block.audio for block in blocks if len(block.audio) == BLOCK_SAMPLES]
    pcm = mulaw_to_pcm16(b"".join(coded)) if coded else b""
    decoded = (pcm[at : at + BLOCK_BYTES] for at in range(0, len(pcm), BLOCK_BYTES))
    return [next(decoded) if len(block.audio) == BLOCK_SAMPLES else block.audio for block in blocks]


class Intake:
    """Takes the frames of one call for one `epoch` and gives out blocks."""

    def __init__(self, epoch: Epoch) -> None:
        self.gaps = 0
        """Frames that never came."""
        self.live_us = 0
        """When the newest frame was captured; 0 if it was sent again."""
        self._epoch = epoch
        self._next: int | None = None
        self._codec = Codec.PCM16
        self._audio = bytearray()
        self._block_bytes = BLOCK_BYTES
        self._position = 0
        self._skip_bytes = 0
        """Of what comes next, what lies before the first block."""
        self._captured_us = array("Q", bytes(8 * _MEMORY))
        self._usual_bytes = -1
        self._usual_origin = b""
        """How the last frame that was taken began, and so the next one mostly will."""

    @property
    def ready(self) -> bool:
        """Whether `block` has something to give."""
        return len(self._audio) >= self._block_bytes

    @property
    def newest(self) -> int:
        """Seq of the newest frame that was kept; -1 before there is one."""
        return -1 if self._next is None else self._next - 1

    def follow(self, data: bytes) -> bool | None:
        """Take a frame if it is the one that had to come next, as most are, and return what is `ready` then.

        Any other: return None, having done nothing. It does what `take` would, at a fourth of the cost.
        """
        if len(data) != self._usual_bytes or not data.startswith(self._usual_origin):
            return None
        seq, captured_us = SEQ_AND_CAPTURED.unpack_from(data, ORIGIN_BYTES)
        audio = self._audio
        if seq != self._next or self._skip_bytes or len(audio) > _LONGEST_BACKLOG:
            return None
        self._captured_us[seq % _MEMORY] = self.live_us = captured_us
        audio += data[MEDIA_HEADER_BYTES:]
        self._next = seq + 1
        return len(audio) >= self._block_bytes

    def take(self, data: bytes) -> Taken:
        """Take a frame off the wire.

        Raises:
            BadFrame: it is no media frame, not 20 ms at 8 kHz, or of another codec than those before.
        """
        frame = unpack_media(data)
        if frame.epoch != self._epoch:
            return Taken.FENCED
        self._check(frame)
        expected = self._next
        if expected is not None and frame.seq < expected:
            return Taken.REPEATED
        missing = 0 if expected is None else frame.seq - expected
        broken = missing > _LONGEST_FILL or len(self._audio) > _LONGEST_BACKLOG * frame.codec.bytes_per_sample
        self.gaps += missing
        if expected is None or broken:
            self._begin(frame)
            missing = 0
        for back in range(missing, 0, -1):
            self._captured_us[(frame.seq - back) % _MEMORY] = frame.captured_us - back * _FRAME_US
            self._audio += _SILENT[frame.codec] * FRAME_SAMPLES
        self._captured_us[frame.seq % _MEMORY] = frame.captured_us
        live = not frame.flags & _REPLAY
        self.live_us = frame.captured_us if live else 0
        self._audio += frame.payload
        if self._skip_bytes:
            skipped = min(self._skip_bytes, len(self._audio))
            del self._audio[:skipped]
            self._skip_bytes -= skipped
        self._next = frame.seq + 1
        if live:
            self._usual_bytes, self._usual_origin = len(data), data[:ORIGIN_BYTES]
        return Taken.BROKEN if broken else Taken.KEPT

    def block(self) -> Block | None:
        """Return the next block; None while there is none."""
        size = self._block_bytes
        if len(self._audio) < size:
            return None
        block = Block(self._position, bytes(self._audio[:size]))
        del self._audio[:size]
        self._position += BLOCK_SAMPLES
        return block

    def captured_at(self, position: int) -> float:
        """Return when the frame that holds sample `position`, at most 20 s old, was captured; seconds since 1970."""
        return self._captured_us[seq_of(position) % _MEMORY] / 1e6

    def _begin(self, frame: MediaFrame) -> None:
        start = frame.seq * FRAME_SAMPLES
        self._position = -(-start // BLOCK_SAMPLES) * BLOCK_SAMPLES
        self._codec = frame.codec
        self._block_bytes = BLOCK_SAMPLES * frame.codec.bytes_per_sample
        self._skip_bytes = (self._position - start) * frame.codec.bytes_per_sample
        self._audio = bytearray()

    def _check(self, frame: MediaFrame) -> None:
        found = f"{len(frame.payload)} bytes of {frame.codec.name} at {frame.sample_rate_hz} Hz"
        if frame.sample_rate_hz != RATE_HZ or len(frame.payload) != FRAME_SAMPLES * frame.codec.bytes_per_sample:
            raise BadFrame(f"{found}; expected 20 ms at {RATE_HZ} Hz")
        if self._next is not None and frame.codec is not self._codec:
            raise BadFrame(f"{found}; the call began in {self._codec.name}")
