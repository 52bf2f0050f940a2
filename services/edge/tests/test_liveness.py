"""Silence is judged by one's own heartbeats, come back."""

import pytest

from trunkline.edge.liveness import MISSED, Liveness
from trunkline.proto.ids import WorkerId
from trunkline.proto.messages import Alive

pytestmark = pytest.mark.unit

EDGE, STT = WorkerId("edge-1"), WorkerId("stt-1")
PERIOD_S = 0.2


def beat_of(worker, **fields):
    return Alive(worker=worker, stage=worker[:-2], **({"calls": 0, "capacity": 10} | fields))


class Watch:
    """Beats of ours and of one worker, in time."""

    def __init__(self):
        self.liveness = Liveness(EDGE, PERIOD_S)
        self.at = 100.0
        self.own(1)

    def own(self, times, every_s=PERIOD_S):
        lost = frozenset()
        for _ in range(times):
            self.at += every_s
            lost = self.liveness.beat(beat_of(EDGE), self.at)
        return lost

    def stt(self):
        return self.liveness.beat(beat_of(STT), self.at)


def test_three_missed_beats_lose_a_worker():
    watch = Watch()
    watch.stt()
    assert watch.own(MISSED) == frozenset()
    assert watch.own(1) == {STT}
    assert watch.liveness.lost(STT)
    assert watch.liveness.heard == 0


def test_a_worker_that_beats_is_never_lost():
    watch = Watch()
    for _ in range(50):
        assert watch.own(MISSED) == frozenset()
        watch.stt()
    assert watch.liveness.heard == 1


def test_a_worker_is_expected_from_when_it_took_a_call_though_it_never_beat():
    watch = Watch()
    watch.own(10)
    assert not watch.liveness.lost(STT)
    watch.liveness.expect(STT)
    assert watch.own(MISSED + 1) == {STT}


def test_nobody_is_judged_while_the_bus_is_away():
    watch = Watch()
    watch.stt()
    watch.at += 60
    assert not watch.liveness.lost(STT)


def test_beats_that_were_kept_while_the_bus_was_away_come_in_a_burst_and_are_one():
    watch = Watch()
    watch.stt()
    assert watch.own(20, every_s=0.001) == frozenset()


def test_after_the_bus_was_away_everybody_is_given_as_long_again():
    watch = Watch()
    watch.stt()
    watch.own(MISSED)
    watch.at += 5
    assert watch.own(1 + MISSED) == frozenset()
    assert watch.own(1) == {STT}


def test_the_dead_are_forgotten_in_time():
    watch = Watch()
    watch.stt()
    assert watch.own(1_501) == {STT}
    assert watch.own(1) == frozenset()
