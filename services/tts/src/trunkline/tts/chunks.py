"""A sentence's samples, as they come from a provider, made into the chunks that travel to the edge. Pure.

Chunks are PCM16 at the telephone's 8 kHz, 160 ms each, so that a call costs six messages a second and not fifty; the
first one is 40 ms, so that speech starts early. What is left at the end, often nothing, is the last chunk.
"""

from typing import Final

from trunkline.audio.framing import Framer
from trunkline.audio.resample import Resampler

RATE_HZ: Final = 8_000
CHUNK_MS: Final = 160
FIRST_CHUNK_MS: Final = 40
BYTES_PER_MS: Final = 2 * RATE_HZ // 1_000
LONGEST_MS: Final = 300_000
"""Of one sentence; who sends more has lost count."""


class LineRate:
    """A provider's samples at `rate_hz`, made into the telephone's. Its pieces may end in the midst of a sample."""

    def __init__(self, rate_hz: int) -> None:
        self._resampler = Resampler(rate_hz, RATE_HZ)
        self._half = b""

    def push(self, pcm: bytes) -> bytes:
        """Return the samples that `pcm` makes available; may be none."""
        held = self._half + pcm
        whole = len(held) // 2 * 2
        self._half = held[whole:]
        return self._resampler.push(held[:whole])

    def end(self) -> bytes:
        """Return what was held back."""
        return self._resampler.flush()


class SentenceChunks:
    """The chunks of one utterance: of all that is heard as part of it, whoever made it."""

    def __init__(self) -> None:
        self._framer = Framer(CHUNK_MS * BYTES_PER_MS, first_bytes=FIRST_CHUNK_MS * BYTES_PER_MS)
        self._bytes = 0

    @property
    def ms(self) -> float:
        """How much was pushed so far."""
        return self._bytes / BYTES_PER_MS

    def push(self, pcm: bytes) -> list[bytes]:
        """Return the chunks that `pcm`, whole samples at the telephone's rate, completes."""
        self._bytes += len(pcm)
        return self._framer.push(pcm)

    def rest(self) -> bytes:
        """Return what waits for more, maybe nothing."""
        return self._framer.rest()
