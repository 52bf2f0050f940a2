"""Samples into chunks for the edge."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.tts.chunks import LineRate, SentenceChunks

pytestmark = pytest.mark.unit

FIRST, WHOLE = 40 * 16, 160 * 16


def test_the_first_chunk_is_short_and_the_rest_is_the_last():
    chunks = SentenceChunks()
    pcm = np.arange(8_000, dtype=np.int16).tobytes()
    out = [*chunks.push(pcm[:1_000]), *chunks.push(pcm[1_000:]), chunks.rest()]
    assert [len(chunk) for chunk in out] == [FIRST, *[WHOLE] * 6, 0]
    assert b"".join(out) == pcm
    assert chunks.ms == 1_000


def test_a_sentence_without_sound_still_ends():
    assert SentenceChunks().rest() == b""


def test_what_is_said_after_a_filler_does_not_wait_behind_its_end():
    chunks = SentenceChunks()
    chunks.push(b"\1\1" * 400)
    assert chunks.rest() == b"\1\1" * 80
    assert chunks.push(b"\2\2" * 1_280) == [b"\2\2" * 1_280]


def test_another_rate_keeps_its_length():
    rate = LineRate(22_050)
    out = [rate.push(bytes(2 * 2_205)) for _ in range(10)]
    assert sum(map(len, [*out, rate.end()])) == 2 * 8_000


@given(st.lists(st.binary(max_size=7)))
def test_samples_survive_pieces_that_end_in_their_midst(pieces):
    rate = LineRate(8_000)
    whole = b"".join(pieces)
    assert b"".join([*map(rate.push, pieces), rate.end()]) == whole[: len(whole) // 2 * 2]
