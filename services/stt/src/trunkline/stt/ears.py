"""All calls of a process, in step: one media subscription, one voice detector, one beat of 32 ms."""

import asyncio
import logging
from collections import Counter
from typing import Final

from prometheus_client import CollectorRegistry, Histogram

from trunkline.proto import subjects
from trunkline.proto.errors import BadFrame
from trunkline.proto.frame import unpack_media
from trunkline.runtime.clock import Clock
from trunkline.stt.endpointing import BLOCK_MS
from trunkline.stt.session import SttCall
from trunkline.stt.vad import Row, VoiceDetector

log = logging.getLogger("trunkline.stt.ears")

ROUNDS_PER_BEAT: Final = 16
"""Blocks of one call in one beat at most: a replay of 5 s is caught up in a third of a second, and no other call waits
for more than a few ms of it."""


class Ears:
    """Hears every call of the process."""

    def __init__(
        self, detector: VoiceDetector, clock: Clock, registry: CollectorRegistry, counts: Counter[str]
    ) -> None:
        self._detector = detector
        self._clock = clock
        self._counts = counts
        self._calls: dict[str, tuple[SttCall, Row]] = {}
        self._took = Histogram(
            "trunkline_stt_vad_batch_seconds",
            "One run of the voice detector over all calls that have a block",
            registry=registry,
            buckets=(0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064),
        )

    def join(self, call: SttCall) -> None:
        """Hear `call` from now on."""
        self._calls[call.call] = (call, self._detector.join())
        call.on_close = self.leave

    def leave(self, call: SttCall) -> None:
        """Hear `call` no more."""
        held = self._calls.get(call.call)
        if held is not None and held[0] is call:
            del self._calls[call.call]
            self._detector.leave(held[1])

    def on_frame(self, subject: str, data: bytes) -> None:
        """Take in a frame from the bus. Never raises: what cannot be used is counted."""
        self._counts["frames"] += 1
        held = self._calls.get(subjects.last_token(subject))
        if held is None:
            self._counts["frames_unknown_call"] += 1
            return
        try:
            held[0].take(unpack_media(data))
        except BadFrame as error:
            self._counts["frames_malformed"] += 1
            if self._counts["frames_malformed"] == 1:
                log.warning("malformed frame", extra={"call": held[0].call, "error": str(error)})

    async def beat(self) -> None:
        """Look at what has come in every 32 ms, until cancelled. Beats that were missed are not made up for."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + BLOCK_MS / 1000, loop.time())
            await asyncio.sleep(due - loop.time())
            for _ in range(ROUNDS_PER_BEAT):
                if not self._look():
                    break

    def _look(self) -> bool:
        """Run the detector once over every call that has a block; return whether any had."""
        ready = [(call, row) for call, row in self._calls.values() if call.track.ready]
        if not ready:
            return False
        blocks = [call.track.take() for call, _ in ready]
        began = self._clock.monotonic()
        probabilities = self._detector.run([row for _, row in ready], [block.pcm for block in blocks])
        self._took.observe(self._clock.monotonic() - began)
        for (call, _), block, probability in zip(ready, blocks, probabilities, strict=True):
            try:
                call.heard_block(block, probability)
            except Exception:
                self._counts["failed"] += 1
                log.exception("block not handled", extra={"call": call.call})
        return True
