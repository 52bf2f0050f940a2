"""Where in a sentence to go on when a provider broke off: no word twice, rather lose one. Pure.

`Points` say which word was being spoken when the audio ended. Without them it is reckoned by the voice's pace, as
measured in the call or, before that, as a brisk speaker's; both err on the side of more having been said. Whoever may
have begun a word is taken to have said it.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

BRISK_MS: Final = 55.0
"""Per character: about 200 words a minute."""
_MARGIN: Final = 0.9
_ENOUGH_CHARACTERS: Final = 40
_MOST_POINTS: Final = 2_000

Point = tuple[int, int]


class Pace:
    """How fast a voice speaks; measured by whole sentences."""

    def __init__(self, speed: float = 1.0) -> None:
        self._brisk_ms = BRISK_MS / speed
        self._characters = 0
        self._ms = 0.0

    @property
    def ms_per_character(self) -> float:
        """Return a figure that is rather too low than too high."""
        if self._characters < _ENOUGH_CHARACTERS or self._ms <= 0:
            return self._brisk_ms
        return _MARGIN * self._ms / self._characters

    def heard(self, characters: int, ms: float) -> None:
        """A text of `characters` took `ms`."""
        self._characters += characters
        self._ms += ms


class Timing:
    """The points known of one stretch of speech, as far as they make sense: both figures rise, within the text."""

    def __init__(self) -> None:
        self.points: list[Point] = []

    def push(self, points: Iterable[object], characters: int) -> list[Point]:
        """Take what a provider says of a text with so many `characters`; return those points that can be believed."""
        believed: list[Point] = []
        for point in points:
            last_characters, last_ms = self.points[-1] if self.points else (0, 0)
            match point:
                case (int(upto), int(ms)) if (
                    last_characters < upto <= characters and ms >= last_ms and len(self.points) < _MOST_POINTS
                ):
                    self.points.append((upto, ms))
                    believed.append((upto, ms))
        return believed


def resume_at(text: str, spoken_ms: float, points: list[Point], ms_per_character: float) -> int:
    """Return where in `text` the first word begins of which nothing can have been heard; its length if there is none.

    Args:
        text: all that the provider was given.
        spoken_ms: how much audio of it there was.
        points: what is known, see `Timing`.
        ms_per_character: the voice's pace.
    """
    if spoken_ms <= 0:
        return 0
    passed = bisect_right(points, spoken_ms, key=lambda point: point[1])
    upto, at_ms = points[passed - 1] if passed else (0, 0)
    if spoken_ms > at_ms:
        if passed < len(points):
            upto = points[passed][0]
        else:
            begun = _next_word(text, upto)  # at the latest with the first sound behind the last point
            upto = begun + max(1, math.ceil((spoken_ms - at_ms) / ms_per_character))
    return _next_word(text, upto)


def _next_word(text: str, characters: int) -> int:
    """Return where the first word begins that `characters` have not touched."""
    at = min(characters, len(text))
    if 0 < at < len(text) and text[at - 1] != " ":
        space = text.find(" ", at)
        at = len(text) if space < 0 else space
    while at < len(text) and text[at] == " ":
        at += 1
    return at
