"""Clips in memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.tts.shelf import Shelf

pytestmark = pytest.mark.unit


def test_what_was_not_asked_for_the_longest_goes_first():
    shelf = Shelf(10)
    shelf.put("a", b"aaaa")
    shelf.put("b", b"bbbb")
    assert shelf.find("a") == b"aaaa"
    shelf.put("c", b"cccc")
    assert (shelf.find("a"), shelf.find("b"), shelf.find("c")) == (b"aaaa", None, b"cccc")


def test_what_is_larger_than_the_shelf_is_not_kept_and_throws_nothing_out():
    shelf = Shelf(10)
    shelf.put("a", b"aaaa")
    shelf.put("b", bytes(11))
    assert (shelf.find("a"), shelf.find("b")) == (b"aaaa", None)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 12))))
def test_the_shelf_is_never_overfull_and_counts_right(puts):
    shelf = Shelf(20)
    for key, size in puts:
        shelf.put(key, bytes(size))
        assert shelf.bytes <= 20
        assert shelf.bytes == sum(len(shelf.find(each) or b"") for each in "abcdef")
        assert shelf.find(key) == bytes(size)
