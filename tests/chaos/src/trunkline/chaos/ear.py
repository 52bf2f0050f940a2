"""What was heard, word by word, read back from the sound. Pure.

Every 20 ms of a recording are looked at by themselves: which low and which high tone they hold. A word counts as heard
when at least half of it was; less than that is a scrap, which a listener makes nothing of.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trunkline.audio.g711 import mulaw_to_pcm16
from trunkline.chaos.codebook import HIGH_HZ, LOW_HZ, RATE_HZ, TONE_MS, WORDS

FRAME_MS: Final = 20
FRAME_SAMPLES: Final = RATE_HZ * FRAME_MS // 1_000
WHOLE_FRAMES: Final = TONE_MS // FRAME_MS
HALF_FRAMES: Final = WHOLE_FRAMES // 2
STRANGE: Final = "?"
"""A word of nobody's: tones that no code word has."""
_BIN_HZ: Final = RATE_HZ // FRAME_SAMPLES
_QUIET_RMS: Final = 200.0
_SHARE: Final = 0.7
"""Of a frame's power, what the two tones of a word must hold together; each a quarter of that."""
_SECOND_VOICE: Final = 0.35
"""How strong another tone of the same range is, in parts of the strongest, when two words sound at once."""
_NOTHING, _MIXED, _NOISE = -1, -2, -3


class HeardWord(NamedTuple):
    """A word, or a scrap of one, as the caller heard it."""

    text: str
    at_s: float
    end_s: float
    frames: int
    """How much of it, in 20 ms; `WHOLE_FRAMES` when nothing is missing."""

    @property
    def counts(self) -> bool:
        """Whether enough of it was heard."""
        return self.frames >= HALF_FRAMES


class Listened(NamedTuple):
    """All that was heard in a call."""

    words: tuple[HeardWord, ...]
    two_voices: tuple[tuple[float, float], ...]
    """When two words sounded at once, from and to."""


def listen(mulaw: bytes, times: Sequence[float]) -> Listened:
    """Return what is heard in `mulaw`, whose every 20 ms began at the time in `times`."""
    count = min(len(mulaw) // FRAME_SAMPLES, len(times))
    if not count:
        return Listened((), ())
    samples = np.frombuffer(mulaw_to_pcm16(mulaw[: count * FRAME_SAMPLES]), np.int16).astype(np.float64)
    codes = codes_of(samples.reshape(count, FRAME_SAMPLES))
    return Listened(_words(codes, times), _mixed(codes, times))


def codes_of(frames: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the number of the word in every frame; negative where there is none."""
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    low, high = (power[:, np.array(range_hz) // _BIN_HZ] for range_hz in (LOW_HZ, HIGH_HZ))
    total = power.sum(axis=1) + 1e-9
    loud = np.sqrt((frames**2).mean(axis=1)) > _QUIET_RMS
    strongest = low.max(axis=1), high.max(axis=1)
    is_word = loud & (strongest[0] + strongest[1] > _SHARE * total)
    is_word &= np.minimum(*strongest) > _SHARE / 4 * total
    second = np.sort(low, axis=1)[:, -2] / (strongest[0] + 1e-9), np.sort(high, axis=1)[:, -2] / (strongest[1] + 1e-9)
    tones = low.sum(axis=1) + high.sum(axis=1)
    # Neighbouring tones lie two bins apart: the edge of a cut-off tone leaks less than this into them.
    mixed = loud & ~is_word & (np.maximum(*second) > _SECOND_VOICE) & (tones > _SHARE * total)
    codes = low.argmax(axis=1) * len(HIGH_HZ) + high.argmax(axis=1)
    return np.where(is_word, codes, np.where(mixed, _MIXED, np.where(loud, _NOISE, _NOTHING)))


def _words(codes: NDArray[np.int64], times: Sequence[float]) -> tuple[HeardWord, ...]:
    words: list[HeardWord] = []
    frame_s = FRAME_MS / 1_000
    for code, begin, end in _runs(codes):
        if code in (_NOTHING, _MIXED):
            continue
        text = WORDS[code] if code >= 0 else STRANGE
        if text == STRANGE and end - begin < HALF_FRAMES:
            continue  # where a tone is cut, a frame may be neither
        heard = HeardWord(text, times[begin], times[end - 1] + frame_s, end - begin)
        last = words[-1] if words else None
        # One word with a hole in it, not two.
        if last is not None and last.text == text and last.frames + heard.frames <= WHOLE_FRAMES + 1:
            words[-1] = HeardWord(text, last.at_s, heard.end_s, last.frames + heard.frames)
        else:
            words.append(heard)
    return tuple(words)


def _mixed(codes: NDArray[np.int64], times: Sequence[float]) -> tuple[tuple[float, float], ...]:
    frame_s = FRAME_MS / 1_000
    return tuple(
        (times[begin], times[end - 1] + frame_s)
        for code, begin, end in _runs(codes)
        if code == _MIXED and end - begin >= 2  # a single frame may hold the end of one and the beginning of another
    )


def _runs(codes: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Return ``(code, first, after the last)`` of every stretch of equal codes."""
    edges = np.flatnonzero(np.diff(codes)) + 1
    begins = [0, *map(int, edges)]
    ends = [*map(int, edges), len(codes)]
    return [(int(codes[begin]), begin, end) for begin, end in zip(begins, ends, strict=True)]
