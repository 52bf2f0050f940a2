from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from trunkline.audio.resample import resample
from trunkline.testing.nats_server import run_nats
from trunkline.tts.providers.espeak import espeak

GRAMMAR = """\
#JSGF V1.0;
grammar booking;
public <turn> = [hello] <request> [please] | yes [please] | no [thank you] | thank you goodbye;
<request> = i would like to book a table | a table for <count> people | for <count> people
          | <day> [evening] at <hour> [thirty] | my name is <name> | what time do you close | cancel my booking;
<count> = two | three | four | five | six;
<day> = today | tomorrow | monday | friday | saturday;
<hour> = seven | eight | nine;
<name> = smith | miller | anna;
"""
PHRASES = (
    "hello i would like to book a table",
    "a table for four people please",
    "for two people",
    "friday evening at seven thirty",
    "tomorrow at eight",
    "my name is smith",
    "yes please",
    "what time do you close",
    "cancel my booking please",
    "thank you goodbye",
)


class Voice:
    """Says things as a telephone would deliver them."""

    def __init__(self) -> None:
        self._espeak = espeak()
        self.say = cache(self._say)

    def _say(self, text: str, voice: str = "en-gb", lead_ms: int = 400, tail_ms: int = 1_000) -> bytes:
        blocks: list[bytes] = []

        def emit(block: bytes) -> bool:
            blocks.append(block)
            return True

        self._espeak.synthesise(text, self._espeak.resolve(voice), emit)
        wide = np.frombuffer(b"".join(blocks), np.int16)
        narrow = (resample(wide, self._espeak.sample_rate_hz, 8_000) * 0.6).astype("<i2").tobytes()
        pcm = bytes(16 * lead_ms) + narrow + bytes(16 * tail_ms)
        return pcm[: len(pcm) // 512 * 512]


@pytest.fixture(scope="session")
def voice() -> Voice:
    return Voice()


@pytest.fixture(scope="session")
def grammar() -> str:
    return GRAMMAR


@pytest.fixture(scope="session")
def phrases() -> tuple[str, ...]:
    return PHRASES


@pytest.fixture(scope="session")
def nats_url() -> Iterator[str]:
    with run_nats() as server:
        yield server.url
