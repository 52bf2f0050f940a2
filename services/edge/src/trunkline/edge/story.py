"""The newest of one call as it passes by on the bus: what a brain is told that takes over in its midst.

The edge hears everything that is said about its calls anyway, and knows best what the caller has heard. So the last
utterances of the caller, the last sentences of the agent and the last keys are kept here, and are what a brain may have
missed: while it was not there yet, or while the one before it was dying. All that is older is in the conversation the
brain keeps by itself. Pure; it knows neither bus nor epochs: what is void is not shown to it.
"""

from collections import deque
from typing import Final

import msgspec

from trunkline.proto.ids import Generation, UtteranceId
from trunkline.proto.messages import (
    DigitPressed,
    FinalTranscript,
    PartialTranscript,
    PlayoutCut,
    PlayoutFinished,
    PlayoutMessage,
    PlayoutStarted,
    Reached,
    Recap,
    Say,
    SpeechMessage,
    SpeechStarted,
    TurnEnded,
    Uttered,
    VoiceChanged,
    WordsTimed,
)

UTTERANCES: Final = 12
"""Of the caller's: those since the last turn that was surely stored, and some more."""
SENTENCES: Final = 48
"""Of the agent's."""
DIGITS: Final = 64
_TEXT_CHARS: Final = 4_000
_MOST_POINTS: Final = 2_000

_Key = tuple[Generation, UtteranceId]


class Story:
    """One call's."""

    def __init__(self) -> None:
        self._speech: dict[UtteranceId, list[SpeechMessage]] = {}
        self._said: dict[_Key, Uttered] = {}
        self._digits: deque[DigitPressed] = deque(maxlen=DIGITS)
        self.generation = Generation(0)
        """The highest that anything was ordered in."""

    def heard(self, message: SpeechMessage) -> bool:
        """Take what STT tells of the caller; return whether it is new.

        A worker that took over tells again of what was still being said.
        """
        if isinstance(message, PartialTranscript):
            return False
        told = self._speech.setdefault(message.utterance, [])
        if message in told:
            return False
        if isinstance(message, FinalTranscript | TurnEnded) or not any(type(one) is type(message) for one in told):
            told.append(message)
        while len(self._speech) > UTTERANCES:
            del self._speech[next(iter(self._speech))]
        return True

    def began(self, onset_at: float) -> SpeechStarted | None:
        """Return what was told of the caller's speech that began at `onset_at`."""
        starts = (one for told in reversed(self._speech.values()) for one in told if isinstance(one, SpeechStarted))
        return next((one for one in starts if one.onset_at == onset_at), None)

    @property
    def caller_speaks(self) -> bool:
        """Whether an utterance is under way, or its words are awaited."""
        return any(not any(isinstance(one, TurnEnded) for one in told) for told in self._speech.values())

    def pressed(self, digit: DigitPressed) -> None:
        """Take a key."""
        self._digits.append(digit)

    def ordered(self, say: Say, *, heeded: bool) -> None:
        """Take a sentence that the brain ordered, or its next piece; `heeded`, the TTS worker of now is meant.

        A piece of a sentence whose beginning went by unheard is no use: half of it would be taken for the whole.
        """
        key = say.generation, say.utterance
        self.generation = max(self.generation, say.generation)
        known = self._said.get(key) or Uttered(generation=say.generation, utterance=say.utterance, text="")
        if say.at > len(known.text):
            return
        self._said.pop(key, None)
        text = (known.text + say.text)[:_TEXT_CHARS]
        self._keep(msgspec.structs.replace(known, text=text, open=say.goes_on, lost=known.lost or not heeded))

    def spoke(self, generation: Generation, utterance: UtteranceId, text: str) -> None:
        """Take a sentence of the agent's that the edge says by itself."""
        self._keep(Uttered(generation=generation, utterance=utterance, text=text))

    def timed(self, message: WordsTimed) -> None:
        """Take where words lie."""
        known = self._said.get((message.generation, message.utterance))
        if known is not None:
            points = (known.points + message.points)[:_MOST_POINTS]
            self._said[known.generation, known.utterance] = msgspec.structs.replace(known, points=points)

    def played(self, message: PlayoutMessage) -> None:
        """Take what became of a sentence at the caller's ear."""
        match message:
            case PlayoutStarted():
                self._change(message, fate="playing")
            case PlayoutFinished(heard_ms=heard_ms):
                self._change(message, fate="finished", heard_ms=heard_ms, queued_ms=heard_ms, complete=True)
            case PlayoutCut(heard_ms=heard_ms, total_ms=total_ms, complete=complete):
                self._change(message, fate="cut", heard_ms=heard_ms, queued_ms=total_ms, complete=complete)
            case VoiceChanged():
                pass

    def voice_lost(self) -> None:
        """Whoever was to speak is gone: what has not come of what was ordered will not come."""
        for key, known in self._said.items():
            if not known.complete and known.fate in {"waiting", "playing"}:
                self._said[key] = msgspec.structs.replace(known, lost=True, open=False)

    def recap(self, reached: tuple[Reached, ...], winding_up: str) -> Recap:
        """Return all of it; `reached` tells of what plays or is about to."""
        said = dict(self._said)
        for entry in reached:
            key = entry.generation, entry.utterance
            if (known := said.get(key)) is not None and known.fate in {"waiting", "playing"}:
                said[key] = msgspec.structs.replace(
                    known, fate="playing", queued_ms=entry.queued_ms, complete=entry.complete
                )
        return Recap(
            speech=tuple(message for told in self._speech.values() for message in told),
            said=tuple(said.values()),
            digits=tuple(self._digits),
            winding_up=winding_up,
        )

    def _change(self, message: PlayoutStarted | PlayoutFinished | PlayoutCut, **changes: object) -> None:
        key = message.generation, message.utterance
        if (known := self._said.get(key)) is not None:
            self._said[key] = msgspec.structs.replace(known, **changes)

    def _keep(self, uttered: Uttered) -> None:
        self._said[uttered.generation, uttered.utterance] = uttered
        while len(self._said) > SENTENCES:
            del self._said[next(iter(self._said))]
