"""The μ-law tables against the recommendation."""

import numpy as np
import pytest

from trunkline.audio import g711
from trunkline.audio.errors import BadAudio

pytestmark = pytest.mark.unit

EVERY_CODE = bytes(range(256))
EVERY_SAMPLE = np.arange(-32_768, 32_768, dtype=np.int32)


def encode_one(sample: int) -> int:
    return g711.pcm16_to_mulaw(np.array([sample], "<i2").tobytes())[0]


def decode_one(code: int) -> int:
    return int(np.frombuffer(g711.mulaw_to_pcm16(bytes([code])), "<i2")[0])


# Table 2a: the end of each segment, as decision value, first code above it, and the value that code stands for.
@pytest.mark.parametrize(
    ("decision", "code", "quantised"),
    [
        (0, 0xFF, 0),
        (1, 0xFE, 2),
        (3, 0xFD, 4),
        (31, 0xEF, 33),
        (95, 0xDF, 99),
        (223, 0xCF, 231),
        (479, 0xBF, 495),
        (991, 0xAF, 1023),
        (2015, 0x9F, 2079),
        (4063, 0x8F, 4191),
        (7903, 0x80, 8031),
    ],
)
def test_codes_change_at_the_decision_values_of_the_recommendation(decision, code, quantised):
    assert encode_one(4 * decision) == code
    assert decode_one(code) == 4 * quantised
    if decision:
        assert encode_one(4 * decision - 1) == code + 1
        assert encode_one(-4 * decision) == code & 0x7F
        assert decode_one(code & 0x7F) == -4 * quantised


@pytest.mark.parametrize(
    ("sample", "code"),
    [(0, 0xFF), (-1, 0x7F), (1000, 0xCE), (-1000, 0x4E), (32_635, 0x80), (32_767, 0x80), (-32_768, 0x00)],
)
def test_well_known_samples_have_their_well_known_codes(sample, code):
    assert encode_one(sample) == code


def test_every_code_survives_decoding_and_encoding_but_negative_zero():
    again = g711.pcm16_to_mulaw(g711.mulaw_to_pcm16(EVERY_CODE))
    assert again[:0x7F] + again[0x80:] == EVERY_CODE[:0x7F] + EVERY_CODE[0x80:]
    assert again[0x7F] == g711.SILENCE[0]


def test_every_sample_comes_back_within_half_a_step():
    heard = np.frombuffer(g711.mulaw_to_pcm16(g711.pcm16_to_mulaw(EVERY_SAMPLE.astype("<i2").tobytes())), "<i2")
    magnitude = np.minimum(np.abs(EVERY_SAMPLE), 32_635)
    # In PCM16 units and with the bias of 132 added, segment s begins at 128 · 2^s and has steps of 8 · 2^s.
    half_step = 4 << np.floor(np.log2((magnitude + 132) / 128)).astype(np.int32)
    assert np.all(np.abs(np.sign(EVERY_SAMPLE) * magnitude - heard) <= half_step)


def test_louder_never_decodes_quieter():
    heard = np.frombuffer(g711.mulaw_to_pcm16(g711.pcm16_to_mulaw(EVERY_SAMPLE.astype("<i2").tobytes())), "<i2")
    assert np.all(np.diff(heard.astype(np.int32)) >= 0)


def test_nothing_gives_nothing():
    assert g711.mulaw_to_pcm16(b"") == b""
    assert g711.pcm16_to_mulaw(b"") == b""


def test_half_a_sample_is_refused():
    with pytest.raises(BadAudio, match="3 bytes are no whole number of PCM16 samples"):
        g711.pcm16_to_mulaw(b"abc")
