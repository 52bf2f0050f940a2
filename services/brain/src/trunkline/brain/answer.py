"""One answer of the model, as it streams in: markers taken out, sentences cut, and these in pieces. Pure."""

from typing import Final, NamedTuple

from trunkline.brain.llm import ToolCall
from trunkline.brain.markers import END_CALL, VOICEMAIL, Marker, MarkerFilter, Piece
from trunkline.brain.sentences import SentenceSplitter

END_REASONS: Final = {END_CALL: "assistant-ended-call", VOICEMAIL: "voicemail"}
FIRST_PIECE_CHARS: Final = 20
"""A voice that is given less begins with a wrong melody; one that waits for more begins late."""
PIECE_CHARS: Final = 40


class Said(NamedTuple):
    """Some text to be said; with `goes_on`, more of the same sentence follows."""

    text: str
    goes_on: bool


class Answer:
    """What the model has answered so far."""

    def __init__(self) -> None:
        self.calls: list[ToolCall] = []
        self.end_reason: str | None = None
        """Why the call ends after this answer, if a marker in it says so."""
        self.said = False
        """Whether any of it was given out to be said."""
        self._filter = MarkerFilter()
        self._splitter = SentenceSplitter()
        self._given = ""
        """What was given out of the sentence that is open."""

    def read(self, text: str) -> list[Said]:
        """Return what can be said now that `text` has come."""
        return self._cut(self._filter.feed(text))

    def end(self) -> list[Said]:
        """Return the rest: no more comes."""
        out = self._cut(self._filter.flush())
        out += self._whole(self._splitter.flush())
        if self._given:
            out += self._whole([self._given])
        return out

    def _cut(self, pieces: list[Piece]) -> list[Said]:
        out: list[Said] = []
        for piece in pieces:
            match piece:
                case Marker():
                    self.end_reason = END_REASONS.get(piece.name)
                case str():
                    out += self._whole(self._splitter.feed(piece))
        certain = self._splitter.certain
        enough = PIECE_CHARS if self._given else FIRST_PIECE_CHARS
        if len(certain) - len(self._given) >= enough:
            out.append(Said(certain[len(self._given) :], goes_on=True))
            self._given = certain
            self.said = True
        return out

    def _whole(self, sentences: list[str]) -> list[Said]:
        out = []
        for sentence in sentences:
            out.append(Said(sentence[len(self._given) :], goes_on=False))
            self._given = ""
            self.said = True
        return out
