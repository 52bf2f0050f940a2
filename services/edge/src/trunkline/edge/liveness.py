"""Who has fallen silent. Pure; its clock is the edge's own heartbeat, come back over the bus.

A worker is lost when the edge has heard itself `MISSED` + 1 times since it last heard the worker. So nobody is judged
while the bus is away or while this process (or the whole machine) stands still: then its own beats are missing too.
When they come back after a gap, everybody is given as long again; and what comes back in one burst, because it was
kept while the bus was away, is one beat.
"""

import math
from typing import Final

from trunkline.proto.ids import WorkerId

MISSED: Final = 3
_FORGET_AFTER: Final = 1_500  # own beats: five minutes at five a second


class Liveness:
    """Heartbeats seen, counted in beats of `own`, of which there is one every `period_s`."""

    def __init__(self, own: WorkerId, period_s: float) -> None:
        self._own = own
        self._period_s = period_s
        self._own_at = -math.inf
        self._beats = 0
        self._heard: dict[WorkerId, int] = {}

    def expect(self, worker: WorkerId) -> None:
        """Count from now on for `worker`: it has just spoken (it took a call)."""
        self._heard[worker] = self._beats

    def beat(self, worker: WorkerId, at: float) -> frozenset[WorkerId]:
        """Take a heartbeat that came at `at`; return who is lost. Only the edge's own beat can lose somebody."""
        if worker != self._own:
            self._heard[worker] = self._beats
            return frozenset()
        since_s = at - self._own_at
        if since_s < self._period_s / 2:
            return frozenset()
        self._own_at = at
        self._beats += 1
        if since_s > self._period_s * MISSED:
            self._heard = dict.fromkeys(self._heard, self._beats)
        lost = frozenset(name for name, heard in self._heard.items() if self._beats - heard > MISSED)
        for name in lost:
            if self._beats - self._heard[name] > _FORGET_AFTER:
                del self._heard[name]
        return lost

    def lost(self, worker: WorkerId) -> bool:
        """Whether `worker` is silent now; one never heard of is not."""
        heard = self._heard.get(worker)
        return heard is not None and self._beats - heard > MISSED

    @property
    def heard(self) -> int:
        """How many processes are alive now."""
        return sum(self._beats - heard <= MISSED for heard in self._heard.values())
