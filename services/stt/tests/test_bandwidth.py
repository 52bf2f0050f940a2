import numpy as np
import pytest

from trunkline.stt.providers.bandwidth import WIDE_HZ, widen

pytestmark = pytest.mark.unit


def upper_share(wide):
    """Share of the energy that lies above 4.2 kHz."""
    power = np.abs(np.fft.rfft(np.frombuffer(wide, "<i2").astype(float))) ** 2
    return power[int(4_200 / (WIDE_HZ / 2) * power.size) :].sum() / power.sum()


def tone(hz, seconds=1.0, level=8_000):
    return (np.sin(2 * np.pi * hz * np.arange(int(8_000 * seconds)) / 8_000) * level).astype("<i2").tobytes()


def test_it_lasts_as_long_with_400_ms_more():
    assert len(widen(tone(300))) == 2 * int(WIDE_HZ * 1.4)


def test_a_vowel_gets_no_upper_band_and_a_sibilant_gets_one():
    assert upper_share(widen(tone(500))) < 0.01
    assert upper_share(widen(tone(3_600))) > 0.5


def test_quiet_and_loud_speech_end_up_at_one_level():
    quiet, loud = (np.abs(np.frombuffer(widen(tone(500, level=level)), "<i2")).max() for level in (800, 20_000))
    assert quiet == pytest.approx(loud, rel=0.1)


def test_the_same_audio_gives_the_same_samples():
    assert widen(tone(440)) == widen(tone(440))


@pytest.mark.parametrize("pcm", [b"", b"\0\0" * 10, bytes(320)])
def test_next_to_nothing_is_no_trouble(pcm):
    assert len(widen(pcm)) == 2 * (len(pcm) + 6_400)
