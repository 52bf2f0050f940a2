"""Loudness, and who speaks when by loudness."""

import numpy as np
import pytest

from trunkline.audio.errors import BadAudio
from trunkline.audio.levels import QUIETEST_DBFS, Span, Voicing, peak, rms_dbfs, silence, voiced_spans

pytestmark = pytest.mark.unit

RATE = 8_000


def tone(duration_ms, amplitude=10_000):
    at = np.arange(duration_ms * RATE // 1_000) / RATE
    return (amplitude * np.sin(2 * np.pi * 440 * at)).astype(np.int16).tobytes()


def test_a_full_scale_square_is_zero_and_a_sine_three_below():
    square = np.tile(np.array([32_767, -32_768], np.int16), 400)
    assert rms_dbfs(square) == pytest.approx(0, abs=0.01)
    assert rms_dbfs(tone(1_000, 32_767)) == pytest.approx(-3.01, abs=0.01)


def test_nothing_and_silence_measure_the_quietest():
    assert rms_dbfs(b"") == rms_dbfs(silence(20, RATE)) == QUIETEST_DBFS


def test_the_most_negative_sample_has_a_magnitude():
    assert peak(np.array([-32_768, 5], np.int16)) == 32_768
    assert peak(b"") == 0


def test_silence_is_as_long_as_asked():
    assert silence(20, RATE) == bytes(320)


def test_speech_is_found_between_silences():
    pcm = silence(500, RATE) + tone(400) + silence(1_000, RATE) + tone(300) + silence(200, RATE)
    assert voiced_spans(pcm, RATE) == [Span(500, 900), Span(1_900, 2_200)]


def test_short_pauses_are_bridged_and_clicks_are_not_speech():
    pcm = tone(200) + silence(100, RATE) + tone(200) + silence(500, RATE) + tone(20) + silence(500, RATE)
    assert voiced_spans(pcm, RATE) == [Span(0, 500)]


def test_the_threshold_decides():
    hum = tone(400, 100)
    assert voiced_spans(hum, RATE) == []
    assert voiced_spans(hum, RATE, Voicing(threshold_dbfs=-60)) == [Span(0, 400)]


def test_a_span_ends_with_the_recording():
    spans = voiced_spans(tone(210), RATE)
    assert spans == [Span(0, 210)]
    assert spans[0].duration_ms == 210


def test_half_a_sample_is_refused():
    with pytest.raises(BadAudio, match="1 bytes"):
        rms_dbfs(b"a")
