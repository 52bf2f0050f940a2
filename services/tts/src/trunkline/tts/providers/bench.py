"""The `bench` provider: 2 s of tone for every sentence, instantly.

For load work, where real speech would cost more than what is measured.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from functools import cache
from typing import Final

import numpy as np

from trunkline.proto.agent import Tts
from trunkline.tts.provider import TtsCapabilities, TtsVoice

RATE_HZ: Final = 8_000
TONE_HZ: Final = 440
TONE_S: Final = 2
_AMPLITUDE: Final = 8_000


@cache
def _tone() -> bytes:
    at = np.arange(TONE_S * RATE_HZ) / RATE_HZ
    return (_AMPLITUDE * np.sin(2 * np.pi * TONE_HZ * at)).astype("<i2").tobytes()


class BenchVoice:
    """The tone."""

    sample_rate_hz: Final = RATE_HZ

    async def speak(self, text: AsyncIterable[str]) -> AsyncGenerator[bytes, None]:
        """Yield the tone, whole, once the sentence is written."""
        async for _ in text:
            pass
        yield _tone()

    async def aclose(self) -> None:
        """Hold nothing."""


class BenchProvider:
    """Any voice, any speed: the tone."""

    capabilities: Final = TtsCapabilities()

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Needs nothing of `environ`."""

    def check(self, tts: Tts) -> None:
        """Take any."""

    async def warm(self, tts: Tts) -> None:
        """Need nothing."""

    async def open(self, tts: Tts) -> TtsVoice:  # noqa: ARG002 - whatever the agent asks for
        """Return the tone."""
        return BenchVoice()

    async def aclose(self) -> None:
        """Hold nothing."""
