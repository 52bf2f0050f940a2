"""When a process takes no more calls."""

import pytest

from trunkline.stt.strain import LATE_S, Strained

pytestmark = pytest.mark.unit


def test_a_late_loop_strains_for_a_second():
    strained = Strained(lambda: 0.0, list)
    strained.late(LATE_S + 0.01)
    assert strained() == "event loop late"
    for _ in range(10):
        strained.late(0.0)
    assert strained() is None


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        ([], None),
        (["open", "closed"], None),
        (["open", "half-open"], None),
        (["open", "open"], "no recogniser can be asked"),
    ],
)
def test_who_could_ask_nobody_takes_no_calls(states, reason):
    assert Strained(lambda: 0.0, lambda: [(str(n), state) for n, state in enumerate(states)])() == reason
