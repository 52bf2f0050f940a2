import numpy as np
import pytest

from trunkline.providers.errors import Unavailable
from trunkline.stt.intake import PCM_BYTES
from trunkline.stt.vad import VoiceDetector

pytestmark = pytest.mark.unit


def frames_of(pcm):
    return [pcm[at : at + PCM_BYTES] for at in range(0, len(pcm) - PCM_BYTES + 1, PCM_BYTES)]


def alone(pcm):
    detector = VoiceDetector(1)
    row = detector.join()
    return [detector.probabilities([row], [frame])[0] for frame in frames_of(pcm)]


def test_speech_is_voice_and_silence_and_hiss_are_not(voice):
    assert max(alone(voice.say("hello i would like to book a table"))) > 0.95
    assert max(alone(bytes(16_000))) < 0.1
    hiss = (np.random.default_rng(1).standard_normal(16_000) * 300).astype("<i2").tobytes()
    assert max(alone(hiss)) < 0.4


def test_a_batch_hears_what_each_call_alone_would(voice):
    calls = [frames_of(voice.say(text)) for text in ("yes please", "for two people", "my name is smith")]
    expected = [alone(b"".join(call)) for call in calls]
    detector = VoiceDetector(5)
    other = detector.join()
    rows = [detector.join() for _ in calls]
    detector.leave(other)
    heard = [[] for _ in calls]
    for step in range(max(map(len, calls))):
        # Calls begin at different beats, so that batches of every size and order occur.
        present = [n for n in (2, 0, 1) if 0 <= step - 3 * n < len(calls[n])]
        if present:
            answer = detector.probabilities([rows[n] for n in present], [calls[n][step - 3 * n] for n in present])
            for n, probability in zip(present, answer, strict=True):
                heard[n].append(probability)
    for n, probabilities in enumerate(heard):
        assert probabilities == pytest.approx(expected[n][: len(probabilities)], abs=1e-4)
        assert len(probabilities) > 20


def test_a_row_that_is_used_again_remembers_nothing(voice):
    pcm = voice.say("yes please")
    detector = VoiceDetector(1)
    for _ in range(2):
        row = detector.join()
        assert [detector.probabilities([row], [frame])[0] for frame in frames_of(pcm)] == pytest.approx(alone(pcm))
        detector.leave(row)


def test_a_row_that_is_reset_hears_as_if_it_had_heard_nothing_and_its_neighbour_hears_on(voice):
    frames = frames_of(voice.say("hello i would like to book a table"))
    detector = VoiceDetector(2)
    rows = detector.join(), detector.join()
    heard = []
    for n, frame in enumerate(frames):
        if n == 30:
            detector.reset(rows[1])
        heard.append(detector.probabilities(rows, [frame, frame]))
    assert [one for one, _ in heard] == pytest.approx(alone(b"".join(frames)), abs=1e-4)
    assert [other for _, other in heard[30:]] == pytest.approx(alone(b"".join(frames[30:])), abs=1e-4)
    assert heard[30][0] != pytest.approx(heard[30][1], abs=1e-2)


def test_a_full_detector_says_so():
    detector = VoiceDetector(1)
    detector.join()
    with pytest.raises(Unavailable):
        detector.join()
