"""Text made safe to hand to any provider, whole or as it comes. Pure."""

import unicodedata
from typing import Final, NamedTuple

MAX_CHARS: Final = 1_000
"""Over a minute of speech; whoever sends more has not cut sentences."""

_CONTROL: Final = "Cc"
_NO_CHARACTER: Final = frozenset({"Cs", "Co", "Cn"})


class Speakable(NamedTuple):
    """One line to be spoken (maybe empty), and how many characters at its end were too many."""

    text: str
    dropped_chars: int


class Cleaning:
    """A text that comes in pieces, made into one line of whole words without control characters.

    Control characters become spaces; surrogates, private and unassigned code points vanish. Joiners stay, because
    some scripts need them. The line ends after `MAX_CHARS` at most, at a word's end.
    """

    def __init__(self) -> None:
        self.text = ""
        """The line so far: a word is in it once it is known to be whole. It only ever grows."""
        self.dropped_chars = 0
        """How many characters were too many."""
        self._word = ""
        self._word_from: list[int] = []
        self._word_chars = 0
        self._from: list[int] = []
        self._read = 0
        self._full = False

    def push(self, piece: str) -> None:
        """Take the next piece of the text."""
        for character in piece:
            self._read += 1
            category = unicodedata.category(character)
            if category in _NO_CHARACTER:
                continue
            if category == _CONTROL or character.isspace():
                self.end()
                continue
            self._word_chars += 1
            if len(self._word) < MAX_CHARS:
                self._word += character
                self._word_from.append(self._read)

    def end(self) -> None:
        """Nothing follows: the last word is whole."""
        if not self._word_chars:
            return
        space = 1 if self.text else 0
        if not self._full and len(self.text) + space + self._word_chars <= MAX_CHARS:
            self._append(space)
        elif not self.text:
            self._append(space)
            self.dropped_chars += self._word_chars - MAX_CHARS
            self._full = True
        else:
            self.dropped_chars += space + self._word_chars
            self._full = True
        self._word, self._word_from, self._word_chars = "", [], 0

    def original(self, characters: int) -> int:
        """Return how many characters of the text, as it came, the first `characters` of the line stand for."""
        return self._from[min(characters, len(self._from)) - 1] if characters > 0 and self._from else 0

    def _append(self, space: int) -> None:
        self.text += " " * space + self._word
        self._from += self._word_from[:1] * space + self._word_from


def speakable(text: str) -> Speakable:
    """Return what `Cleaning` makes of a whole `text`."""
    cleaning = Cleaning()
    cleaning.push(text)
    cleaning.end()
    return Speakable(cleaning.text, cleaning.dropped_chars)
