"""Voices whose words can be told apart in a recording, by who speaks and by what is said.

A word hums a chord of two tones: the low one says who speaks, the high one which word it is. What the caller heard can
so be read back, word by word, and two voices at once show as two low tones.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trunkline.testing.providers.content import RATE_HZ, Voice

_FRAME: Final = RATE_HZ // 50
"""20 ms, so that tones 50 Hz apart do not disturb each other."""
_FRAME_MS: Final = 20
_LETTER_MS: Final = 60
_LOUD: Final = 300.0
_SECOND_VOICE: Final = 0.25

SPEAKERS: Final = ("elevenlabs", "deepgram", "openai", "fish", "spare")
ANSWER: Final = "Pine rose iris lily. Mint sage fern moss."
GREETING, FILLERS, APOLOGY, FAREWELL, SPENT = "Welcome.", ("Moment.", "Longer."), "Sorry.", "Goodbye.", "Enough."
WORDS: Final = tuple(
    line.strip(".,").lower() for line in " ".join((ANSWER, GREETING, *FILLERS, APOLOGY, FAREWELL, SPENT)).split()
)
_LOW_HZ: Final = [300 + 100 * at for at in range(len(SPEAKERS))]
_HIGH_HZ: Final = [1_000 + 100 * at for at in range(len(WORDS) + 1)]
_OTHER: Final = "(other)"


class Word(NamedTuple):
    """A word in the recording. `voice` and `text` are ``(other)`` for what none of us says."""

    start_s: float
    end_s: float
    voice: str
    text: str


def voice_of(speaker: str) -> Voice:
    """Return the voice of `speaker`."""
    low_hz = _LOW_HZ[SPEAKERS.index(speaker)]

    def speak(text: str) -> NDArray[np.int16]:
        parts = [np.zeros(0)]
        for word in text.split():
            plain = word.strip(".,!? ").lower()
            high_hz = _HIGH_HZ[WORDS.index(plain) if plain in WORDS else len(WORDS)]
            at = np.arange(len(word) * _LETTER_MS * RATE_HZ // 1_000) / RATE_HZ
            parts += [
                5_000 * (np.sin(2 * np.pi * low_hz * at) + np.sin(2 * np.pi * high_hz * at)),
                np.zeros(_LETTER_MS * RATE_HZ // 1_000),
            ]
        return np.concatenate(parts).astype(np.int16)

    return speak


class Mended(NamedTuple):
    """A word that was perhaps torn, put together."""

    text: str
    heard_s: float
    whole: bool


class Heard(NamedTuple):
    """What a recording holds."""

    words: tuple[Word, ...]
    both_ms: int
    """For how long two of our voices sounded at once."""

    def after(self, at_s: float) -> tuple[Word, ...]:
        """Return the words that begin after `at_s`."""
        return tuple(word for word in self.words if word.start_s > at_s)


def listen(samples: NDArray[np.int16]) -> Heard:
    """Read back what stands in `samples`, at 8 kHz."""
    frames = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME).astype(np.float64)
    size = 2 * np.abs(np.fft.rfft(frames, axis=1)) / _FRAME
    low, high = size[:, [hz // 50 for hz in _LOW_HZ]], size[:, [hz // 50 for hz in _HIGH_HZ]]
    loud = np.sqrt(np.mean(frames * frames, axis=1)) > _LOUD
    words: list[Word] = []
    double = np.zeros(len(frames) + 2, bool)
    for at in np.flatnonzero(loud):
        by_voice = np.sort(low[at])[::-1]
        chord = by_voice[0] > _LOUD and high[at].max() > _LOUD
        double[at + 1] = chord and by_voice[1] > max(_SECOND_VOICE * by_voice[0], 2 * _LOUD)
        voice = SPEAKERS[int(low[at].argmax())] if chord else _OTHER
        text = (*WORDS, _OTHER)[int(high[at].argmax())] if chord else _OTHER
        _extend(words, Word(at * _FRAME_MS / 1e3, (at + 1) * _FRAME_MS / 1e3, voice, text))
    whole = tuple(word for word in words if word.end_s - word.start_s > 1.5 * _FRAME_MS / 1e3)
    # A word that begins or ends within a frame sounds of everything, and two voices may share a frame at their border.
    lasting = double[1:-1] & (double[:-2] | double[2:])
    return Heard(whole, int(lasting.sum()) * _FRAME_MS)


def _extend(words: list[Word], frame: Word) -> None:
    last = words[-1] if words else None
    if last is not None and frame.start_s - last.end_s < 0.03 and last[2:] == frame[2:]:
        words[-1] = last._replace(end_s=frame.end_s)
    else:
        words.append(frame)


def mended(words: Sequence[Word]) -> list[Mended]:
    """Put together what is one word with a silence in its midst: the same word twice, in one voice, not too long."""
    found: list[Mended] = []
    voice = ""
    for word in words:
        whole_s = len(word.text) * _LETTER_MS / 1e3
        length_s = word.end_s - word.start_s
        last = found[-1] if found else None
        if (
            last is not None
            and (last.text, voice) == (word.text, word.voice)
            and last.heard_s + length_s < whole_s * 1.3
        ):
            length_s += found.pop().heard_s
        voice = word.voice
        found.append(Mended(word.text, length_s, length_s > 0.8 * whole_s))
    return found


def words_of(text: str) -> list[str]:
    """Return the words of `text` as they are read back."""
    return [word.strip(".,").lower() for word in text.split()]


def told(words: Iterable[Word]) -> str:
    """Return `words` for people to read."""
    return " ".join(f"{word.text}/{word.voice}@{word.start_s:.2f}+{word.end_s - word.start_s:.2f}" for word in words)


def gaps_s(words: Sequence[Word], since_s: float) -> list[float]:
    """Return the length of the silence before each of `words`, the first one counted from `since_s`."""
    ends = [since_s, *(word.end_s for word in words)]
    return [word.start_s - end_s for end_s, word in zip(ends, words, strict=False)]
