"""An ear that knows its caller: it is taught phrases by their sound, and hears which of them is being said.

What a simulated caller says is known as samples, so nothing has to be recognised in earnest: each stretch of sound is
held against the beginnings of all phrases, band by band, and the nearest one's words are heard, as far as it has got.
Sound that is like none of them is heard as nothing. Pure.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trunkline.testing.providers.content import RATE_HZ, Hearing, WordHeard

_FRAME: Final = 160
_BANDS: Final = np.array([100, 300, 500, 800, 1_200, 1_700, 2_300, 3_000, 3_900])
_SHIFTS: Final = range(-3, 4)
_UNLIKE: Final = 1.4
"""Mean distance, in natural logarithms of a band's energy, from which on a sound is no taught phrase."""
_Envelope = NDArray[np.float64]


class Phrases:
    """An ear for the phrases of `sounds`: words → samples at 8 kHz, without silence around them.

    Args:
        sounds: what may be said.
        gap_s: silence that ends a stretch of sound; longer than any pause within a phrase.
        loud: peak below which 20 ms count as silence.
    """

    def __init__(self, sounds: Mapping[str, NDArray[np.int16]], *, gap_s: float = 0.45, loud: int = 250) -> None:
        self.gap_s: Final = gap_s
        self.loud: Final = loud
        self._known = [
            (words.split(), _envelope(_from_first_sound(samples, loud))) for words, samples in sounds.items()
        ]

    def __call__(self) -> Hearing:
        """Begin to listen to a stream."""
        return _PhrasesHearing(self)

    def words(self, sound: NDArray[np.int16], *, over: bool) -> list[tuple[str, float, float]]:
        """Return the words of the phrase that `sound` begins, each with its place in it, s; all of them once `over`."""
        heard = _envelope(sound)
        if len(heard) < 5:
            return []
        distance, words, frames = min(
            ((_distance(heard, known, over=over), words, len(known)) for words, known in self._known),
            key=lambda found: found[0],
            default=(np.inf, [], 0),
        )
        if distance > _UNLIKE:
            return []
        letters = sum(len(word) + 1 for word in words)
        out, at = [], 0.0
        for word in words:
            length = (len(word) + 1) / letters * frames * _FRAME / RATE_HZ
            if over or at + length <= len(sound) / RATE_HZ:
                out.append((word, at, at + length))
            at += length
        return out


class _PhrasesHearing:
    def __init__(self, phrases: Phrases) -> None:
        self._phrases = phrases
        self._rest = np.zeros(0, np.int16)
        self._at = 0
        self._last_loud = 0
        self._began: int | None = None
        self._sound: list[NDArray[np.int16]] = []
        self._done: list[WordHeard] = []
        self._open: tuple[int, list[WordHeard]] = (0, [])

    def push(self, samples: NDArray[np.int16]) -> None:
        samples = np.concatenate((self._rest, samples))
        whole = len(samples) // _FRAME * _FRAME
        self._rest = samples[whole:]
        for frame in samples[:whole].reshape(-1, _FRAME):
            self._take(frame)

    @property
    def heard(self) -> tuple[WordHeard, ...]:
        if self._began is None:
            return tuple(self._done)
        loud = self._last_loud
        if self._open[0] != loud:
            self._open = loud, self._words(over=False)
        if self.silent_s > 0.1:
            return (*self._done, *self._words(over=True))
        return (*self._done, *self._open[1])

    @property
    def silent_s(self) -> float:
        return (self._at - self._last_loud) / RATE_HZ

    def _take(self, frame: NDArray[np.int16]) -> None:
        self._at += _FRAME
        loud = int(np.abs(frame.astype(np.int32)).max()) >= self._phrases.loud
        if loud:
            if self._began is None:
                self._began = self._at - _FRAME
                self._sound = []
            self._last_loud = self._at
        if self._began is not None:
            self._sound.append(frame)
            if not loud and self.silent_s >= self._phrases.gap_s:
                self._done += self._words(over=True)
                self._began = None

    def _words(self, *, over: bool) -> list[WordHeard]:
        began = self._began or 0
        frames = (self._last_loud - began) // _FRAME
        sound = np.concatenate(self._sound[:frames]) if frames else np.zeros(0, np.int16)
        start_s = began / RATE_HZ
        return [
            WordHeard(
                word, start_s + begins, min(start_s + ends, self._last_loud / RATE_HZ) if over else start_s + ends
            )
            for word, begins, ends in self._phrases.words(sound, over=over)
        ]


def _from_first_sound(samples: NDArray[np.int16], loud: int) -> NDArray[np.int16]:
    first = np.flatnonzero(np.abs(samples.astype(np.int32)) >= loud)
    return samples[first[0] // _FRAME * _FRAME :] if len(first) else samples[:0]


def _envelope(samples: NDArray[np.int16]) -> _Envelope:
    """Return the logarithm of the energy in each band, frames of 20 ms by bands."""
    frames = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME).astype(np.float64)
    if not len(frames):
        return np.zeros((0, len(_BANDS) - 1))
    power = np.abs(np.fft.rfft(frames * np.hanning(_FRAME), axis=1)) ** 2
    edges = _BANDS * _FRAME // RATE_HZ
    bands = np.stack([power[:, low:high].sum(axis=1) for low, high in pairwise(edges)], axis=1)
    return np.asarray(np.log(bands + 1e6))


def _distance(heard: _Envelope, known: _Envelope, *, over: bool) -> float:
    """Return how unlike the two are, per frame and band, at the best of some shifts; a length that differs counts."""
    best = np.inf
    for shift in _SHIFTS:
        moved = known[max(0, shift) :] if shift > 0 else known
        shown = heard[max(0, -shift) :] if shift < 0 else heard
        length = min(len(moved), len(shown))
        if length < 4:
            continue
        unlike = float(np.abs(moved[:length] - shown[:length]).mean())
        best = min(best, unlike)
    longer = len(heard) - len(known) if not over else abs(len(heard) - len(known))
    return best + 0.05 * max(0, longer - 3)
