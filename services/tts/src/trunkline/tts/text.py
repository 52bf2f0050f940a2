"""Text made safe to hand to any provider. Pure."""

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


def speakable(text: str) -> Speakable:
    """Return `text` without control characters, on one line, cut at a word's end after `MAX_CHARS` at most.

    Control characters become spaces; surrogates, private and unassigned code points vanish. Joiners stay, because
    some scripts need them.
    """
    kept = (
        " " if category == _CONTROL else character
        for character in text
        if (category := unicodedata.category(character)) not in _NO_CHARACTER
    )
    line = " ".join("".join(kept).split())
    if len(line) <= MAX_CHARS:
        return Speakable(line, 0)
    space = line.rfind(" ", 0, MAX_CHARS + 1)
    end = space if space > 0 else MAX_CHARS
    return Speakable(line[:end], len(line) - end)
