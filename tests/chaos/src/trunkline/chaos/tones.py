"""The TTS provider `tones`: every word is a chord of 160 ms and 40 ms of nothing, streamed faster than heard."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from functools import cache
from typing import Final

import numpy as np

from trunkline.chaos.codebook import PAUSE_MS, RATE_HZ, TONE_MS, WORD_MS, plain, tones_of
from trunkline.proto.agent import Tts
from trunkline.tts.provider import Points, Spoken, TtsCapabilities, TtsVoice

PIECE_MS: Final = 40
FASTER: Final = 4.0
FIRST_S: Final = 0.05
"""How long a voice thinks before its first sound."""
_AMPLITUDE: Final = 6_000
_PIECE_BYTES: Final = 2 * RATE_HZ * PIECE_MS // 1_000


@cache
def sound_of(word: str) -> bytes:
    """Return a word and the pause behind it, PCM16."""
    at = np.arange(RATE_HZ * TONE_MS // 1_000) / RATE_HZ
    tone = sum(np.sin(2 * np.pi * hz * at) for hz in tones_of(word))
    pause = np.zeros(RATE_HZ * PAUSE_MS // 1_000)
    return np.concatenate([_AMPLITUDE * tone, pause]).astype("<i2").tobytes()


class TonesVoice:
    """The chords."""

    sample_rate_hz: Final = RATE_HZ

    async def speak(self, text: AsyncIterable[str]) -> AsyncGenerator[Spoken, None]:
        """Yield the sentence; see `TtsVoice.speak`."""
        said = "".join([piece async for piece in text])
        words = plain(said.split())
        await asyncio.sleep(FIRST_S)
        yield _points(said)
        pcm = b"".join(map(sound_of, words))
        for begin in range(0, len(pcm), _PIECE_BYTES):
            yield pcm[begin : begin + _PIECE_BYTES]
            await asyncio.sleep(PIECE_MS / 1_000 / FASTER)

    async def aclose(self) -> None:
        """Hold nothing."""


def _points(said: str) -> Points:
    """Return where every word ends, in the text and in the sound."""
    points = []
    at = 0
    for number, word in enumerate(said.split()):
        at = said.index(word, at) + len(word)
        points.append((at, (number + 1) * WORD_MS))
    return Points(tuple(points))


class TonesProvider:
    """Any voice, any speed: the chords."""

    capabilities: Final = TtsCapabilities(word_times=True)

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Need nothing of `environ`."""

    def check(self, tts: Tts) -> None:
        """Take any."""

    async def warm(self, tts: Tts) -> None:
        """Need nothing."""

    async def open(self, tts: Tts) -> TtsVoice:  # noqa: ARG002 - whatever the agent asks for
        """Return the chords."""
        return TonesVoice()

    async def aclose(self) -> None:
        """Hold nothing."""
