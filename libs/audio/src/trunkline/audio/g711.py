"""μ-law as ITU-T G.711 (11/88) defines it, by table look-up.

Both tables are computed once from the law's own two lists: the decision values that part one code from the next, and
the quantised values the codes stand for (table 2 of the recommendation). The law is stated in 14-bit units; PCM16 is
four times that. It knows nothing of frames or rates: any number of samples goes in and comes out.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from trunkline.audio.errors import BadAudio

SILENCE: Final = b"\xff"
"""The code of positive zero."""

_SEGMENTS: Final = 8
_STEPS: Final = 16
_FOURTEEN_TO_SIXTEEN: Final = 4


def _quantised() -> NDArray[np.int32]:
    """Return the 128 magnitudes that codes stand for, ascending, in PCM16 units.

    Segment s has 16 steps of 2^(s+1) and begins where the one before it ended, so with the bias of 33 that makes the
    segments powers of two the middle of step n is (2n + 33) · 2^s - 33.
    """
    segment = np.arange(_SEGMENTS, dtype=np.int32).repeat(_STEPS)
    step = np.tile(np.arange(_STEPS, dtype=np.int32), _SEGMENTS)
    return (((2 * step + 33) << segment) - 33) * _FOURTEEN_TO_SIXTEEN


def _decisions() -> NDArray[np.int32]:
    """Return the 127 magnitudes, in PCM16 units, from which on the next code is sent: four times 1, 3, 5 … 7903."""
    segment = np.arange(_SEGMENTS, dtype=np.int32).repeat(_STEPS)
    step = np.tile(np.arange(_STEPS, dtype=np.int32), _SEGMENTS)
    lower_edges = ((2 * step + 32) << segment) - 33
    return np.asarray(lower_edges[1:] * _FOURTEEN_TO_SIXTEEN, dtype=np.int32)


def _decoding_table() -> NDArray[np.int16]:
    # Codes count down from the sign's all-ones end: 255 is +0, 128 the loudest positive; without the top bit, negative.
    magnitudes = _quantised()[::-1]
    return np.concatenate((-magnitudes, magnitudes)).astype("<i2")


def _encoding_table() -> NDArray[np.uint8]:
    # Indexed by the sample's two bytes read as unsigned, so that no sign extension stands on the per-frame path.
    samples = np.arange(65_536, dtype=np.uint16).view(np.int16).astype(np.int32)
    number = np.searchsorted(_decisions(), np.abs(samples), side="right")
    return np.where(samples < 0, 127 - number, 255 - number).astype(np.uint8)


_PCM16_OF: Final = _decoding_table()
_MULAW_OF: Final = _encoding_table()


def mulaw_to_pcm16(data: bytes) -> bytes:
    """Return the PCM16 little-endian samples of `data`, two bytes for one."""
    return _PCM16_OF.take(np.frombuffer(data, np.uint8)).tobytes()


def pcm16_to_mulaw(data: bytes) -> bytes:
    """Return the μ-law codes of PCM16 little-endian `data`, one byte for two.

    Raises:
        BadAudio: `data` is no whole number of samples.
    """
    try:
        return _MULAW_OF.take(np.frombuffer(data, "<u2")).tobytes()
    except ValueError:
        raise BadAudio(f"{len(data)} bytes are no whole number of PCM16 samples") from None
