"""Which of the words heard in a stream belong to which utterance. Pure.

A stream that hears everything tells words by where they lie in its audio, and tells them late; utterances are told as
they begin and end. Between the end of one and the onset of the next nobody speaks, so the end alone divides them: what
lies before it is the earlier one's, what lies behind it the next one's, however late it comes. All times are seconds of
the audio that was sent. This module knows nothing of when a provider is sure of its words: its caller says so.
"""

import math
from collections.abc import Callable
from typing import Final, NamedTuple

from trunkline.proto.ids import UtteranceId
from trunkline.stt.provider import Final as FinalWords
from trunkline.stt.provider import Partial, Word

LEAD_S: Final = 1.0
"""Words that end longer than this before an onset is told were no part of it: the voice detector heard none."""
_MOST_PIECES: Final = 1_000


class Timed(NamedTuple):
    """A word."""

    text: str
    start_s: float
    end_s: float


class Piece(NamedTuple):
    """Words told together."""

    text: str
    start_s: float
    end_s: float
    confidence: float | None = None
    words: tuple[Timed, ...] = ()

    def within(self, after_s: float, before_s: float) -> "Piece | None":
        """Return what of it lies between two points; its text is kept as it came if that is all of it."""
        if not self.words:
            return self if after_s < (self.start_s + self.end_s) / 2 <= before_s else None
        words = tuple(word for word in self.words if after_s < (word.start_s + word.end_s) / 2 <= before_s)
        if len(words) == len(self.words):
            return self
        return self._replace(text=" ".join(word.text for word in words), words=words) if words else None


class Span:
    """An utterance in the stream's audio."""

    def __init__(self, utterance: UtteranceId, began_s: float, after_s: float) -> None:
        self.utterance: Final = utterance
        self.began_s = began_s
        self.after_s = after_s
        """Where the one before it ended, or `LEAD_S` before it began."""
        self.voiced_s = began_s
        """End of the last voice in it."""
        self.finished_s: float | None = None


class Words:
    """The words of one stream, and its utterances that are not told yet."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._fixed: list[Piece] = []
        self._tail: Piece | None = None
        self._spent_s = 0.0

    def begin(self, utterance: UtteranceId, at_s: float) -> None:
        """An utterance was noticed at `at_s`; one that was not finished is, there."""
        self.finish(at_s)
        self._spans.append(Span(utterance, at_s, max(self._spent_s, at_s - LEAD_S)))

    def voiced(self, at_s: float) -> None:
        """There was voice up to `at_s`."""
        if self._spans and self._spans[-1].finished_s is None:
            self._spans[-1].voiced_s = at_s

    def finish(self, at_s: float) -> None:
        """The utterance is over at `at_s`."""
        if self._spans and self._spans[-1].finished_s is None:
            self._spans[-1].finished_s = self._spent_s = at_s

    def give_up(self, utterance: UtteranceId) -> None:
        """Nobody waits for `utterance`; its words, when they come, are nobody's."""
        self._spans = [span for span in self._spans if span.utterance != utterance]

    def cut(self, at_s: float, length_s: float) -> None:
        """Audio of `length_s` from `at_s` on will not be sent after all: what lies behind it moves up."""
        for span in self._spans:
            span.began_s = _moved(span.began_s, at_s, length_s)
            span.after_s = _moved(span.after_s, at_s, length_s)
            span.voiced_s = _moved(span.voiced_s, at_s, length_s)
            if span.finished_s is not None:
                span.finished_s = _moved(span.finished_s, at_s, length_s)
        self._spent_s = _moved(self._spent_s, at_s, length_s)

    def heard(self, piece: Piece, *, final: bool) -> Partial | None:
        """Take words, `final` or to be replaced by the next; return how the utterance they belong to reads now.

        Raises:
            ValueError: their times are none, or there is half a character in them.
        """
        "".join((piece.text, *(word.text for word in piece.words))).encode()
        times = (piece.start_s, piece.end_s, *(at_s for word in piece.words for at_s in word[1:]))
        if not all(math.isfinite(at_s) for at_s in times):
            raise ValueError("times that are no numbers")
        self._tail = None if final else piece
        if final and piece.text:
            self._fixed = [*self._fixed, piece][-_MOST_PIECES:]
        if not piece.text:
            return None
        for span in self._spans:
            before_s = float("inf") if span.finished_s is None else span.finished_s
            if piece.within(span.after_s, before_s) is not None:
                return Partial(span.utterance, " ".join(part.text for part in self._of(span)))
        return None

    def settle(self, sure: Callable[[Span], bool]) -> list[FinalWords]:
        """Return the words of every finished utterance that is `sure`, and of those before it, in order."""
        count = 0
        for at, span in enumerate(self._spans):
            if span.finished_s is None:
                break
            if sure(span):
                count = at + 1
        told = [self._final(span) for span in self._spans[:count]]
        self._spans = self._spans[count:]
        kept_s = self._spans[0].after_s if self._spans else self._spent_s
        self._fixed = [piece for piece in self._fixed if piece.end_s > kept_s]
        return told

    @property
    def awaited(self) -> UtteranceId | None:
        """The first utterance that is not told."""
        return self._spans[0].utterance if self._spans else None

    @property
    def unfinished(self) -> UtteranceId | None:
        """The utterance that goes on."""
        return self._spans[-1].utterance if self._spans and self._spans[-1].finished_s is None else None

    def _of(self, span: Span) -> list[Piece]:
        before_s = float("inf") if span.finished_s is None else span.finished_s
        pieces = [*self._fixed, self._tail] if self._tail is not None else self._fixed
        parts = (piece.within(span.after_s, before_s) for piece in pieces)
        return [part for part in parts if part is not None and part.text]

    def _final(self, span: Span) -> FinalWords:
        parts = self._of(span)
        sure = [part.confidence for part in parts if part.confidence is not None]
        words = tuple(
            Word(word.text, _ms(word.start_s - span.began_s), _ms(word.end_s - span.began_s))
            for part in parts
            for word in part.words
        )
        text = " ".join(part.text for part in parts)
        return FinalWords(span.utterance, text, sum(sure) / len(sure) if sure else None, words)


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1_000))


def _moved(at_s: float, cut_s: float, length_s: float) -> float:
    return at_s if at_s <= cut_s else max(cut_s, at_s - length_s)
