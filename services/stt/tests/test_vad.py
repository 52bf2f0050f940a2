import numpy as np
import pytest

from trunkline.providers.errors import Unavailable
from trunkline.stt.endpointing import LEAD_BLOCKS
from trunkline.stt.intake import BLOCK_BYTES
from trunkline.stt.vad import VoiceDetector

pytestmark = pytest.mark.unit


def blocks_of(pcm):
    return [pcm[at : at + BLOCK_BYTES] for at in range(0, len(pcm) - BLOCK_BYTES + 1, BLOCK_BYTES)]


def alone(pcm):
    detector = VoiceDetector(1)
    row = detector.join()
    return [detector.probabilities([row], [block])[0] for block in blocks_of(pcm)]


def test_speech_is_voice_and_silence_and_hiss_are_not(voice):
    assert max(alone(voice.say("hello i would like to book a table"))) > 0.95
    assert max(alone(bytes(16_000))) < 0.1
    hiss = (np.random.default_rng(1).standard_normal(16_000) * 300).astype("<i2").tobytes()
    assert max(alone(hiss)) < 0.4


def test_a_batch_hears_what_each_call_alone_would(voice):
    calls = [blocks_of(voice.say(text)) for text in ("yes please", "for two people", "my name is smith")]
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
        assert [detector.probabilities([row], [block])[0] for block in blocks_of(pcm)] == pytest.approx(alone(pcm))
        detector.leave(row)


def test_blocks_heard_anew_at_once_are_heard_as_one_after_the_other(voice):
    blocks = blocks_of(voice.say("hello i would like to book a table"))
    one_by_one, at_once = VoiceDetector(3), VoiceDetector(3)
    for detector in (one_by_one, at_once):
        other, row = detector.join(), detector.join()
        detector.probabilities([other, row], [blocks[20], blocks[30]])  # what is to be forgotten, and what is not
    begun, going_on = blocks[8 : 8 + LEAD_BLOCKS], blocks[8 + LEAD_BLOCKS :]
    one_by_one.reset(row)
    expected = [one_by_one.probabilities([row], [block])[0] for block in begun]
    assert at_once.hear_anew(row, begun) == pytest.approx(expected, abs=1e-5)
    for block in going_on:
        both = at_once.probabilities([other, row], [block, block])
        assert both == pytest.approx(one_by_one.probabilities([other, row], [block, block]), abs=1e-4)
    assert at_once.hear_anew(row, []) == []
    assert at_once.probabilities([row], blocks[:1]) == pytest.approx(alone(blocks[0]), abs=1e-5)


def test_a_full_detector_says_so():
    detector = VoiceDetector(1)
    detector.join()
    with pytest.raises(Unavailable):
        detector.join()
