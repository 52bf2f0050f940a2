"""The playout ledger: what the caller has heard of what the agent said.

Pure: knows no socket, clock or carrier; every call carries `at` (monotonic seconds). It rests on three rules.

* The carrier plays what it is given in order and in real time, from when its buffer last began to fill.
* A mark that comes back says that everything before it has been played, unless a clear went out in between: Twilio
  returns marks on `clear` as well. So a mark counts only while its utterance stands in the ledger; a cut removes it.
* What lies behind a mark that has not come back has not been heard, whatever the clock says.

An utterance ends exactly once: finished (its mark came back) or cut. Speech of a generation below the floor is void.
"""

from typing import Final, NamedTuple

from trunkline.proto.ids import Generation, MarkName, UtteranceId
from trunkline.proto.messages import PlayoutCut, PlayoutFinished, PlayoutMessage, PlayoutStarted, Reached

_Key = tuple[Generation, UtteranceId]


class Speech(NamedTuple):
    """A stretch of agent audio as it came from TTS; `audio_ms` may be 0 when it only ends the utterance."""

    generation: Generation
    utterance: UtteranceId
    audio_ms: float
    last: bool
    synthesised_at: float


class Taken(NamedTuple):
    """The stretch may go to the carrier; then publish `started` and send `mark`, where there are any."""

    started: PlayoutStarted | None
    mark: MarkName | None


class Void(NamedTuple):
    """The stretch must not reach the caller; `reason` labels a counter."""

    reason: str


class Cut(NamedTuple):
    """What an interrupt means: whether the carrier's buffer is to be cleared, and what to publish after that."""

    clear: bool
    messages: tuple[PlayoutCut, ...]


class _Utterance:
    """One utterance on its way through the carrier's buffer."""

    __slots__ = ("begin_ms", "complete", "generation", "marked", "queued_ms", "utterance")

    def __init__(self, speech: Speech, begin_ms: float) -> None:
        self.generation: Final = speech.generation
        self.utterance: Final = speech.utterance
        self.begin_ms: Final = begin_ms
        self.queued_ms = 0.0
        self.complete = False
        self.marked = False

    @property
    def key(self) -> _Key:
        return self.generation, self.utterance

    @property
    def mark(self) -> MarkName:
        return MarkName(f"{self.generation}.{self.utterance}")

    @property
    def end_ms(self) -> float:
        return self.begin_ms + self.queued_ms

    def cut(self, position_ms: float) -> PlayoutCut:
        heard_ms = min(max(0.0, position_ms - self.begin_ms), self.queued_ms)
        return PlayoutCut(
            generation=self.generation,
            utterance=self.utterance,
            heard_ms=round(heard_ms),
            total_ms=round(self.queued_ms),
            complete=self.complete,
        )


class PlayoutLedger:
    """The utterances of one call, in the order in which they play."""

    def __init__(self) -> None:
        self._floor = Generation(0)
        self._highest = Generation(0)
        self._open: list[_Utterance] = []
        # With their generation: the utterances of a brain that takes over are numbered from 1 again.
        self._closed: set[_Key] = set()
        # Positions are ms of all audio ever queued. The carrier stood at `_anchor_ms` at time `_anchor_at`.
        self._queued_ms = 0.0
        self._anchor_ms = 0.0
        self._anchor_at = 0.0

    @property
    def floor(self) -> Generation:
        """Lowest generation that may still be heard."""
        return self._floor

    @property
    def highest(self) -> Generation:
        """Highest generation seen, in speech or in an interrupt."""
        return self._highest

    @property
    def queued_ms(self) -> float:
        """Audio taken since the beginning of the call."""
        return self._queued_ms

    @property
    def reached(self) -> tuple[Reached, ...]:
        """What has come of the utterances that are not over."""
        return tuple(
            Reached(
                generation=entry.generation,
                utterance=entry.utterance,
                queued_ms=round(entry.queued_ms),
                complete=entry.complete,
            )
            for entry in self._open
        )

    def idle(self, at: float) -> bool:
        """Whether nothing plays, as far as can be reckoned, and nothing is waited for."""
        return all(entry.complete for entry in self._open) and self._running_ms(at) >= self._queued_ms

    def take(self, speech: Speech, *, at: float, wall_at: float) -> Taken | Void:
        """Enter a stretch of speech that is about to be sent, or say why it must not be."""
        generation, utterance, audio_ms, last, synthesised_at = speech
        if generation < self._floor:
            return Void("old-generation")
        key = (generation, utterance)
        if key in self._closed:
            return Void("utterance-over")
        self._highest = max(self._highest, generation)
        current = self._open[-1] if self._open else None
        if current is None or current.key != key or current.complete:
            if current is not None and not current.complete:
                # TTS speaks in order: a new utterance means that no more will come of the one before.
                self._closed.add(current.key)
            current = _Utterance(speech, self._queued_ms)
            self._open.append(current)
        first = current.queued_ms == 0.0 and audio_ms > 0.0
        if audio_ms > 0.0:
            if self._running_ms(at) >= self._queued_ms:
                self._anchor_ms, self._anchor_at = self._queued_ms, at
            current.queued_ms += audio_ms
            self._queued_ms += audio_ms
        mark = None
        if last:
            current.complete = current.marked = True
            self._closed.add(key)
            mark = current.mark
        started = None
        if first:
            started = PlayoutStarted(
                generation=generation, utterance=utterance, synthesised_at=synthesised_at, sent_at=wall_at
            )
        return Taken(started, mark)

    def returned(self, name: str, *, at: float) -> tuple[PlayoutMessage, ...]:
        """Take a mark that came back; return the utterances that are thereby over. Nothing after a clear."""
        index = next((i for i, entry in enumerate(self._open) if entry.marked and entry.mark == name), None)
        if index is None:
            return ()
        over, self._open = self._open[: index + 1], self._open[index + 1 :]
        self._anchor_ms, self._anchor_at = over[-1].end_ms, at
        return tuple(self._heard_whole(entry) for entry in over)

    def interrupt(self, generation: Generation, *, at: float) -> Cut:
        """Raise the floor to `generation` and cut what is below it.

        A clear empties the carrier's buffer whole. Should speech of the new generation be in it already, that is cut
        too; if there is nothing *but* such speech, nothing is cleared.
        """
        if generation <= self._floor:
            return Cut(clear=False, messages=())
        self._floor = generation
        self._highest = max(self._highest, generation)
        if all(entry.generation >= generation for entry in self._open):
            return Cut(clear=False, messages=())
        position_ms = self._position_ms(at)
        cut, self._open = self._open, []
        self._closed.update(entry.key for entry in cut)
        self._anchor_ms, self._anchor_at = self._queued_ms, at
        return Cut(clear=True, messages=tuple(entry.cut(position_ms) for entry in cut))

    def abandon(self) -> tuple[MarkName, ...]:
        """End utterances whose rest will never come (their TTS worker is gone); return the marks to send.

        When such a mark comes back the utterance is reported as cut: all that was there has been heard.
        """
        ended = [entry for entry in self._open if not entry.marked]
        for entry in ended:
            entry.marked = True
            self._closed.add(entry.key)
        return tuple(entry.mark for entry in ended)

    def _running_ms(self, at: float) -> float:
        return self._anchor_ms + max(0.0, at - self._anchor_at) * 1000.0

    def _position_ms(self, at: float) -> float:
        fence_ms = next((entry.end_ms for entry in self._open if entry.marked), self._queued_ms)
        return min(self._running_ms(at), fence_ms)

    def _heard_whole(self, entry: _Utterance) -> PlayoutMessage:
        if not entry.complete:
            return entry.cut(entry.end_ms)
        return PlayoutFinished(generation=entry.generation, utterance=entry.utterance, heard_ms=round(entry.queued_ms))
