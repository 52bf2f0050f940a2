"""Takes markers such as ``[END_CALL]`` out of text that streams in.

Pure. It knows which markers there are, not what they mean; brackets around anything else are ordinary text. It holds
back no more than the longest marker, and only while what it holds may still become one.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

END_CALL: Final = "END_CALL"
VOICEMAIL: Final = "VOICEMAIL"
MARKERS: Final = (END_CALL, VOICEMAIL)


class Marker(msgspec.Struct, frozen=True):
    """A marker that stood in the text."""

    name: str
    """As it was given to the filter, whatever its case in the text."""
    at: int
    """Characters of remaining text before it."""


Piece = str | Marker


class MarkerFilter:
    """Separates markers from text, however the text is cut.

    Args:
        markers: names without brackets; case does not matter.
    """

    def __init__(self, markers: Iterable[str] = MARKERS) -> None:
        self._names = {f"[{name}]".upper(): name for name in markers}
        self._held = ""
        self._passed = 0

    def feed(self, text: str) -> list[Piece]:
        """Return what can be told apart so far, in order: stretches of text (never empty) and markers."""
        pieces: list[Piece] = []
        held = self._held + text
        start = 0
        while (bracket := held.find("[", start)) >= 0:
            self._pass(held[start:bracket], pieces)
            rest = held[bracket:].upper()
            found = next((marker for marker in self._names if rest.startswith(marker)), None)
            if found is not None:
                pieces.append(Marker(self._names[found], self._passed))
                start = bracket + len(found)
            elif any(marker.startswith(rest) for marker in self._names):
                self._held = held[bracket:]
                return pieces
            else:
                self._pass("[", pieces)
                start = bracket + 1
        self._pass(held[start:], pieces)
        self._held = ""
        return pieces

    def flush(self) -> list[Piece]:
        """Return what was held back: the text has ended, so it is no marker."""
        pieces: list[Piece] = []
        self._pass(self._held, pieces)
        self._held = ""
        return pieces

    def _pass(self, text: str, pieces: list[Piece]) -> None:
        if not text:
            return
        self._passed += len(text)
        if pieces and isinstance(pieces[-1], str):
            pieces[-1] += text
        else:
            pieces.append(text)
