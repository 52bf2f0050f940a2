"""What callers say to the demo agent is heard: its grammar, with the real recogniser and espeak-ng's voices."""

import tomllib
from pathlib import Path

import numpy as np
import pytest

from trunkline.audio.g711 import mulaw_to_pcm16, pcm16_to_mulaw
from trunkline.audio.resample import resample
from trunkline.stt.providers.decoder import Decoder, Question, Want
from trunkline.tts.providers.espeak import espeak

pytestmark = pytest.mark.integration

AGENT_FILE = Path(__file__).parents[3] / "agents" / "restaurant.toml"
GRAMMAR: str = tomllib.loads(AGENT_FILE.read_text())["stt"]["grammar"]
VOICES = ("en-us", "en-us+f2", "en-us+m3")
RATE_HZ = 8_000
PHRASES = """
good evening i would like to book a table for four people please
hello i'd like to book a table
can i make a reservation for two people on saturday
could i get a table for six people on friday evening
i want to book a table for friday
a table for three people tomorrow at seven o'clock
on friday at eight o'clock
for four people
four people please
four
two
on saturday
tomorrow evening
half past seven
at half past seven please
at eight o'clock
quarter to nine
seven thirty
yes please
yes that's right
yes that would be great
no thank you
no for five people
actually make it six people
sorry i meant saturday
no make it half past eight
oh wait for three people
actually on sunday at six o'clock
my name is anna miller
under the name of johnson
it's david brown
oliver
the name is laura wilson
what are your opening hours
where are you
do you have vegetarian food
is there parking
sorry what did you say
could you repeat that please
can i change the time
thank you goodbye
no that's all thank you goodbye
goodbye
there will be five of us
never mind goodbye
actually on sunday at nine o'clock
actually make it five people
no that's not right
for two people on thursday at quarter past six
wednesday evening please
i would like to book a table for three people tomorrow at half past six
thomas anderson
hello
six people please
on tuesday at eight thirty
hello i would like to book a table for four people please
on friday evening at half past seven
sorry make it five people
i have to go goodbye
i would like to book a table for two on friday at half past seven please
""".strip().splitlines()


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder()


def on_the_telephone(phrase: str, voice: str) -> bytes:
    """Return `phrase` as it arrives: 8 kHz, through μ-law, noise at -60 dBFS and 300 ms before and after."""
    blocks: list[bytes] = []
    library = espeak()
    library.synthesise(phrase, library.resolve(voice, 0.9), lambda block: blocks.append(block) is None)
    speech = resample(np.frombuffer(b"".join(blocks), "<i2"), library.sample_rate_hz, RATE_HZ)
    padded = np.pad(speech, RATE_HZ * 3 // 10).astype("<i2")
    heard = np.frombuffer(mulaw_to_pcm16(pcm16_to_mulaw(padded.tobytes())), "<i2")
    noise = np.random.default_rng(len(heard)).normal(0, 32_768 * 10 ** (-60 / 20), len(heard))
    return bytes(np.clip(heard + noise, -32_768, 32_767).astype("<i2").tobytes())


def test_every_word_of_the_grammar_is_in_the_dictionary(decoder: Decoder) -> None:
    assert decoder.answer(Question(Want.VERDICT, GRAMMAR)).problem == ""


def test_six_phrases_of_seven_are_heard_word_for_word(decoder: Decoder) -> None:
    automaton = decoder.answer(Question(Want.AUTOMATON, GRAMMAR)).automaton
    misheard: list[tuple[str, str, str]] = []
    for voice in VOICES:
        for phrase in PHRASES:
            pcm = on_the_telephone(phrase, voice)
            answer = decoder.answer(Question(Want.WORDS, GRAMMAR, pcm, automaton))
            if answer.text != phrase:
                misheard.append((voice, phrase, answer.text))
    # Most of what remains is "six" behind a t ("past six"), heard as "eight". The synthesiser speaks each phrase a
    # little differently in each process: nine of ten are usual, now and then some less.
    assert len(misheard) <= len(PHRASES) * len(VOICES) / 7, misheard
