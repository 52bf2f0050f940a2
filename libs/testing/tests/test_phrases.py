"""An ear that was taught what its caller says."""

import asyncio
from itertools import pairwise

import numpy as np
import pytest

from trunkline.audio.g711 import mulaw_to_pcm16, pcm16_to_mulaw
from trunkline.call.scenario import Scenario, Step, Voice
from trunkline.call.speech import prepare_speech
from trunkline.testing.providers.phrases import Phrases

pytestmark = pytest.mark.integration  # espeak's voice

LINES = (
    "I would like to book a table for four people",
    "I would like to book a table for six people on Friday",
    "at eight o'clock please",
    "my name is Anna Miller",
    "no wait",
    "yes",
)


@pytest.fixture(scope="module")
def sounds():
    steps = tuple(Step(say=line) for line in LINES)
    clips = asyncio.run(prepare_speech(Scenario(name="lines", agent="a", caller=Voice(), steps=steps)))
    return {line: clips[number] for number, line in enumerate(LINES)}


def over_the_line(samples):
    return np.frombuffer(mulaw_to_pcm16(pcm16_to_mulaw(samples.astype("<i2").tobytes())), "<i2")


def listen(ear, sound, step=160):
    hearing = ear()
    seen = []
    for at in range(0, len(sound), step):
        hearing.push(sound[at : at + step])
        seen.append(" ".join(word.text for word in hearing.heard))
    return hearing, seen


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("offset", [0, 37, 100])
def test_every_phrase_is_heard_word_for_word_wherever_it_begins(sounds, line, offset):
    silence = np.zeros(4_000 + offset, np.int16)
    sound = np.concatenate((silence, over_the_line(sounds[line]), np.zeros(5_000, np.int16)))
    hearing, seen = listen(Phrases(sounds), sound)
    assert seen[-1] == line
    words = hearing.heard
    assert all(a.end_s <= b.end_s for a, b in pairwise(words))
    assert words[-1].end_s <= (len(silence) + len(sounds[line])) / 8_000 + 0.05


def test_words_come_one_by_one_while_it_is_said(sounds):
    line = LINES[1]
    _, seen = listen(Phrases(sounds), np.concatenate((over_the_line(sounds[line]), np.zeros(5_000, np.int16))))
    counts = [len(text.split()) for text in seen]
    assert len(set(counts)) >= 6
    assert line.startswith(seen[len(seen) // 3])


def test_two_phrases_are_two(sounds):
    gap = np.zeros(6_000, np.int16)
    sound = np.concatenate((over_the_line(sounds["no wait"]), gap, over_the_line(sounds["yes"]), gap))
    assert listen(Phrases(sounds), sound)[1][-1] == "no wait yes"


def test_what_was_never_taught_is_heard_as_nothing(sounds):
    noise = (np.random.default_rng(1).standard_normal(16_000) * 3_000).astype(np.int16)
    assert listen(Phrases(sounds), np.concatenate((noise, np.zeros(5_000, np.int16))))[1][-1] == ""
