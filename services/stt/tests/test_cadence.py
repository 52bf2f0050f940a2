import asyncio

import pytest
from prometheus_client import CollectorRegistry

from trunkline.stt.cadence import Cadence
from trunkline.stt.intake import PCM_BYTES, Frame
from trunkline.stt.metrics import SttMetrics
from trunkline.stt.vad import VoiceDetector

pytestmark = pytest.mark.unit


class FrozenClock:
    """Stands still, unless each look at it is to cost time."""

    def __init__(self, step_s=0.0):
        self._now = 0.0
        self._step_s = step_s

    def monotonic(self):
        self._now += self._step_s
        return self._now

    def wall(self):
        return 0.0


class Caller:
    def __init__(self, detector, frames, *, bad=None):
        self.call = "call"
        self.row = detector.join()
        self.cadence = None
        self.left = frames
        self.heard = []
        self._bad = bad

    def frame(self):
        if not self.left:
            return None
        self.left -= 1
        if self._bad == "raises in frame":
            raise RuntimeError("trouble with this call")
        return Frame(len(self.heard), bytes(100 if self._bad == "gives a short frame" else PCM_BYTES))

    def judged(self, frame, pcm, probability):
        assert len(pcm) == PCM_BYTES
        assert 0 <= probability <= 1
        self.heard.append(frame.seq)
        if self.left:
            self.cadence.attend(self)
        if self._bad == "raises in judged":
            raise RuntimeError("trouble with this call")


def cadence_with(*backlogs, clock=None, bad=None):
    detector = VoiceDetector(len(backlogs))
    metrics = SttMetrics(CollectorRegistry())
    cadence = Cadence(detector, clock or FrozenClock(), metrics)
    callers = [Caller(detector, frames, bad=bad if n == 0 else None) for n, frames in enumerate(backlogs)]
    for caller in callers:
        caller.cadence = cadence
        cadence.attend(caller)
    return cadence, callers, metrics


def test_a_beat_empties_every_call_whatever_its_backlog():
    cadence, callers, _ = cadence_with(1, 5, 2)
    asyncio.run(cadence.beat())
    assert [len(caller.heard) for caller in callers] == [1, 5, 2]


def test_a_call_that_catches_up_costs_the_others_no_turn():
    # Every look at the clock costs 10 ms, so the budget is spent in the second round.
    cadence, callers, metrics = cadence_with(1, 200, 1, clock=FrozenClock(0.01))
    asyncio.run(cadence.beat())
    assert [len(caller.heard) for caller in callers][::2] == [1, 1]
    assert len(callers[1].heard) < 5
    assert metrics.counts["beats_over_budget"] == 1


@pytest.mark.parametrize(
    ("trouble", "heard"), [("raises in judged", 1), ("raises in frame", 0), ("gives a short frame", 0)]
)
def test_one_call_in_trouble_is_set_aside_and_the_others_are_heard(caplog, trouble, heard):
    cadence, callers, metrics = cadence_with(3, 3, bad=trouble)
    asyncio.run(cadence.beat())
    assert [len(caller.heard) for caller in callers] == [heard, 3]
    cadence.attend(callers[0])
    asyncio.run(cadence.beat())
    assert len(callers[0].heard) == heard
    assert metrics.counts["calls_failed"] == 1
    assert [record.message for record in caplog.records] == ["call no longer heard"]


def test_a_call_that_left_is_not_judged():
    cadence, callers, _ = cadence_with(1, 1)
    cadence.forget(callers[0])
    asyncio.run(cadence.beat())
    assert [len(caller.heard) for caller in callers] == [0, 1]


def test_a_call_whose_backlog_was_dropped_is_passed_over_until_it_has_a_frame_again():
    cadence, callers, metrics = cadence_with(3, 1)
    callers[0].left = 0
    asyncio.run(cadence.beat())
    assert [len(caller.heard) for caller in callers] == [0, 1]
    callers[0].left = 1
    cadence.attend(callers[0])
    asyncio.run(cadence.beat())
    assert len(callers[0].heard) == 1
    assert not metrics.counts["calls_failed"]
