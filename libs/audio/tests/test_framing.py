"""Cutting byte streams."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.audio.errors import BadAudio
from trunkline.audio.framing import Framer

pytestmark = pytest.mark.unit


def test_frames_come_out_as_they_are_completed():
    framer = Framer(4)
    assert framer.push(b"abc") == []
    assert framer.push(b"defghi") == [b"abcd", b"efgh"]
    assert framer.rest() == b"i"
    assert framer.rest() == b""


def test_the_first_frame_may_be_shorter():
    framer = Framer(4, first_bytes=2)
    assert framer.push(b"abcdefgh") == [b"ab", b"cdef"]
    assert framer.rest() == b"gh"


@given(pieces=st.lists(st.binary(max_size=40)), size=st.integers(1, 17), first=st.integers(1, 17))
def test_no_byte_is_lost_or_moved(pieces, size, first):
    framer = Framer(size, first_bytes=first)
    frames = [frame for piece in pieces for frame in framer.push(piece)]
    assert b"".join(frames) + framer.rest() == b"".join(pieces)
    assert [len(frame) for frame in frames] == [first, *[size] * (len(frames) - 1)][: len(frames)]


@pytest.mark.parametrize(("size", "first"), [(0, None), (4, 0), (-1, 2)])
def test_frames_without_bytes_are_refused(size, first):
    with pytest.raises(BadAudio, match="must be at least 1"):
        Framer(size, first_bytes=first)
