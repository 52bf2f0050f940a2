"""The beat at which audio is judged: every 32 ms, all calls that have a block, in one run of the model.

Frames only fill a call's buffer and put the call on a list; nothing is scheduled for a frame. Each beat empties the
list in rounds, one block of each call per round, so a call that catches up (a replay after a take-over) cannot starve
the others; between rounds the loop gets its turn, and a beat that has used up its budget leaves the rest to the next.
"""

import asyncio
import logging
from typing import Final, Protocol

from trunkline.proto.ids import CallId
from trunkline.runtime.clock import Clock
from trunkline.stt.endpointing import BLOCK_SAMPLES, RATE_HZ
from trunkline.stt.intake import Block
from trunkline.stt.metrics import SttMetrics
from trunkline.stt.vad import VoiceDetector

log = logging.getLogger("trunkline.stt.cadence")

BEAT_S: Final = BLOCK_SAMPLES / RATE_HZ
_BUDGET_S: Final = 0.024
_MAX_BATCH: Final = 128
_HOPELESS_S: Final = 10 * BEAT_S
"""So far behind, missed beats are skipped, not made up for."""


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

    @property
    def ready(self) -> bool:
        """Whether it has a block."""
        ...

    def block(self) -> Block:
        """Give the next block."""
        ...

    def judged(self, block: Block, probability: float) -> None:
        """Take the detector's word on `block`."""
        ...


class Cadence:
    """Drives one detector for all calls of the process."""

    def __init__(self, detector: VoiceDetector, clock: Clock, metrics: SttMetrics) -> None:
        self._detector = detector
        self._clock = clock
        self._metrics = metrics
        self._ready: dict[Listener, None] = {}
        self._failed: set[Listener] = set()

    def attend(self, listener: Listener) -> None:
        """Judge `listener` at the next beat: it has a block."""
        if listener not in self._failed:
            self._ready[listener] = None

    def forget(self, listener: Listener) -> None:
        """Judge `listener` no more."""
        self._ready.pop(listener, None)
        self._failed.discard(listener)

    async def run(self) -> None:
        """Beat until cancelled."""
        due = self._clock.monotonic()
        while True:
            due += BEAT_S
            behind_s = self._clock.monotonic() - due
            if behind_s > _HOPELESS_S:
                self._metrics.counts["beats_skipped"] += int(behind_s / BEAT_S)
                due += behind_s
            await asyncio.sleep(max(0.0, -behind_s))
            await self.beat()

    async def beat(self) -> None:
        """Judge what there is, within the budget."""
        deadline = self._clock.monotonic() + _BUDGET_S
        while self._ready:
            waiting = list(self._ready)
            for start in range(0, len(waiting), _MAX_BATCH):
                self._judge([one for one in waiting[start : start + _MAX_BATCH] if one in self._ready])
                await asyncio.sleep(0)
            if self._clock.monotonic() > deadline:
                self._metrics.counts["beats_over_budget"] += 1
                return

    def _judge(self, listeners: list[Listener]) -> None:
        if not listeners:
            return
        blocks = [listener.block() for listener in listeners]
        began = self._clock.monotonic()
        rows = [listener.row for listener in listeners]
        probabilities = self._detector.probabilities(rows, [block.pcm for block in blocks])
        self._metrics.judged(len(blocks), self._clock.monotonic() - began)
        for listener, block, probability in zip(listeners, blocks, probabilities, strict=True):
            if not listener.ready:
                self._ready.pop(listener, None)
            try:
                listener.judged(block, probability)
            except Exception:  # one call's trouble must not end the hearing of the others
                self._metrics.counts["calls_failed"] += 1
                self._ready.pop(listener, None)
                self._failed.add(listener)
                log.exception("call no longer heard", extra={"call": listener.call})
