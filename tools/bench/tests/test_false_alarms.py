"""What is counted of two listeners, and what they listen to."""

import numpy as np
import pytest

from tools.bench.peers.clips import NOISES, SPEECH, Clip, noises
from tools.bench.peers.false_alarms import judged, ours
from tools.bench.peers.tones import RATE_HZ
from trunkline.stt.endpointing import Rules

pytestmark = pytest.mark.unit

QUIET = np.zeros(2 * RATE_HZ, np.int16)


def test_an_onset_before_anybody_speaks_is_a_false_alarm_and_the_next_one_counts():
    clips = [Clip(SPEECH, QUIET, 8_000), Clip(SPEECH, QUIET, 8_000), Clip("hiss", QUIET, None)]
    heard = judged("somebody", clips, [[4_000, 8_800], [7_000], [1_000, 2_000]])
    assert heard.missed == 1
    assert heard.onset_ms == {"p50": 100.0, "p95": 100.0, "p100": 100.0}
    assert heard.false_alarms == {"hiss": 2, "before speech": 2}
    assert heard.per_minute == 60.0


def test_who_hears_nobody_has_no_times():
    heard = judged("nobody", [Clip(SPEECH, QUIET, 8_000)], [[]])
    assert (heard.missed, heard.onset_ms) == (1, {})


def test_every_noise_is_as_loud_as_it_should_be_and_the_same_each_time():
    first, second = list(noises()), list(noises())
    assert [clip.kind for clip in first] == [kind for kind in NOISES for _ in range(3)]
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.samples, other.samples)
        assert one.first is None
    loudest = [
        max(np.sqrt(np.mean(tenth.astype(float) ** 2)) for tenth in np.split(clip.samples, 200)) for clip in first
    ]
    assert 20 * np.log10(np.array(loudest) / 32_768) == pytest.approx([-20.0, -32.0, -44.0] * len(NOISES), abs=1.0)


def test_our_listener_believes_in_no_silence():
    assert ours(Clip("hiss", QUIET, None), Rules()) == []
