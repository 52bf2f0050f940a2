"""One call's frames on their way to the voice detector: checked, in order, without a gap.

A frame is what the detector judges at a time. Its seq says where in the call it lies, so a worker that takes over in
mid-call hears the same frames, and names utterances as its predecessor did. Lost frames are filled with silence for the
same reason. Audio is kept as it came; `pcm16_of` decodes that of many calls at once. It knows no clock, no bus, and
nothing of speech.
"""

from array import array
from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from trunkline.audio.g711 import SILENCE, mulaw_to_pcm16
from trunkline.proto.errors import BadFrame
from trunkline.proto.frame import (
    FRAME_MS,
    MEDIA_HEADER_BYTES,
    ORIGIN_BYTES,
    SEQ_AND_CAPTURED,
    Codec,
    Flag,
    MediaFrame,
    unpack_media,
)
from trunkline.proto.ids import Epoch, Seq
from trunkline.stt.provider import RATE_HZ

FRAME_SAMPLES: Final = RATE_HZ * FRAME_MS // 1_000
PCM_BYTES: Final = 2 * FRAME_SAMPLES
_FRAME_US: Final = 1_000 * FRAME_MS
_REPLAY: Final = int(Flag.REPLAY)
_LONGEST_FILL: Final = 160
"""Frames (5 s, the edge's ring) that may be missing; beyond, the stream counts as broken off."""
_LONGEST_BACKLOG: Final = 320
"""Frames (10 s) that may wait for the detector."""
_MEMORY: Final = 1_024
"""Frames (33 s) whose capture times are kept: those that may wait, and before them the longest silence of an end."""
_SILENT: Final = {Codec.PCM16: bytes(PCM_BYTES), Codec.MULAW: SILENCE * FRAME_SAMPLES}


class Taken(StrEnum):
    """What became of a frame."""

    KEPT = "kept"
    FENCED = "fenced"
    """Of another epoch: sent by, or meant for, somebody who does not own the call any more."""
    REPEATED = "repeated"
    """Heard already."""
    BROKEN = "broken"
    """Kept, but what it joins on to is lost or was dropped: the stream begins anew."""


class Frame(NamedTuple):
    """256 samples: PCM16 in 512 bytes, or μ-law in 256."""

    seq: Seq
    audio: bytes


def pcm16_of(frames: Sequence[Frame]) -> list[bytes]:
    """Return the samples of each frame as PCM16, 512 bytes each."""
    coded = [frame.audio for frame in frames if len(frame.audio) == FRAME_SAMPLES]
    pcm = mulaw_to_pcm16(b"".join(coded)) if coded else b""
    decoded = (pcm[at : at + PCM_BYTES] for at in range(0, len(pcm), PCM_BYTES))
    return [next(decoded) if len(frame.audio) == FRAME_SAMPLES else frame.audio for frame in frames]


class Intake:
    """Takes the frames of one call for one `epoch`, and gives them out."""

    def __init__(self, epoch: Epoch) -> None:
        self.gaps = 0
        """Frames that never came."""
        self.live_us = 0
        """When the newest frame was captured; 0 if it was sent again."""
        self._epoch = epoch
        self._next: int | None = None
        self._codec = Codec.PCM16
        self._frames: deque[Frame] = deque()
        self._captured_us = array("Q", bytes(8 * _MEMORY))
        self._usual_bytes = -1
        self._usual_origin = b""
        """How the last frame that was taken began, and so the next one mostly will."""

    @property
    def ready(self) -> bool:
        """Whether `frame` has something to give."""
        return bool(self._frames)

    @property
    def newest(self) -> int:
        """Seq of the newest frame that was kept; -1 before there is one."""
        return -1 if self._next is None else self._next - 1

    def follow(self, data: bytes) -> bool:
        """Take a frame if it is the one that had to come next, as most are.

        Any other: return False, having done nothing. It does what `take` would, at a third of the cost.
        """
        if len(data) != self._usual_bytes or not data.startswith(self._usual_origin):
            return False
        seq, captured_us = SEQ_AND_CAPTURED.unpack_from(data, ORIGIN_BYTES)
        frames = self._frames
        if seq != self._next or len(frames) > _LONGEST_BACKLOG:
            return False
        self._captured_us[seq % _MEMORY] = self.live_us = captured_us
        frames.append(Frame(seq, data[MEDIA_HEADER_BYTES:]))
        self._next = seq + 1
        return True

    def take(self, data: bytes) -> Taken:
        """Take a frame off the wire.

        Raises:
            BadFrame: it is no media frame, not 32 ms at 8 kHz, or of another codec than those before.
        """
        frame = unpack_media(data)
        if frame.epoch != self._epoch:
            return Taken.FENCED
        self._check(frame)
        expected = frame.seq if self._next is None else self._next
        if frame.seq < expected:
            return Taken.REPEATED
        missing = frame.seq - expected
        broken = missing > _LONGEST_FILL or len(self._frames) > _LONGEST_BACKLOG
        self.gaps += missing
        if broken:
            self._frames.clear()
            missing = 0
        for seq in range(frame.seq - missing, frame.seq):
            self._keep(seq, frame.captured_us - (frame.seq - seq) * _FRAME_US, _SILENT[frame.codec])
        self._keep(frame.seq, frame.captured_us, frame.payload)
        self._codec = frame.codec
        self._next = frame.seq + 1
        live = not frame.flags & _REPLAY
        self.live_us = frame.captured_us if live else 0
        if live:
            self._usual_bytes, self._usual_origin = len(data), data[:ORIGIN_BYTES]
        return Taken.BROKEN if broken else Taken.KEPT

    def frame(self) -> Frame | None:
        """Return the next frame; None while there is none."""
        return self._frames.popleft() if self._frames else None

    def captured_at(self, seq: Seq) -> float:
        """Return when the last sample of frame `seq`, at most 20 s old, was captured; seconds since 1970.

        To within what a carrier sends at a time: the edge knows when a message came.
        """
        return self._captured_us[seq % _MEMORY] / 1e6

    def _keep(self, seq: int, captured_us: int, audio: bytes) -> None:
        self._captured_us[seq % _MEMORY] = captured_us
        self._frames.append(Frame(Seq(seq), audio))

    def _check(self, frame: MediaFrame) -> None:
        expected = ""
        if frame.sample_rate_hz != RATE_HZ or len(frame.payload) != FRAME_SAMPLES * frame.codec.bytes_per_sample:
            expected = f"expected {FRAME_MS} ms at {RATE_HZ} Hz"
        elif self._next is not None and frame.codec is not self._codec:
            expected = f"the call began in {self._codec.name}"
        if expected:
            found = f"{len(frame.payload)} bytes of {frame.codec.name} at {frame.sample_rate_hz} Hz"
            raise BadFrame(f"{found}; {expected}")
