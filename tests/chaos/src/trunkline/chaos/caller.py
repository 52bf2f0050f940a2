"""The person at the other end: asks one question after the other, each when the last word of the answer is heard. Pure.

They know which word is the last one, so a fault in the midst of an answer does not make them speak into it. When
nothing more comes for a long time they go on without the rest; a question that the line swallowed is asked again.
"""

from array import array
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trunkline.audio.g711 import mulaw_to_pcm16, pcm16_to_mulaw
from trunkline.chaos.codebook import LINES, WORDS, answer, words_in
from trunkline.chaos.ear import FRAME_MS, FRAME_SAMPLES, codes_of, listen
from trunkline.chaos.evidence import Asked, CallerRecord, swallowed
from trunkline.chaos.script import CallPlan
from trunkline.testing.twilio import Heard, Uttered

PATIENCE_S: Final = 9.0
"""How long to wait for more, once there has been nothing."""
AGAIN_AFTER_S: Final = 6.0
"""How long to wait for an answer to a question during which the line was lost."""
PAUSE_S: Final = 0.5
"""Between the agent's last word and the caller's first."""
_NOISE_RMS: Final = 8.0
_NOISE_FRAMES: Final = 251
_FRAME_S: Final = FRAME_MS / 1_000

Clips = Mapping[int, NDArray[np.int16]]
"""Question → its sound at 8 kHz, without silence before or after."""


class _Noise:
    """A line's hiss, the same on every run."""

    def __init__(self) -> None:
        self._frames = np.random.default_rng(8_000).normal(0, _NOISE_RMS, (_NOISE_FRAMES, FRAME_SAMPLES))
        self._coded = [pcm16_to_mulaw(np.rint(frame).astype("<i2").tobytes()) for frame in self._frames]

    def over(self, frame: int, speech: NDArray[np.int16] | None) -> bytes:
        """Return frame number `frame` in μ-law, with `speech` (at most one frame) in it."""
        at = frame % _NOISE_FRAMES
        if speech is None:
            return self._coded[at]
        mixed = self._frames[at].copy()
        mixed[: speech.size] += speech
        return pcm16_to_mulaw(np.clip(np.rint(mixed), -32_768, 32_767).astype("<i2").tobytes())


_NOISE: Final = _Noise()


class _Speech(NamedTuple):
    question: int
    began_t: float


class Caller:
    """Plays `plan` in `call`; `clips` is their voice. Every `tick` is told the time."""

    def __init__(self, plan: CallPlan, call: str, clips: Clips, dialled_t: float = 0.0) -> None:
        self.call: Final = call
        self.plan: Final = plan
        self.asked: Final[list[Asked]] = []
        self.gaps: Final[list[tuple[float, float]]] = []
        self._clips = clips
        self._heard = bytearray()
        self._times = array("d")
        self._words: set[str] = set()
        self._word_t = 0.0
        self._began_t = self._t = dialled_t
        self._speech: Iterator[NDArray[np.int16]] = iter(())
        self._performance = self._perform()
        self._started = False
        self._closed_t = 0.0

    def tick(self, heard: Heard, t: float) -> Uttered:
        """Live through the 20 ms that end at `t`."""
        if not self._started:
            self._started, self._began_t = True, t
            self._word_t = t
        self._t = t
        self._heard += heard.audio
        self._times.append(t - _FRAME_S)
        self._listen(heard.audio)
        hang_up = next(self._performance, "over") == "over"
        return Uttered(_NOISE.over(len(self._times), next(self._speech, None)), "", hang_up)

    def line_closed(self, t: float) -> None:
        """There is no line any more, and there will be another, or the call is over."""
        self._closed_t = t

    def line_open(self, t: float) -> None:
        """There is a line."""
        if self._closed_t:
            self.gaps.append((self._closed_t, t))
            self._closed_t = 0.0

    def record(self, ended_by: str, *, refused: str = "", problem: str = "", latest_ms: float = 0.0) -> CallerRecord:
        """Return what was lived through."""
        listened = listen(bytes(self._heard), self._times)
        by = ended_by if ended_by in ("caller", "application") else "nobody"
        return CallerRecord(
            call=self.call,
            sid=self.plan.sid,
            questions=self.plan.questions,
            asked=tuple(self.asked),
            words=listened.words,
            two_voices=listened.two_voices,
            gaps=tuple(self.gaps),
            began_t=self._began_t,
            ended_t=self._t,
            ended_by=by,  # type: ignore[arg-type]  # checked in the line before last
            refused=refused or ("the agent says that all lines are busy" if self._busy else ""),
            problem=problem,
            latest_ms=latest_ms,
        )

    @property
    def _busy(self) -> bool:
        return not self.asked and bool(self._words & set(words_in(LINES.busy)))

    def _listen(self, audio: bytes) -> None:
        samples = np.frombuffer(mulaw_to_pcm16(audio), np.int16).astype(np.float64)
        code = int(codes_of(samples.reshape(1, FRAME_SAMPLES))[0])
        if code >= 0:
            self._words.add(WORDS[code])
            self._word_t = self._t

    def _perform(self) -> Iterator[str]:
        yield from self._hear_out(words_in(LINES.greeting))
        for question in self.plan.questions:
            if self._busy:
                break
            words = answer(self.call, question)
            self._words -= set(words)  # half of another question may have been taken for this one
            yield from self._ask(question)
            while True:
                yield from self._hear_out(words, AGAIN_AFTER_S if swallowed(self.asked[-1], self.gaps) else PATIENCE_S)
                if not swallowed(self.asked[-1], self.gaps) or self._words & set(words):
                    break
                yield from self._ask(question)

    def _ask(self, question: int) -> Iterator[str]:
        clip = self._clips[question]
        began_t, frames = self._t, -(-clip.size // FRAME_SAMPLES)
        self._speech = (clip[at : at + FRAME_SAMPLES] for at in range(0, clip.size, FRAME_SAMPLES))
        for _ in range(frames):
            yield "asking"
        self.asked.append(Asked(question=question, began_t=began_t, ended_t=self._t))

    def _hear_out(self, words: tuple[str, ...], patience_s: float = PATIENCE_S) -> Iterator[str]:
        """Wait until the last of `words` has been heard, and then a moment; or until nothing comes any more."""
        begin_t = self._t
        while words[-1] not in self._words:
            if self._t - max(begin_t, self._word_t) > patience_s:
                return
            yield "waiting"
        while self._t - self._word_t < PAUSE_S:
            yield "waiting"
