"""Every fact once."""

import pytest

from trunkline.bus import Recorded
from trunkline.events.once import Once
from trunkline.proto.ids import CallId

pytestmark = pytest.mark.unit


def fact(event_id: str, kind: str = "key.pressed", call: str = "c1") -> Recorded:
    return Recorded(id=event_id, call=CallId(call), kind=kind, wall_at=0.0, data=b"{}")


def test_the_same_event_is_new_until_it_is_done():
    once = Once()
    assert once.is_new(fact("e1"))
    assert once.is_new(fact("e1"))
    once.done(fact("e1"))
    assert not once.is_new(fact("e1"))
    assert once.is_new(fact("e2"))


def test_a_call_starts_once_and_ends_once_whoever_says_so():
    once = Once()
    once.done(fact("e1", "call.started"))
    assert not once.is_new(fact("e2", "call.started"))
    assert once.is_new(fact("e3", "call.ended"))
    assert once.is_new(fact("e4", "call.started", call="c2"))
    once.done(fact("e3", "call.ended"))
    assert not once.is_new(fact("e5", "call.ended"))


def test_memory_is_bounded_and_forgets_the_oldest():
    once = Once(memory=3)
    for number in range(5):
        once.done(fact(f"e{number}"))
    assert [once.is_new(fact(f"e{number}")) for number in range(5)] == [True, True, False, False, False]
