"""When the caller begins and ends an utterance, judged on audio time alone.

It is told how likely each frame of audio is voice and where in the stream the frame stands, and answers with onsets
and ends. Positions are samples since seq 0 of the call's stream, so the same audio gives the same answers, however fast
it arrives and whoever listens. It refuses to know about clocks, calls, transcripts and the bus.

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

RATE_HZ: Final = 8_000
FRAME_SAMPLES: Final = RATE_HZ * FRAME_MS // 1_000
"""What the voice detector judges at a time, and seq counts."""
HYSTERESIS: Final = 0.15
MIN_LOW: Final = 0.01
PRE_ROLL_MS: Final = 300
"""Audio before the onset that a recogniser is given: soft first sounds, and silence to measure the line's noise."""


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
    """The caller speaks. `start` is the first voiced sample; the utterance is named after its frame."""

    utterance: UtteranceId
    start: int


class End(msgspec.Struct, frozen=True):
    """The utterance is over: voiced up to, not including, sample `stop`; judged so at sample `judged`.

    Whoever takes over begins to hear at `judged`, with a detector that has heard nothing.

    `forced` when there was no silence: the utterance grew too long or the stream broke off.
    """

    utterance: UtteranceId
    stop: int
    judged: int
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
        self._min_speech = samples_of_ms(rules.min_speech_ms)
        self._silence = samples_of_ms(rules.silence_ms)
        self._longest = samples_of_ms(rules.max_utterance_ms)
        self._state = _QUIET
        self._start = 0
        self._stop = 0
        self._judged = 0

    @property
    def open(self) -> bool:
        """Whether an utterance is under way."""
        return self._state in (_SPEAKING, _FADING)

    @property
    def voiced(self) -> bool:
        """Whether the last frame counted as voice."""
        return self._state in (_RISING, _SPEAKING)

    def hear(self, position: int, probability: float) -> Verdict:
        """Take the frame that begins at sample `position` and is voice with `probability`."""
        end = self._judged = position + FRAME_SAMPLES
        state = self._state
        if state is _QUIET:
            if probability < self._threshold:
                return None
            self._start = position
            return self._rise(end)
        if state is _RISING:
            if probability < self._low:
                self._state = _QUIET
                return None
            return self._rise(end)
        voiced = probability >= (self._low if state is _SPEAKING else self._threshold)
        if voiced:
            self._state = _SPEAKING
            self._stop = end
        else:
            self._state = _FADING
            if end - self._stop >= self._silence:
                return self._end(forced=False)
        return self._end(forced=True) if end - self._start >= self._longest else None

    def cut(self) -> End | None:
        """End what is open: no more of this audio will come."""
        if self.open:
            return self._end(forced=True)
        self._state = _QUIET
        return None

    def _rise(self, end: int) -> Onset | None:
        self._stop = end
        if end - self._start < self._min_speech:
            self._state = _RISING
            return None
        self._state = _SPEAKING
        return Onset(self._utterance, self._start)

    def _end(self, *, forced: bool) -> End:
        self._state = _QUIET
        return End(self._utterance, self._stop, self._judged, forced)

    @property
    def _utterance(self) -> UtteranceId:
        return UtteranceId(seq_of(self._start))


def committed_before(position: int) -> Seq:
    """Return the seq up to which a replay may be left out, so that it begins at `position`, where a frame does."""
    return Seq(position // FRAME_SAMPLES - 1)


def seq_of(position: int) -> Seq:
    """Return the seq of the frame that holds sample `position`."""
    return Seq(position // FRAME_SAMPLES)


def samples_of_ms(duration_ms: int) -> int:
    """Return how many samples last `duration_ms`."""
    return duration_ms * RATE_HZ // 1_000
