"""When a process takes no more calls."""

import pytest
from prometheus_client import CollectorRegistry

from trunkline.providers.strain import Strained
from trunkline.runtime.clock import SYSTEM
from trunkline.runtime.loop import LATE_S, LoopLag

pytestmark = pytest.mark.unit


def lag():
    return LoopLag(SYSTEM, CollectorRegistry())


def test_a_late_loop_strains_for_a_second():
    strained = Strained(late := lag(), list, "nobody")
    late.take(LATE_S + 0.01, serving=False)
    assert strained() is None
    late.take(LATE_S + 0.01)
    assert strained() == "event loop late"
    for _ in range(10):
        late.take(0.0)
    assert strained() is None
    assert late.worst_s == LATE_S + 0.01


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        ([], None),
        (["open", "closed"], None),
        (["open", "half-open"], None),
        (["open", "open"], "no voice can be asked"),
    ],
)
def test_who_could_ask_nobody_takes_no_calls(states, reason):
    named = [(str(number), state) for number, state in enumerate(states)]
    assert Strained(lag(), lambda: named, "no voice can be asked")() == reason
