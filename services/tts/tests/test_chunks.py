"""Samples into chunks for the edge."""

import numpy as np
import pytest

from trunkline.audio.errors import BadAudio
from trunkline.tts.chunks import SentenceChunks

pytestmark = pytest.mark.unit

FIRST, WHOLE = 40 * 16, 160 * 16


def test_the_first_chunk_is_short_and_the_rest_is_the_last():
    chunks = SentenceChunks(8_000)
    pcm = np.arange(8_000, dtype=np.int16).tobytes()
    out = [*chunks.push(pcm[:1_000]), *chunks.push(pcm[1_000:]), *chunks.end()]
    assert [len(chunk) for chunk in out] == [FIRST, *[WHOLE] * 6, 0]
    assert b"".join(out) == pcm


def test_a_sentence_without_sound_still_ends():
    assert SentenceChunks(8_000).end() == [b""]
    assert SentenceChunks(22_050, gap_ms=250).end() == [b""]


def test_a_gap_comes_first():
    chunks = SentenceChunks(8_000, gap_ms=250)
    audio = b"".join([*chunks.push(b"\x01\x01" * 800), *chunks.end()])
    assert audio == bytes(250 * 16) + b"\x01\x01" * 800


def test_another_rate_keeps_its_length():
    chunks = SentenceChunks(22_050)
    out = [chunk for _ in range(10) for chunk in chunks.push(bytes(2 * 2_205))]
    assert sum(map(len, [*out, *chunks.end()])) == 2 * 8_000


def test_half_a_sample_is_refused():
    with pytest.raises(BadAudio):
        SentenceChunks(8_000).push(b"abc")
