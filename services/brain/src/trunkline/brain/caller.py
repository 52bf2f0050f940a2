"""What the caller has said since the agent last had the floor. Pure."""

from trunkline.brain.measure import TurnTimes
from trunkline.brain.snapshot import Heard
from trunkline.proto.events import CallerSpoke
from trunkline.proto.ids import TurnId, UtteranceId
from trunkline.proto.messages import FinalTranscript, TurnEnded


class CallerTurn:
    """What the caller has said since the agent had the floor."""

    def __init__(self) -> None:
        self.utterances: list[UtteranceId] = []
        self.times: TurnTimes | None = None
        self.failed = False
        """Whether the words of some of it could not be found."""
        self._before = ""
        self._words: dict[UtteranceId, list[str]] = {}
        self._last: FinalTranscript | None = None
        self._open: set[UtteranceId] = set()
        self._onset_at = 0.0
        self._offset_at = 0.0

    def began(self, utterance: UtteranceId, onset_at: float) -> None:
        """Note that a stretch of speech began."""
        if not self.utterances:
            self._onset_at = onset_at
        if utterance not in self.utterances:
            self.utterances.append(utterance)
        self._open.add(utterance)

    def fell_silent(self) -> None:
        """Note that no end of an open utterance will come: whoever heard it begin is gone."""
        self._open.clear()

    def said(self, final: FinalTranscript) -> None:
        """Add words that stand; the same words told again are not said twice."""
        if final == self._last:
            return
        self._last = final
        if not self.utterances:
            self._onset_at = final.onset_at
        if final.utterance not in self.utterances:
            self.utterances.append(final.utterance)
        self._words.setdefault(final.utterance, []).append(final.text)

    def ended(self, event: TurnEnded) -> None:
        """Note that an utterance is over, with all its words."""
        self._open.discard(event.utterance)
        self.failed = self.failed or event.failed
        self._offset_at = event.speech_ended_at
        self.times = TurnTimes(event.speech_ended_at, event.endpoint_at, event.final_at)

    def resume(self, text: str) -> None:
        """Put `text`, said before an answer that nobody heard, in front."""
        self._before = f"{text} {self._before}".strip()

    @property
    def speaks(self) -> bool:
        """Whether an utterance is under way. Its first sound may come before the last words of the one before it."""
        return bool(self._open)

    @property
    def text(self) -> str:
        """All the words, in order."""
        said = " ".join(word for words in self._words.values() for word in words)
        return f"{self._before} {said}".strip()

    def fact(self, turn: TurnId) -> CallerSpoke:
        """Return the record of it."""
        return CallerSpoke(
            turn=turn,
            utterances=tuple(self.utterances),
            text=self.text,
            onset_at=self._onset_at,
            offset_at=self._offset_at,
        )

    def kept(self) -> Heard:
        """Return it as it is to be kept."""
        return Heard(
            utterances=tuple(self.utterances),
            words=tuple((utterance, tuple(words)) for utterance, words in self._words.items()),
            open=tuple(sorted(self._open)),
            before=self._before,
            failed=self.failed,
            onset_at=self._onset_at,
            offset_at=self._offset_at,
        )

    def restore(self, kept: Heard) -> None:
        """Begin as `kept`."""
        self.utterances = list(kept.utterances)
        self._words = {utterance: list(words) for utterance, words in kept.words}
        self._open = set(kept.open)
        self._before, self.failed = kept.before, kept.failed
        self._onset_at, self._offset_at = kept.onset_at, kept.offset_at
