"""Which workers live, have room, or are gone. Pure; its clock is the edge's own heartbeat, come back over the bus.

There are two kinds of evidence. *Silence*: a worker is lost when the edge has heard itself `MISSED` + 1 times since it
last heard the worker. So nobody is judged while the bus is away or while this process (or the whole machine) stands
still: then its own beats are missing too. When they come back after a gap, everybody is given as long again; and what
comes back in one burst, because it was kept while the bus was away, is one beat. *Absence*: the bus says that nobody
subscribes to what only that worker would. That is quicker, but also true of a worker whose connection is being made
anew; so it must be so `ABSENT` times in a row.
"""

import math
from collections.abc import Collection
from typing import Final, NamedTuple

from trunkline.proto.ids import Stage, WorkerId
from trunkline.proto.messages import Alive

MISSED: Final = 3
ABSENT: Final = 3
_FRESH: Final = 2
"""Own beats after which a silent worker is given no new call: sooner than it counts as lost."""
_FORGET_AFTER: Final = 1_500  # own beats: five minutes at five a second


class Candidate(NamedTuple):
    """A worker that may be asked, and how many more calls it can take."""

    worker: WorkerId
    free: int


class _Known:
    """What is known of one process."""

    __slots__ = ("absent", "absent_round", "beat", "heard")

    def __init__(self, heard: int) -> None:
        self.heard = heard
        self.beat: Alive | None = None
        self.absent = 0
        self.absent_round = -1


class Liveness:
    """Heartbeats seen, counted in beats of `own`, of which there is one every `period_s`."""

    def __init__(self, own: WorkerId, period_s: float) -> None:
        self._own = own
        self._period_s = period_s
        self._own_at = -math.inf
        self._beats = 0
        self._known: dict[WorkerId, _Known] = {}

    def expect(self, worker: WorkerId) -> None:
        """Count from now on for `worker`: it has just spoken (it took a call)."""
        known = self._known.setdefault(worker, _Known(self._beats))
        known.heard = self._beats
        if known.beat is not None:  # until its next beat says so itself
            known.beat = _fuller(known.beat)

    def beat(self, beat: Alive, at: float) -> frozenset[WorkerId]:
        """Take a heartbeat that came at `at`; return who is lost. Only the edge's own beat can lose somebody."""
        if beat.worker != self._own:
            known = self._known.setdefault(beat.worker, _Known(self._beats))
            known.heard, known.beat = self._beats, beat
            return frozenset()
        since_s = at - self._own_at
        if since_s < self._period_s / 2:
            return frozenset()
        self._own_at = at
        self._beats += 1
        if since_s > self._period_s * MISSED:
            for known in self._known.values():
                known.heard = self._beats
        lost = frozenset(name for name, known in self._known.items() if self._beats - known.heard > MISSED)
        for name in lost:
            if self._beats - self._known[name].heard > _FORGET_AFTER:
                del self._known[name]
        return lost

    def absent(self, worker: WorkerId, probe: int) -> bool:
        """Nobody was there for probe number `probe` of `worker`; return whether that makes it lost."""
        known = self._known.setdefault(worker, _Known(self._beats))
        known.absent = known.absent + 1 if probe == known.absent_round + 1 else 1
        known.absent_round = probe
        return known.absent >= ABSENT

    def lost(self, worker: WorkerId) -> bool:
        """Whether `worker` is silent now; one never heard of is not."""
        known = self._known.get(worker)
        return known is not None and self._beats - known.heard > MISSED

    def candidates(self, stage: Stage, without: Collection[WorkerId] = ()) -> list[Candidate]:
        """Return who can be asked to serve `stage`, as far as heartbeats tell."""
        return [
            Candidate(name, known.beat.capacity - known.beat.calls)
            for name, known in self._known.items()
            if known.beat is not None
            and known.beat.stage == stage
            and not known.beat.draining
            and known.beat.calls < known.beat.capacity
            and self._beats - known.heard <= _FRESH
            and name not in without
        ]

    def other_edge(self) -> bool:
        """Whether another edge could take a call of ours."""
        return any(
            known.beat is not None
            and known.beat.stage == "edge"
            and not known.beat.draining
            and known.beat.calls < known.beat.capacity
            and self._beats - known.heard <= _FRESH
            for known in self._known.values()
        )

    def alive(self, worker: WorkerId) -> bool:
        """Whether `worker` has been heard of lately."""
        known = self._known.get(worker)
        return worker == self._own or (known is not None and self._beats - known.heard <= MISSED)

    def silent_s(self, at: float) -> float:
        """Return for how long this edge has not heard itself: while it does not, the bus is away."""
        return at - self._own_at

    @property
    def heard(self) -> int:
        """How many processes are alive now."""
        return sum(self._beats - known.heard <= MISSED for known in self._known.values())


def _fuller(beat: Alive) -> Alive:
    return Alive(
        worker=beat.worker, stage=beat.stage, calls=beat.calls + 1, capacity=beat.capacity, draining=beat.draining
    )
