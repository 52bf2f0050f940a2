"""Chunks that come in any order, or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.edge.order import MOST_EARLY, InOrder
from trunkline.proto.frame import AudioChunk, Codec, Flag

pytestmark = pytest.mark.unit


def chunk(seq, epoch=1):
    return AudioChunk(Codec.PCM16, 8000, Flag.NONE, epoch, seq, 0, 1, 1, b"")


def seqs(chunks):
    return [one.seq for one in chunks]


def test_what_comes_in_order_is_heard_at_once():
    order = InOrder()
    assert [seqs(order.take(chunk(seq))) for seq in range(3)] == [[0], [1], [2]]
    assert not order.gap
    assert order.awaited == (1, 3)


def test_what_comes_too_early_waits_for_what_is_missing():
    order = InOrder()
    assert seqs(order.take(chunk(0))) == [0]
    assert seqs(order.take(chunk(2))) == seqs(order.take(chunk(3))) == []
    assert order.gap
    assert order.awaited == (1, 1)
    assert seqs(order.take(chunk(1))) == [1, 2, 3]
    assert not order.gap


def test_what_is_given_up_is_counted_up_to_the_next_gap():
    order = InOrder()
    for seq in (2, 3, 6):
        order.take(chunk(seq))
    assert seqs(order.give_up()) == [2, 3]
    assert (order.given_up, order.gap) == (2, True)
    assert seqs(order.give_up()) == [6]
    assert (order.given_up, order.gap) == (4, False)
    assert order.give_up() == []


def test_a_new_speaker_begins_anew_and_the_last_one_is_heard_no_more():
    order = InOrder()
    order.take(chunk(0))
    order.take(chunk(2))
    assert seqs(order.take(chunk(0, epoch=2))) == [0]
    assert not order.gap
    assert order.take(chunk(1)) == []
    assert seqs(order.take(chunk(1, epoch=2))) == [1]


def test_what_waits_is_bounded():
    order = InOrder()
    heard = [seq for number in range(1, MOST_EARLY + 2) for seq in seqs(order.take(chunk(number)))]
    assert heard == list(range(1, MOST_EARLY + 2))
    assert order.given_up == 1


@given(st.permutations(range(12)), st.lists(st.integers(0, 11), max_size=6))
def test_whatever_the_order_each_is_heard_once_and_in_its_place(arriving, again):
    order = InOrder()
    heard = [seq for number in (*arriving, *again) for seq in seqs(order.take(chunk(number)))]
    assert heard == list(range(12))
    assert order.repeated == len(again)
    assert order.given_up == 0
