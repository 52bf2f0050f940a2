"""One answer of the model, as it streams in: markers taken out, sentences cut, and these in pieces. Pure."""

from typing import Final, NamedTuple

from trunkline.brain.llm import ToolCall
from trunkline.brain.markers import END_CALL, VOICEMAIL, Marker, MarkerFilter, Piece
from trunkline.brain.sentences import SentenceSplitter

END_REASONS: Final = {END_CALL: "assistant-ended-call", VOICEMAIL: "voicemail"}
PIECE_CHARS: Final = (20, 40, 80)
"""How long the pieces of a sentence are at least: the first, the second, all others.

A voice that is given less begins with a wrong melody; one that waits for more begins late. What comes after the
beginning need only outrun the voice; so the longest sentence takes four messages."""
CLAUSE_CHARS: Final = 8
"""How long a first piece is at least that ends where a speaker would pause: "Of course,"."""
_PAUSES: Final = (",", ";", ":")


class Said(NamedTuple):
    """Some text to be said; with `goes_on`, more of the same sentence follows."""

    text: str
    goes_on: bool


class Answer:
    """What the model has answered so far.

    Args:
        in_pieces: whether sentences are given out before they are whole.
    """

    def __init__(self, *, in_pieces: bool = True) -> None:
        self._in_pieces = in_pieces
        self.calls: list[ToolCall] = []
        self.end_reason: str | None = None
        """Why the call ends after this answer, if a marker in it says so."""
        self.said = False
        """Whether any of it was given out to be said."""
        self._filter = MarkerFilter()
        self._splitter = SentenceSplitter()
        self._given = ""
        """What was given out of the sentence that is open."""
        self._pieces = 0

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

    def break_off(self) -> list[Said]:
        """Return the end of a sentence given out in part: the rest does not come, and half a word is dropped."""
        return self._whole([self._given]) if self._given else []

    def _cut(self, pieces: list[Piece]) -> list[Said]:
        out: list[Said] = []
        for piece in pieces:
            match piece:
                case Marker():
                    self.end_reason = END_REASONS.get(piece.name)
                case str():
                    out += self._whole(self._splitter.feed(piece))
        return out + self._open() if self._in_pieces else out

    def _open(self) -> list[Said]:
        """Return the next piece of the sentence that is open, if it is long enough."""
        certain = self._splitter.certain
        piece = certain[len(self._given) :]
        clause = not self._pieces and len(piece) >= CLAUSE_CHARS and piece.endswith(_PAUSES)
        if not clause and len(piece) < PIECE_CHARS[min(self._pieces, len(PIECE_CHARS) - 1)]:
            return []
        self._given, self._pieces, self.said = certain, self._pieces + 1, True
        return [Said(piece, goes_on=True)]

    def _whole(self, sentences: list[str]) -> list[Said]:
        out = []
        for sentence in sentences:
            out.append(Said(sentence[len(self._given) :], goes_on=False))
            self._given, self._pieces, self.said = "", 0, True
        return out
