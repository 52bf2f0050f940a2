"""Where in a sentence its sound is, by the times ElevenLabs gives for its characters. Pure.

Times begin anew with each piece of sound. What a piece is, a message or a whole generation of several messages, is not
said; so times that do not go on from the last ones begin where the sound before this message ends, and others go on.
The characters are those of the text that was sent, give or take spaces: they are counted against the sentence.
"""

from collections.abc import Sequence
from typing import Final

_MOST: Final = 4_096
_LONGEST: Final = 16


class Times:
    """One sentence's."""

    def __init__(self) -> None:
        self._text = ""
        self._characters = 0
        self._base_ms = 0.0
        self._last_start_ms = -1.0
        self._told = (0, 0)

    def write(self, text: str) -> None:
        """Note more of the sentence, as it was given to us."""
        self._text += text

    def push(
        self, characters: Sequence[str], starts_ms: Sequence[int], durations_ms: Sequence[int], before_ms: float
    ) -> tuple[tuple[int, int], ...]:
        """Return how far the sentence is spoken at which time: at the ends of words, and at the end of the message.

        Args:
            characters: of the message; should one be longer, it counts as several.
            starts_ms: when each begins.
            durations_ms: how long each lasts; may be shorter than the others.
            before_ms: length of the sound before the message's.
        """
        count = min(len(characters), len(starts_ms), _MOST)
        if not count:
            return ()
        if starts_ms[0] <= self._last_start_ms:
            self._base_ms = before_ms
        self._last_start_ms = starts_ms[count - 1]
        points: list[tuple[int, int]] = []
        for at in range(count):
            for character in characters[at][:_LONGEST]:
                self._step(character)
            word_ends = at + 1 == count or characters[at + 1].isspace()
            lasts_ms = durations_ms[at] if at < len(durations_ms) else 0
            point = self._characters, round(self._base_ms + starts_ms[at] + max(0, lasts_ms))
            if word_ends and point[0] > self._told[0] and point[1] >= self._told[1]:
                self._told = point
                points.append(point)
        return tuple(points)

    def _step(self, character: str) -> None:
        text, at = self._text, self._characters
        if character.isspace():
            self._characters += at < len(text) and text[at].isspace()
            return
        while at < len(text) and text[at].isspace():
            at += 1
        self._characters = min(at + 1, len(text))
