"""When the caller begins and ends an utterance, judged on audio time alone.

It is told how likely each frame of audio is voice and which frame of the stream it is, and answers with onsets and
ends. It counts in frames, by the seq that the edge gave them, so the same audio gives the same answers, however fast it
arrives and whoever listens. Durations are the nearest number of frames. It refuses to know about clocks, calls,
transcripts and the bus.

Two thresholds make the hysteresis: voice begins at `threshold`, and is lost below `threshold` - 0.15 (the distance
Silero recommends). Between the two nothing changes.

========  =============================  ========  ===========================================================
state     frame                          next      answer
========  =============================  ========  ===========================================================
QUIET     p ≥ threshold                  RISING    -, or `Onset` when one frame is `min_speech_ms` already
RISING    p ≥ low, voiced ≥ min_speech   SPEAKING  `Onset`
RISING    p ≥ low, else                  RISING    -
RISING    p < low                        QUIET     -
SPEAKING  p ≥ low                        SPEAKING  -
SPEAKING  p < low                        FADING    -, or `End` when one frame is `silence_ms` already
FADING    p ≥ threshold                  SPEAKING  -
FADING    else, silence ≥ silence_ms     QUIET     `End`
FADING    else                           FADING    -
SPEAKING  utterance ≥ max_utterance_ms   QUIET     `End`, forced
FADING    utterance ≥ max_utterance_ms   QUIET     `End`, forced
any       `cut` (the stream broke off)   QUIET     `End`, forced, if an utterance was open
========  =============================  ========  ===========================================================

So onsets and ends alternate, beginning with an onset; utterance ids increase; an `End` names its `Onset`'s utterance.
"""

from enum import Enum, auto
from typing import Final

import msgspec

from trunkline.proto.agent import TurnTaking
from trunkline.proto.frame import FRAME_MS
from trunkline.proto.ids import Seq, UtteranceId

HYSTERESIS: Final = 0.15
MIN_LOW: Final = 0.01
PRE_ROLL: Final = 9
"""Frames before the onset that a recogniser is given: soft first sounds, and silence to measure the line's noise."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What counts as speech, and as its end."""

    threshold: float = 0.5
    min_speech_ms: int = 96
    silence_ms: int = 600
    max_utterance_ms: int = 30_000

    @classmethod
    def of(cls, turns: TurnTaking) -> "Rules":
        """Return the rules of an agent."""
        return cls(
            threshold=turns.vad_threshold, min_speech_ms=turns.min_speech_ms, silence_ms=turns.endpoint_silence_ms
        )


class Onset(msgspec.Struct, frozen=True):
    """The caller speaks. `first` is the first voiced frame; the utterance is named after it."""

    utterance: UtteranceId
    first: Seq


class End(msgspec.Struct, frozen=True):
    """The utterance is over: frame `last` was the last voiced one; judged so when frame `judged` was heard.

    Whoever takes over begins to hear behind `judged`, with a detector that has heard nothing.

    `forced` when there was no silence: the utterance grew too long or the stream broke off.
    """

    utterance: UtteranceId
    last: Seq
    judged: Seq
    forced: bool


Verdict = Onset | End | None


class _State(Enum):
    QUIET = auto()
    RISING = auto()
    SPEAKING = auto()
    FADING = auto()


_QUIET, _RISING, _SPEAKING, _FADING = _State


class Endpointing:
    """The machine for one call. Feed it every frame, in order."""

    def __init__(self, rules: Rules) -> None:
        self._threshold = rules.threshold
        self._low = max(rules.threshold - HYSTERESIS, MIN_LOW)
        self._min_speech = frames_of(rules.min_speech_ms)
        self._silence = frames_of(rules.silence_ms)
        self._longest = frames_of(rules.max_utterance_ms)
        self._state = _QUIET
        self._first = self._last = self._judged = Seq(0)

    @property
    def open(self) -> bool:
        """Whether an utterance is under way."""
        return self._state in (_SPEAKING, _FADING)

    @property
    def voiced(self) -> bool:
        """Whether the last frame counted as voice."""
        return self._state in (_RISING, _SPEAKING)

    def hear(self, seq: Seq, probability: float) -> Verdict:
        """Take frame `seq`, which is voice with `probability`."""
        self._judged = seq
        state = self._state
        if state is _QUIET:
            if probability < self._threshold:
                return None
            self._first = seq
            return self._rise(seq)
        if state is _RISING:
            if probability < self._low:
                self._state = _QUIET
                return None
            return self._rise(seq)
        voiced = probability >= (self._low if state is _SPEAKING else self._threshold)
        if voiced:
            self._state = _SPEAKING
            self._last = seq
        else:
            self._state = _FADING
            if seq - self._last >= self._silence:
                return self._end(forced=False)
        return self._end(forced=True) if seq - self._first + 1 >= self._longest else None

    def cut(self) -> End | None:
        """End what is open: no more of this audio will come."""
        if self.open:
            return self._end(forced=True)
        self._state = _QUIET
        return None

    def _rise(self, seq: Seq) -> Onset | None:
        self._last = seq
        if seq - self._first + 1 < self._min_speech:
            self._state = _RISING
            return None
        self._state = _SPEAKING
        return Onset(UtteranceId(self._first), self._first)

    def _end(self, *, forced: bool) -> End:
        self._state = _QUIET
        return End(UtteranceId(self._first), self._last, self._judged, forced)


def frames_of(duration_ms: float) -> int:
    """Return how many frames come nearest to `duration_ms`; at least one."""
    return max(1, int(duration_ms / FRAME_MS + 0.5))
