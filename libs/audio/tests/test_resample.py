"""Rates changed, piece by piece and whole."""

import numpy as np
import pytest

from trunkline.audio.errors import BadAudio
from trunkline.audio.resample import Resampler, resample

pytestmark = pytest.mark.unit


def tone(rate_hz, seconds=1.0, hz=440):
    at = np.arange(int(rate_hz * seconds)) / rate_hz
    return (10_000 * np.sin(2 * np.pi * hz * at)).astype(np.int16)


def pitch_of(samples, rate_hz):
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * rate_hz / len(samples))


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 24_000, 44_100, 48_000])
def test_a_stream_in_odd_pieces_is_the_whole_recording_at_the_new_rate(rate_hz):
    pcm = tone(rate_hz).tobytes()
    stream = Resampler(rate_hz, 8_000)
    pieces = [stream.push(pcm[at : at + 1_234]) for at in range(0, len(pcm), 1_234)]
    streamed = np.frombuffer(b"".join(pieces) + stream.flush(), np.int16)

    assert streamed.size == 8_000
    assert pitch_of(streamed, 8_000) == pytest.approx(440, abs=1)
    assert np.abs(streamed - resample(tone(rate_hz), rate_hz, 8_000).astype(np.int32)).max() <= 2


def test_a_flushed_stream_begins_anew():
    stream = Resampler(16_000, 8_000)
    first, second = (
        np.frombuffer(stream.push(tone(16_000).tobytes()) + stream.flush(), np.int16).astype(np.int32) for _ in range(2)
    )
    assert first.size == second.size == 8_000
    assert np.abs(first - second).max() <= 2  # soxr dithers


def test_what_lies_above_the_new_rate_is_gone():
    heard = resample(tone(22_050, hz=6_000), 22_050, 8_000)
    assert np.abs(heard[400:-400]).max() <= 2


def test_equal_rates_pass_through():
    stream = Resampler(8_000, 8_000)
    assert stream.push(b"\x01\x02") == b"\x01\x02"
    assert stream.flush() == b""


def test_half_a_sample_is_refused():
    with pytest.raises(BadAudio, match="no whole number"):
        Resampler(8_000, 16_000).push(b"abc")


def test_a_rate_that_cannot_be_is_refused():
    with pytest.raises(BadAudio, match="sample rate 0 Hz"):
        Resampler(0, 8_000)
    with pytest.raises(BadAudio, match="sample rate 999999 Hz"):
        resample(tone(8_000), 8_000, 999_999)
