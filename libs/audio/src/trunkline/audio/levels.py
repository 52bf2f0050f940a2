"""How loud samples are, and where somebody speaks, judged by level alone.

For judges and reports, which look at finished recordings. It is no voice activity detection: it cannot tell speech
from a dog.

0 dBFS is a full-scale square wave: a full-scale sine measures -3.01.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trunkline.audio.errors import BadAudio

FULL_SCALE: Final = 32_768
QUIETEST_DBFS: Final = -120.0
"""What digital silence measures, so that a level is always a number."""

Pcm = bytes | NDArray[np.int16]
"""Mono PCM16, little-endian bytes or samples of shape ``(n,)``."""


class Span(NamedTuple):
    """A stretch of a recording, from `start_ms` up to but not including `end_ms`."""

    start_ms: int
    end_ms: int

    @property
    def duration_ms(self) -> int:
        """Return its length."""
        return self.end_ms - self.start_ms


class Voicing(NamedTuple):
    """What counts as voice: louder than `threshold_dbfs` for `min_ms`, pauses up to `join_gap_ms` bridged."""

    threshold_dbfs: float = -45.0
    window_ms: int = 20
    join_gap_ms: int = 200
    min_ms: int = 60


def samples_of(pcm: Pcm) -> NDArray[np.int16]:
    """Return `pcm` as samples, without a copy.

    Raises:
        BadAudio: bytes that are no whole number of samples.
    """
    if isinstance(pcm, np.ndarray):
        return pcm
    if len(pcm) % 2:
        raise BadAudio(f"{len(pcm)} bytes are no whole number of PCM16 samples")
    return np.frombuffer(pcm, "<i2")


def rms_dbfs(pcm: Pcm) -> float:
    """Return the root-mean-square level in dBFS; `QUIETEST_DBFS` for silence or nothing."""
    samples = samples_of(pcm)
    if samples.size == 0:
        return QUIETEST_DBFS
    wide = samples.astype(np.float64)
    return _dbfs(float(np.sqrt(np.mean(wide * wide))))


def peak(pcm: Pcm) -> int:
    """Return the largest magnitude, 0 to 32768."""
    samples = samples_of(pcm)
    return int(np.abs(samples.astype(np.int32)).max(initial=0))


def silence(duration_ms: int, rate_hz: int) -> bytes:
    """Return `duration_ms` of digital silence as PCM16."""
    return bytes(2 * (duration_ms * rate_hz // 1_000))


def voiced_spans(pcm: Pcm, rate_hz: int, voicing: Voicing | None = None) -> list[Span]:
    """Return where `pcm` is loud enough to be voice, in order, to the window's precision.

    A last window that is shorter than the others is judged like them.
    """
    rule = voicing or Voicing()
    samples = samples_of(pcm)
    window = rate_hz * rule.window_ms // 1_000
    total_ms = samples.size * 1_000 // rate_hz
    spans: list[Span] = []
    for start in range(0, samples.size, window):
        if rms_dbfs(samples[start : start + window]) <= rule.threshold_dbfs:
            continue
        start_ms = start * 1_000 // rate_hz
        end_ms = min(start_ms + rule.window_ms, total_ms)
        if spans and start_ms - spans[-1].end_ms <= rule.join_gap_ms:
            spans[-1] = Span(spans[-1].start_ms, end_ms)
        else:
            spans.append(Span(start_ms, end_ms))
    return [span for span in spans if span.duration_ms >= rule.min_ms]


def _dbfs(amplitude: float) -> float:
    if amplitude <= 0:
        return QUIETEST_DBFS
    return max(QUIETEST_DBFS, 20 * float(np.log10(amplitude / FULL_SCALE)))
