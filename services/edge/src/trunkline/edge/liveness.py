"""Who has fallen silent. Pure, and without a clock: the edge's own heartbeat, come back over the bus, is the clock.

A worker is lost when the edge has heard itself `MISSED` + 1 times since it last heard the worker. So nobody is judged
while the bus is away or while this process (or the whole machine) stands still: then its own beats are missing too.
"""

from typing import Final

from trunkline.proto.ids import WorkerId

MISSED: Final = 3
_FORGET_AFTER: Final = 1_500  # own beats: five minutes at five a second


class Liveness:
    """Heartbeats seen, counted in beats of `own`."""

    def __init__(self, own: WorkerId) -> None:
        self._own = own
        self._beats = 0
        self._heard: dict[WorkerId, int] = {}

    def expect(self, worker: WorkerId) -> None:
        """Count from now on for `worker`: it has just spoken (it took a call)."""
        self._heard[worker] = self._beats

    def beat(self, worker: WorkerId) -> frozenset[WorkerId]:
        """Take a heartbeat; return who is lost. Only the edge's own beat can lose somebody."""
        if worker != self._own:
            self._heard[worker] = self._beats
            return frozenset()
        self._beats += 1
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
