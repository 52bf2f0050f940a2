import numpy as np
import pytest

from trunkline.audio.g711 import pcm16_to_mulaw
from trunkline.chaos.codebook import LINES, WORDS, answer, text_of, words_in
from trunkline.chaos.ear import FRAME_SAMPLES, STRANGE, WHOLE_FRAMES, listen
from trunkline.chaos.tones import sound_of

pytestmark = pytest.mark.unit


def heard(pcm):
    mulaw = pcm16_to_mulaw(pcm)
    times = [frame * 0.02 for frame in range(len(mulaw) // FRAME_SAMPLES)]
    return listen(mulaw, times)


def texts(pcm):
    return [word.text for word in heard(pcm).words]


def test_every_word_is_heard_as_itself():
    pcm = b"".join(map(sound_of, WORDS))
    assert texts(pcm) == list(WORDS)
    assert all(word.frames == WHOLE_FRAMES for word in heard(pcm).words)
    assert heard(pcm).two_voices == ()


@pytest.mark.parametrize("late", [1, 40, 80, 133])
def test_words_that_begin_within_a_frame_are_heard_once(late):
    pcm = bytes(2 * late) + b"".join(map(sound_of, WORDS[:40]))
    words = [word for word in heard(pcm).words if word.counts]
    assert [word.text for word in words] == list(WORDS[:40])


def test_a_lost_word_and_a_repeated_word_show():
    a, b, c = WORDS[3], WORDS[77], WORDS[141]
    assert texts(sound_of(a) + sound_of(c)) == [a, c]
    assert texts(sound_of(a) + sound_of(b) + sound_of(b) + sound_of(c)) == [a, b, b, c]


def test_a_word_with_a_hole_is_one_word():
    sound = sound_of(WORDS[9])
    cut = 2 * 3 * FRAME_SAMPLES
    (word,) = heard(sound[:cut] + bytes(16_000) + sound[cut:]).words
    assert (word.text, word.frames) == (WORDS[9], WHOLE_FRAMES)


def test_less_than_half_a_word_does_not_count():
    (word,) = heard(sound_of(WORDS[9])[: 2 * 3 * FRAME_SAMPLES]).words
    assert not word.counts


def test_two_words_at_once_are_two_voices():
    mixed = sum(np.frombuffer(sound_of(word), "<i2").astype(int) for word in (WORDS[3], WORDS[140]))
    assert heard(mixed.astype("<i2").tobytes()).two_voices


def test_a_word_of_nobodys_is_a_stranger():
    assert texts(sound_of("sorry")) == [STRANGE]


def test_silence_and_hiss_are_no_words():
    hiss = np.random.default_rng(1).normal(0, 30, 80_000)
    assert texts(hiss.astype("<i2").tobytes()) == []


def test_answers_of_a_call_share_no_word_with_each_other_or_with_the_lines():
    said = [word for question in range(8) for word in answer("a-call", question)]
    said += [word for line in LINES for word in words_in(line)]
    assert len(set(said)) == len(said)


def test_the_rest_of_an_answer_has_the_rest_of_its_sentences():
    words = answer("a-call", 0)
    assert text_of(words).count(".") == 3
    assert text_of(words[5:]).count(".") == 3
    assert text_of(words[8:]).count(".") == 2
    assert words_in(text_of(words[5:])) == words[5:]
