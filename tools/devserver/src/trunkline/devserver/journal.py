"""The logs of all processes as one: a line each, tagged and coloured by who said it."""

import re
from collections.abc import Callable, Iterable
from typing import Final

COLOURS: Final = {"edge": "36", "stt": "32", "brain": "35", "tts": "34", "events": "33", "dev": "1"}
_OTHERS: Final = ("96", "92", "95", "94", "93")
_LEVEL: Final = re.compile(r"\b(?:warning|error|critical)\b")
_LEVEL_WITHIN: Final = 24
"""The level stands right after the time; further on, the word is just a word."""


class Journal:
    """Writes lines to `sink`, each with the name of whoever said it."""

    def __init__(self, sink: Callable[[str], None], names: Iterable[str], *, colour: bool) -> None:
        self._sink = sink
        self._colour = colour
        self._width = max(map(len, (*names, "dev")))

    def line(self, name: str, text: str) -> None:
        """Write what the process called `name` said."""
        self._sink(tagged(name, text, self._width, colour=self._colour))

    def say(self, text: str) -> None:
        """Write what the set-up itself has to say."""
        self.line("dev", text)


def tagged(name: str, text: str, width: int, *, colour: bool) -> str:
    """Return `text` with the tag of `name` before it. `name` may end in ``-2``, the second process of a service."""
    tag = f"{name:<{width}} │"
    if not colour:
        return f"{tag} {text}"
    base = name.partition("-")[0]
    hue = COLOURS.get(base) or _OTHERS[sum(base.encode()) % len(_OTHERS)]
    return f"\x1b[{hue}m{tag}\x1b[0m {_with_level(text)}"


def _with_level(text: str) -> str:
    found = _LEVEL.search(text, 0, _LEVEL_WITHIN)
    if found is None:
        return text
    hue = "33" if found[0] == "warning" else "31"
    return f"{text[: found.start()]}\x1b[{hue}m{found[0]}\x1b[0m{text[found.end() :]}"
