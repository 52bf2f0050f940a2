"""Telephone audio made to look like the wideband speech a 16 kHz acoustic model was trained on.

The model that pocketsphinx ships wants 130 to 6800 Hz. Its filter bank cut down to what a telephone carries changes
every feature (measured on booking phrases: at most 11 of 48 right), so the upper band is filled in instead:

1. the level is set, because feature floors and the noise below are absolute;
2. a little white noise, so that the empty band is not the silence the model never met;
3. noise above 4 kHz where the sound is a sibilant, in proportion to what is left of it below: s and sh live up there,
   and without them "six" is heard as "eight". How much of a sound is sibilant is told by its spectral tilt.

Over 80 phrases in four voices through μ-law the word error went from 19 % (resampled only) to 6 %. The noise is the
same for the same audio, so that the same audio has the same words.
"""

from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trunkline.audio.resample import resample
from trunkline.stt.provider import RATE_HZ

WIDE_HZ: Final = 16_000
_PAD: Final = RATE_HZ // 5
_LEVEL: Final = 0.35
_LOUD_SAMPLES: Final = 80
"""The level is that of the 80th loudest sample (10 ms in all): one click does not count."""
_MAX_GAIN: Final = 30.0
_NOISE: Final = 10 ** (-41 / 20)
_SIBILANCE: Final = 20.0
_TILT_POWER: Final = 1.5
_WINDOW: Final = 64
_HIGH_PASS: Final = np.array([0.25, -0.5, 0.25], np.float32)
_LONGEST_NOISE: Final = 1 << 16

Samples = NDArray[np.float32]


def widen(pcm: bytes) -> bytes:
    """Return PCM16 at 16 kHz for PCM16 at 8 kHz, with 200 ms of quiet noise before and after."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float32) / 32_768
    if samples.size > _LOUD_SAMPLES:
        loud = float(np.partition(np.abs(samples), -_LOUD_SAMPLES)[-_LOUD_SAMPLES])
        samples *= min(_LEVEL / max(loud, 1e-6), _MAX_GAIN)
    samples = np.pad(samples, _PAD)
    wide = _doubled(samples)
    upper, floor = _noises()
    envelope = np.repeat(_sibilance(samples), WIDE_HZ // RATE_HZ)[: wide.size]
    wide += envelope * np.resize(upper, wide.size) + _NOISE * np.resize(floor, wide.size)
    return bytes((np.clip(wide, -1, 1) * 32_767).astype("<i2").tobytes())


def _sibilance(samples: NDArray[Any]) -> Samples:
    """Return the level the missing upper band should have, sample by sample."""
    high = _moving_mean(np.convolve(samples, _HIGH_PASS, "same") ** 2)
    tilt = np.clip(high / (_moving_mean(samples**2) + 1e-7), 0, 1)
    return (_SIBILANCE * np.sqrt(np.maximum(high, 0)) * tilt**_TILT_POWER).astype(np.float32)


def _moving_mean(values: NDArray[Any]) -> Samples:
    total = np.cumsum(np.pad(values.astype(np.float64), (_WINDOW // 2 + 1, _WINDOW // 2), mode="edge"))
    return ((total[_WINDOW:] - total[:-_WINDOW]) / _WINDOW)[: values.size].astype(np.float32)


def _doubled(samples: NDArray[Any]) -> Samples:
    narrow = (np.clip(samples, -1, 1) * 32_767).astype(np.int16)
    return (resample(narrow, RATE_HZ, WIDE_HZ) / 32_768).astype(np.float32)


@cache
def _noises() -> tuple[Samples, Samples]:
    """Return unit noise above 4 kHz, and white unit noise."""
    draw = np.random.default_rng(8_000)
    low = _doubled(draw.standard_normal(_LONGEST_NOISE // 2) / 8)
    # Times (-1)^n mirrors the spectrum: what lay below 4 kHz lies above.
    upper = low / low.std() * np.where(np.arange(low.size) % 2, -1, 1)
    return upper.astype(np.float32), draw.standard_normal(_LONGEST_NOISE).astype(np.float32)
