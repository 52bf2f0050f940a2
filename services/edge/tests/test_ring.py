"""The ring keeps the newest audio and numbers all of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.edge.ring import Ring
from trunkline.proto.ids import Seq

pytestmark = pytest.mark.unit


def test_frames_are_numbered_from_zero():
    ring = Ring(250)
    assert [ring.push(at, b"ab").seq for at in range(3)] == [0, 1, 2]
    assert ring.next_seq == 3


def test_replay_begins_where_it_is_asked_to():
    ring = Ring(250)
    for at in range(5):
        ring.push(at, b"ab")
    assert [kept.seq for kept in ring.since(Seq(3))] == [3, 4]
    assert [kept.captured_us for kept in ring.since(Seq(3))] == [3, 4]


def test_replay_from_what_is_forgotten_begins_with_the_oldest():
    ring = Ring(3)
    for at in range(5):
        ring.push(at, b"ab")
    assert [kept.seq for kept in ring.since(Seq(0))] == [2, 3, 4]


def test_replay_from_the_future_is_empty():
    ring = Ring(3)
    assert ring.since(Seq(0)) == ()
    ring.push(0, b"ab")
    assert ring.since(Seq(1)) == ()


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1), st.integers(0, 100), st.integers(0, 50))
def test_what_is_kept_is_the_unbroken_newest_end(payloads, since, most):
    ring = Ring(most)
    for at, payload in enumerate(payloads):
        ring.push(at, payload)
    everything = ring.since(Seq(0))
    assert [kept.payload for kept in everything] == payloads[len(payloads) - len(everything) :]
    assert len(everything) == min(len(payloads), max(1, most))
    assert list(ring.since(Seq(since))) == [kept for kept in everything if kept.seq >= since]
