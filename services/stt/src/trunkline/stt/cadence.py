"""The beat at which audio is judged: all calls that have a frame, in one run of the model.

Frames of different calls come at different times. The first that comes brings about a beat, but none sooner than 2 ms
after the one before: under load, what comes during a beat is judged together in the next one, and frames come in bursts
anyway. Where nobody calls, nothing beats.

A frame only waits with its call, and puts the call on a list; nothing is scheduled for a frame. Each beat empties the
list in rounds, one frame of each call per round, so a call that catches up (a replay after a take-over) cannot starve
the others; between rounds the loop gets its turn, and a beat that has used up its budget leaves the rest to the next.
A call that cannot be judged is set aside, whatever it did; only the model itself can end the beat.
"""

import asyncio
import logging
from typing import Final, Protocol

from trunkline.proto.ids import CallId
from trunkline.runtime.clock import Clock
from trunkline.stt.intake import FRAME_SAMPLES, PCM_BYTES, Frame, pcm16_of
from trunkline.stt.metrics import SttMetrics
from trunkline.stt.vad import VoiceDetector

log = logging.getLogger("trunkline.stt.cadence")

BEAT_S: Final = 0.002
_BUDGET_S: Final = 0.024
_MAX_BATCH: Final = 128


class Listener(Protocol):
    """A call, as the cadence sees it."""

    @property
    def call(self) -> CallId:
        """Which call it is, for the log."""
        ...

    @property
    def row(self) -> int:
        """Its row in the detector."""
        ...

    def frame(self) -> Frame | None:
        """Give the next frame, as it came; None when there is none any more."""
        ...

    def judged(self, frame: Frame, pcm: bytes, probability: float) -> None:
        """Take the detector's word on `frame`, whose samples are `pcm`; attend again if there is another."""
        ...


class Cadence:
    """Drives one detector for all calls of the process."""

    def __init__(self, detector: VoiceDetector, clock: Clock, metrics: SttMetrics) -> None:
        self._detector = detector
        self._clock = clock
        self._metrics = metrics
        self._ready: dict[Listener, None] = {}
        self._work = asyncio.Event()
        self._failed: set[Listener] = set()

    def attend(self, listener: Listener) -> None:
        """Judge one frame of `listener` in the next round."""
        if listener not in self._ready and listener not in self._failed:
            self._ready[listener] = None
            self._work.set()

    def forget(self, listener: Listener) -> None:
        """Judge `listener` no more."""
        self._ready.pop(listener, None)
        self._failed.discard(listener)

    async def run(self) -> None:
        """Beat until cancelled."""
        due = self._clock.monotonic()
        while True:
            await self._work.wait()
            # Whoever else came in the same gulp of the socket is there now.
            await asyncio.sleep(max(0.0, due - self._clock.monotonic()))
            due = self._clock.monotonic() + BEAT_S
            await self.beat()
            if not self._ready:
                self._work.clear()

    async def beat(self) -> None:
        """Judge what there is, within the budget."""
        deadline = self._clock.monotonic() + _BUDGET_S
        while self._ready:
            waiting = list(self._ready)
            for start in range(0, len(waiting), _MAX_BATCH):
                self._judge(waiting[start : start + _MAX_BATCH])
                await asyncio.sleep(0)
            if self._clock.monotonic() > deadline:
                self._metrics.counts["beats_over_budget"] += 1
                return

    def _judge(self, listeners: list[Listener]) -> None:
        batch: list[Listener] = []
        frames: list[Frame] = []
        for listener in listeners:
            try:
                frame = self._frame_of(listener)
            except Exception:  # one call's trouble must not end the hearing of the others
                log.exception("call no longer heard", extra={"call": listener.call})
                self._set_aside(listener)
            else:
                if frame is not None:
                    batch.append(listener)
                    frames.append(frame)
        if not batch:
            return
        began = self._clock.monotonic()
        samples = pcm16_of(frames)
        probabilities = self._detector.probabilities([listener.row for listener in batch], samples)
        self._metrics.judged(len(batch), self._clock.monotonic() - began)
        for listener, frame, pcm, probability in zip(batch, frames, samples, probabilities, strict=True):
            try:
                listener.judged(frame, pcm, probability)
            except Exception:  # as above
                log.exception("call no longer heard", extra={"call": listener.call})
                self._set_aside(listener)

    def _frame_of(self, listener: Listener) -> Frame | None:
        """Take `listener` off the list and return its frame; None when it left, or has none any more."""
        if listener not in self._ready:
            return None
        del self._ready[listener]
        frame = listener.frame()
        if frame is not None and len(frame.audio) not in (FRAME_SAMPLES, PCM_BYTES):
            raise ValueError(f"a frame of {len(frame.audio)} bytes would spoil the whole batch")
        return frame

    def _set_aside(self, listener: Listener) -> None:
        self._metrics.counts["calls_failed"] += 1
        self._ready.pop(listener, None)
        self._failed.add(listener)
