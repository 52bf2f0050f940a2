"""Silence is judged by one's own heartbeats, come back."""

import pytest

from trunkline.edge.liveness import MISSED, Liveness
from trunkline.proto.ids import WorkerId

pytestmark = pytest.mark.unit

EDGE, STT = WorkerId("edge-1"), WorkerId("stt-1")


def own(liveness, times):
    return [liveness.beat(EDGE) for _ in range(times)][-1]


def test_three_missed_beats_lose_a_worker():
    liveness = Liveness(EDGE)
    liveness.beat(STT)
    assert own(liveness, MISSED) == frozenset()
    assert own(liveness, 1) == {STT}
    assert liveness.lost(STT)
    assert liveness.heard == 0


def test_a_worker_that_beats_is_never_lost():
    liveness = Liveness(EDGE)
    for _ in range(50):
        assert own(liveness, MISSED) == frozenset()
        liveness.beat(STT)
    assert liveness.heard == 1


def test_a_worker_is_expected_from_when_it_took_a_call_though_it_never_beat():
    liveness = Liveness(EDGE)
    own(liveness, 10)
    assert not liveness.lost(STT)
    liveness.expect(STT)
    assert own(liveness, MISSED + 1) == {STT}


def test_nobody_is_judged_while_the_bus_is_away():
    liveness = Liveness(EDGE)
    liveness.beat(STT)
    # No beat arrives, neither ours nor theirs; then both come back, ours first.
    assert own(liveness, 2) == frozenset()
    liveness.beat(STT)
    assert not liveness.lost(STT)


def test_the_dead_are_forgotten_in_time():
    liveness = Liveness(EDGE)
    liveness.beat(STT)
    assert own(liveness, 1_501) == {STT}
    assert own(liveness, 1) == frozenset()
