"""The event loop: which one, how late it is, and how long the collector holds it up."""

import asyncio
import contextlib
import gc
import os
from collections import deque

from prometheus_client import CollectorRegistry, Histogram

from trunkline.runtime.clock import Clock

PERIOD_S = 0.1
LATE_S = 0.15
"""So late, callers hear it."""
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.5, 1.0, 5.0)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a uvloop loop where uvloop is installed (everywhere but Windows), else asyncio's own."""
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415 - absent on Windows

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        return loop
    return asyncio.new_event_loop()


def await_turns() -> None:
    """Have this process wait for its turn on a busy machine, instead of interrupting whoever runs when it is woken.

    Where processes pass frames to one another, each write wakes another one. If that stops the writer in the middle of
    a hundred frames, the change costs more than the frames. Linux's SCHED_BATCH is made for this (sched(7)): the share
    of the processor stays the same, and on one that is idle nothing waits. Elsewhere, and where it is not allowed,
    nothing changes.
    """
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class CollectorPauses:
    """How long Python's garbage collector holds everything up."""

    def __init__(self, clock: Clock, registry: CollectorRegistry) -> None:
        self._clock = clock
        self._began = 0.0
        self._histogram = Histogram(
            "trunkline_gc_pause_seconds", "One run of the garbage collector", registry=registry, buckets=_BUCKETS
        )

    def watch(self) -> None:
        """Note every run from now on."""
        gc.callbacks.append(self._on_run)

    def _on_run(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._began = self._clock.monotonic()
        else:
            self._histogram.observe(self._clock.monotonic() - self._began)


class LoopLag:
    """How much later than asked the loop wakes a sleeper: what every call of this process suffers at once."""

    def __init__(self, clock: Clock, registry: CollectorRegistry) -> None:
        self._clock = clock
        self._recent: deque[float] = deque(maxlen=600)
        self._lately: deque[float] = deque(maxlen=10)
        self.serving = False
        """Whether the process has started: what is late before, by imports, no call suffers."""
        self._histogram = Histogram(
            "trunkline_event_loop_lag_seconds",
            "Delay of a timer of this process beyond what was asked",
            registry=registry,
            buckets=_BUCKETS,
        )

    async def watch(self) -> None:
        """Sample until cancelled."""
        while True:
            serving, asked = self.serving, self._clock.monotonic() + PERIOD_S
            await asyncio.sleep(PERIOD_S)
            self.take(self._clock.monotonic() - asked, serving=serving)

    def take(self, lag_s: float, *, serving: bool = True) -> None:
        """Take a sample; one that was begun before the process was `serving` strains nobody."""
        lag_s = max(0.0, lag_s)
        self._recent.append(lag_s)
        if serving:
            self._lately.append(lag_s)
        self._histogram.observe(lag_s)

    def late(self) -> str | None:
        """Return what to say when the loop was so late in the last second that callers heard it; else None."""
        return "event loop late" if max(self._lately, default=0.0) > LATE_S else None

    @property
    def worst_s(self) -> float:
        """The worst of the last minute."""
        return max(self._recent, default=0.0)
