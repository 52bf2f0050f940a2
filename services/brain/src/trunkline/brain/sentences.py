"""Cuts text that streams in into sentences to be spoken, each as early as it is sure to be one.

Pure. Where the text is cut depends on the text alone, never on how it was delivered: a place is decided as soon as the
characters the decision needs are there, and nothing behind an undecided place is looked at. It does not rewrite: all
it changes is white space. What has no letter or digit waits for one, and is dropped where none comes: at the end, and
in a run of signs longer than a sentence may be.
"""

import re
from typing import Final, Literal

LONGEST_CHARS: Final = 200
"""A clause longer than this is cut; at the usual pace it takes 12 s to say."""

_CLOSING: Final = frozenset("\"'”)]}»*_\N{RIGHT SINGLE QUOTATION MARK}")
_SPACED_ENDS: Final = frozenset(".!?…؟।")
_UNSPACED_ENDS: Final = frozenset("。\N{FULLWIDTH EXCLAMATION MARK}\N{FULLWIDTH QUESTION MARK}")
"""Full stops of scripts that put no space behind them."""
_ENDS: Final = _SPACED_ENDS | _UNSPACED_ENDS
_CLOSING_UNSPACED: Final = _CLOSING | frozenset("」』\N{FULLWIDTH RIGHT PARENTHESIS}")

# fmt: off
_NEVER_LAST: Final = frozenset((
    "mr", "mrs", "ms", "mx", "dr", "prof", "rev", "hon", "st", "mt", "gen", "col", "capt", "lt", "sgt", "vs",
    "e.g", "i.e", "cf", "approx", "ca", "fig", "vol", "tel", "ext", "apt", "dept", "est",
))
"""Abbreviations that something always follows."""

_MAYBE_LAST: Final = frozenset((
    "a.m", "p.m", "etc", "inc", "ltd", "co", "corp", "jr", "sr", "ave", "blvd", "rd", "no", "u.s", "u.k", "e.u",
    "jan", "feb", "aug", "sept", "oct", "nov", "dec", "mon", "tue", "tues", "wed", "thu", "thur", "thurs", "fri",
))
# fmt: on
"""Abbreviations and short words that end a sentence unless a small letter or a digit follows."""

_Rest = Literal["unknown", "none", "beyond"]
"""What follows the text looked at: not known yet, nothing ever, or more than may be looked at."""

_NUMBERED: Final = re.compile(r"\W*\d{1,3}\.")
_WORD: Final = re.compile(r"[^\W\d_](?:[^\W_]|\.(?=\w))*$")
_CLAUSE: Final = re.compile(r"[,;:\N{EN DASH}—]\s")


class SentenceSplitter:
    """Collects text and gives back whole sentences.

    Args:
        longest_chars: length at which a sentence is cut at a comma or else a space.
    """

    def __init__(self, longest_chars: int = LONGEST_CHARS) -> None:
        self._longest_chars = longest_chars
        self._text = ""

    def feed(self, text: str) -> list[str]:
        """Return the sentences that are complete with `text`."""
        self._text += text
        return self._take(ended=False)

    @property
    def certain(self) -> str:
        """What the open sentence begins with, whatever comes: whole words, up to where it might still be cut."""
        words_end = max((self._text.rfind(space) for space in " \t\n"), default=-1)
        clauses = [end for end in _clause_ends(self._text) if end * 3 > self._longest_chars]
        certain = _tidy(self._text[: min([words_end, *clauses[-1:]])]) if words_end > 0 else ""
        return certain if _speakable(certain) else ""

    def flush(self) -> list[str]:
        """Return what is left: no more text comes."""
        sentences = self._take(ended=True)
        rest, self._text = _tidy(self._text), ""
        return [*sentences, rest] if _speakable(rest) else sentences

    def _take(self, *, ended: bool) -> list[str]:
        sentences = []
        self._text = self._text.lstrip()
        while (end := self._end(self._text, ended=ended)) is not None:
            if _speakable(self._text[:end]):
                sentences.append(_tidy(self._text[:end]))
            self._text = self._text[end:].lstrip()
        return sentences

    def _end(self, text: str, *, ended: bool) -> int | None:
        """Return where the first sentence of `text` ends, or None while that is open."""
        full = len(text) > self._longest_chars
        rest: _Rest = "beyond" if full else "none" if ended else "unknown"
        window = text[: self._longest_chars]
        at = 0
        while at < len(window):
            if window[at] == "\n":
                if _speakable(window[:at]):
                    return at
            elif window[at] in _ENDS:
                verdict, at_next = _judge(window, at, rest)
                if verdict is None:
                    return None
                if verdict:
                    return at_next
                at = at_next
                continue
            at += 1
        return _cut(window) if full else None


def _judge(text: str, at: int, rest: _Rest) -> tuple[bool | None, int]:
    """Tell whether the sentence that `text` begins with ends at the full stop, or its like, at `at`.

    Returns:
        The verdict, None while it is open; and where the sentence ends or, if not here, where to look on.
    """
    stop = at
    while stop < len(text) and text[stop] in _ENDS:
        stop += 1
    unspaced = text[stop - 1] in _UNSPACED_ENDS
    end = stop
    while end < len(text) and text[end] in (_CLOSING_UNSPACED if unspaced else _CLOSING):
        end += 1
    if end == len(text) and rest == "unknown":
        return None, at
    if not _speakable(text[:end]):
        return False, end
    if unspaced or (end == len(text) and rest == "none"):
        return True, end
    if end == len(text) or not text[end].isspace():
        return False, end
    match _doubt(text, at, stop, closed=end > stop):
        case "never":
            return False, end
        case "maybe":
            return _next_decides(text, end, rest)
        case _:
            return True, end


def _doubt(text: str, at: int, stop: int, *, closed: bool) -> Literal["none", "maybe", "never"]:
    """Tell whether the stop at `at` ends a sentence whatever follows, may do so, or never does."""
    if stop - at > 1 and text[at:stop].strip(".…") == "":
        return "maybe"
    if text[at] != ".":
        return "maybe" if closed or text[at] == "…" else "none"
    if _NUMBERED.fullmatch(text, 0, at + 1):
        return "never"
    found = _WORD.search(text, max(0, at - 24), at)
    word = found.group() if found else ""
    if word.lower() in _NEVER_LAST or (len(word) == 1 and word.isupper() and word != "I"):
        return "never"
    return "maybe" if closed or word.lower() in _MAYBE_LAST else "none"


def _next_decides(text: str, end: int, rest: _Rest) -> tuple[bool | None, int]:
    for following in text[end:]:
        if following == "\n":
            return True, end
        if not following.isspace():
            return not (following.islower() or following.isdigit() or following in ",;:-—\N{EN DASH}"), end
    return (None, end) if rest == "unknown" else (True, end)


def _cut(window: str) -> int:
    """Return where to cut text that has no end within `window`: late, but after a clause if there is one."""
    clauses = _clause_ends(window)
    if clauses and clauses[-1] * 3 > len(window):
        return clauses[-1]
    space = max(window.rfind(" "), window.rfind("\t"))
    return space if space > 0 and _speakable(window[:space]) else len(window)


def _clause_ends(text: str) -> list[int]:
    return [found.end() for found in _CLAUSE.finditer(text) if _speakable(text[: found.end()])]


def _speakable(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _tidy(text: str) -> str:
    return " ".join(text.split())
