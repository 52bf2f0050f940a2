"""Change of sample rate for mono PCM16: a stream piece by piece, or a whole recording at once.

soxr does the work. A stream keeps the filter's state between pieces, so that their seams cannot be heard; it therefore
holds back about 20 ms, which `Resampler.flush` gives out.
"""

from typing import Final

import numpy as np
import soxr
from numpy.typing import NDArray

from trunkline.audio.errors import BadAudio

MIN_HZ: Final = 1_000
MAX_HZ: Final = 384_000
_NOTHING: Final = np.zeros(0, np.int16)


class Resampler:
    """One stream of PCM16 on its way from one rate to another. Equal rates pass through untouched."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        _check_rates(from_hz, to_hz)
        self._stream = None if from_hz == to_hz else soxr.ResampleStream(from_hz, to_hz, 1, dtype="int16")

    def push(self, data: bytes) -> bytes:
        """Return the samples that `data` makes available; may be none.

        Raises:
            BadAudio: `data` is no whole number of samples.
        """
        if len(data) % 2:
            raise BadAudio(f"{len(data)} bytes are no whole number of PCM16 samples")
        if self._stream is None:
            return data
        return bytes(self._stream.resample_chunk(np.frombuffer(data, np.int16)).tobytes())

    def flush(self) -> bytes:
        """Return what was held back and begin a new stream."""
        if self._stream is None:
            return b""
        held = bytes(self._stream.resample_chunk(_NOTHING, last=True).tobytes())
        self._stream.clear()
        return held


def resample(samples: NDArray[np.int16], from_hz: int, to_hz: int) -> NDArray[np.int16]:
    """Return all of `samples` (mono, shape ``(n,)``) at `to_hz`.

    Raises:
        BadAudio: a rate is out of range.
    """
    _check_rates(from_hz, to_hz)
    if from_hz == to_hz:
        return samples
    return np.asarray(soxr.resample(samples, from_hz, to_hz), dtype=np.int16)


def _check_rates(from_hz: int, to_hz: int) -> None:
    for rate_hz in (from_hz, to_hz):
        if not MIN_HZ <= rate_hz <= MAX_HZ:
            raise BadAudio(f"sample rate {rate_hz} Hz: must be {MIN_HZ} to {MAX_HZ}")
