"""The few words a peer's agent knows, each a tone of its own, so that a caller can tell by ear which of them came.

Pure, and without anything of ours: it is read in the peer's environment as well.
"""

from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

RATE_HZ: Final = 8_000
TONE_MS: Final = 160
PAUSE_MS: Final = 40
FRAME_MS: Final = 20

COUNTS: Final = ("no", "one", "two", "three", "four", "five", "six", "seven")
GREETING: Final = ("good", "day", "please", "talk")
LEAD: Final = ("you", "have", "said")
"""What every answer begins with; how many things the caller has said comes next."""
TAIL: Final = ("things", "so", "far", "and", "more", "will", "come")
WORDS: Final = (*COUNTS, *GREETING, *LEAD, *TAIL)
ANSWER_WORDS: Final = len(LEAD) + 1 + len(TAIL)

_LOWEST_HZ: Final = 400
_STEP_HZ: Final = 100
_FRAME: Final = RATE_HZ * FRAME_MS // 1_000
_BIN_HZ: Final = RATE_HZ // _FRAME
_AMPLITUDE: Final = 8_000
_QUIET_RMS: Final = 300.0
_SHARE: Final = 0.6
"""Of a frame's power, what one tone must hold for it to be that word."""
_SCRAP_FRAMES: Final = 4
"""Half a word; less of it is not understood."""


class Word(NamedTuple):
    """A word that was heard, in seconds of the recording."""

    text: str
    at_s: float
    end_s: float


def sentence(count: int) -> str:
    """Return the answer of an agent that knows of `count` things said."""
    number = COUNTS[min(count, len(COUNTS) - 1)]
    return " ".join((*LEAD, number, *TAIL)).capitalize() + "."


def sound(text: str) -> bytes:
    """Return `text` as PCM16 at 8 kHz; words that are none of `WORDS` are left out."""
    at = np.arange(RATE_HZ * TONE_MS // 1_000) / RATE_HZ
    pause = np.zeros(RATE_HZ * PAUSE_MS // 1_000)
    spoken = ["".join(filter(str.isalpha, word)).lower() for word in text.split()]
    tones = [_AMPLITUDE * np.sin(2 * np.pi * _hz(word) * at) for word in spoken if word in WORDS]
    return np.concatenate([np.concatenate([tone, pause]) for tone in tones] or [pause]).astype("<i2").tobytes()


def loud(samples: NDArray[np.int16]) -> bool:
    """Return whether there is anything to hear."""
    return bool(np.sqrt(np.mean(samples.astype(np.float64) ** 2)) > _QUIET_RMS)


def words_in(samples: NDArray[np.int16]) -> tuple[Word, ...]:
    """Return the words heard in `samples`, 8 kHz."""
    count = len(samples) // _FRAME
    if not count:
        return ()
    frames = samples[: count * _FRAME].reshape(count, _FRAME).astype(np.float64)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    bins = np.array([_hz(word) for word in WORDS]) // _BIN_HZ
    # The edge of a tone leaks into the bins beside it.
    held = power[:, bins - 1] + power[:, bins] + power[:, bins + 1]
    best = held.argmax(axis=1)
    clear = (np.sqrt((frames**2).mean(axis=1)) > _QUIET_RMS) & (held.max(axis=1) > _SHARE * power.sum(axis=1))
    codes = np.where(clear, best, -1)
    edges = [0, *map(int, np.flatnonzero(np.diff(codes)) + 1), count]
    seconds = FRAME_MS / 1_000
    return tuple(
        Word(WORDS[codes[begin]], begin * seconds, end * seconds)
        for begin, end in pairwise(edges)
        if codes[begin] >= 0 and end - begin >= _SCRAP_FRAMES
    )


def _hz(word: str) -> int:
    return _LOWEST_HZ + _STEP_HZ * WORDS.index(word)
