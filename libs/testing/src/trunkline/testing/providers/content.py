"""What an emulated provider hears, thinks and says: given to it by whoever runs it, the same for every vendor. Pure."""

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

RATE_HZ: Final = 8_000

# --- thinking ---------------------------------------------------------------------------------------------------------


class Said(NamedTuple):
    """One entry of the history a model was given, whatever the vendor calls it."""

    who: Literal["system", "caller", "agent", "tool-asked", "tool-answered"]
    text: str
    """What was said; the arguments of a tool that was asked for, JSON; or what it answered."""
    tool: str = ""
    """Name of the tool, where the wire format tells it."""
    tool_call: str = ""


class Asked(NamedTuple):
    """A request to a model."""

    model: str
    history: tuple[Said, ...]
    tools: tuple[str, ...]


class Reply(NamedTuple):
    """What the model answers: words, then tools, each with its arguments as JSON text."""

    text: str = ""
    tools: tuple[tuple[str, str], ...] = ()


Mind = Callable[[Asked], Reply]

# --- hearing ----------------------------------------------------------------------------------------------------------


class WordHeard(NamedTuple):
    """A word, and where it lies in the stream's audio."""

    text: str
    start_s: float
    end_s: float


class Hearing(Protocol):
    """One stream being listened to."""

    def push(self, samples: NDArray[np.int16]) -> None:
        """Take audio, mono at 8 kHz."""
        ...

    @property
    def heard(self) -> tuple[WordHeard, ...]:
        """All words so far, since the stream began."""
        ...

    @property
    def silent_s(self) -> float:
        """Length of the silence at the end of what was pushed."""
        ...


Ear = Callable[[], Hearing]


class Lines:
    """An ear that is told beforehand what the caller will say: each stretch of sound is the next line.

    A stretch ends with `gap_s` of silence. Its words come one by one as the sound goes on, and all at its end. What
    comes after the last line is heard as nothing. Each call makes the hearing of another stream; the lines are shared,
    so a second stream goes on where the first one stopped, unless it hears the same audio again from the beginning of
    a stretch: then `again` lines are taken back first.
    """

    def __init__(self, lines: Sequence[str], *, gap_s: float = 0.35, loud: int = 300) -> None:
        self._lines = list(lines)
        self.gap_s: Final = gap_s
        self.loud: Final = loud
        self._next = 0

    def __call__(self) -> Hearing:
        """Begin to listen to a stream."""
        return _LinesHearing(self)

    def take(self) -> str:
        """Return the next line."""
        line = self._lines[self._next] if self._next < len(self._lines) else ""
        self._next += 1
        return line

    def again(self, lines: int = 1) -> None:
        """Have the last `lines` heard once more."""
        self._next = max(0, self._next - lines)


class _LinesHearing:
    _WORD_S: Final = 0.3

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._at = 0
        self._done: list[WordHeard] = []
        self._words: list[str] = []
        self._began: int | None = None
        self._last_loud = 0

    def push(self, samples: NDArray[np.int16]) -> None:
        for start in range(0, len(samples), 160):
            block = samples[start : start + 160]
            self._at += len(block)
            if np.abs(block.astype(np.int32)).max(initial=0) >= self._lines.loud:
                if self._began is None:
                    self._began = self._at - len(block)
                    self._words = self._lines.take().split()
                self._last_loud = self._at
            elif self._began is not None and (self._at - self._last_loud) / RATE_HZ >= self._lines.gap_s:
                self._done += self._placed(len(self._words))
                self._began = None

    @property
    def heard(self) -> tuple[WordHeard, ...]:
        if self._began is None:
            return tuple(self._done)
        spoken_s = (self._last_loud - self._began) / RATE_HZ
        whole = self.silent_s > 0.1
        return (*self._done, *self._placed(len(self._words) if whole else int(spoken_s / self._WORD_S)))

    @property
    def silent_s(self) -> float:
        return (self._at - self._last_loud) / RATE_HZ

    def _placed(self, count: int) -> list[WordHeard]:
        began = (self._began or 0) / RATE_HZ
        length = max(0.001, self._last_loud / RATE_HZ - began) / max(1, len(self._words))
        return [
            WordHeard(word, began + at * length, began + (at + 1) * length)
            for at, word in enumerate(self._words[:count])
        ]


# --- speaking ---------------------------------------------------------------------------------------------------------

Voice = Callable[[str], NDArray[np.int16]]
"""Text → mono samples at 8 kHz."""


def tones(hz: float, *, ms_per_character: float = 60.0) -> Voice:
    """Return a voice that hums at `hz`: so a test can tell, in what the caller heard, who spoke, and how much of it.

    A word hums for `ms_per_character` times its letters, a space is as long and silent.
    """

    def speak(text: str) -> NDArray[np.int16]:
        length = int(ms_per_character * RATE_HZ / 1_000)
        loud = np.repeat(np.array([0.0 if character.isspace() else 1.0 for character in text]), length)
        return (8_000 * loud * np.sin(2 * np.pi * hz * np.arange(len(loud)) / RATE_HZ)).astype(np.int16)

    return speak
