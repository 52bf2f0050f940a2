"""A sentence's samples, as they come from a provider, made into the chunks that travel to the edge. Pure.

Chunks are PCM16 at the telephone's 8 kHz, 160 ms each, so that a call costs six messages a second and not fifty; the
first one is 40 ms, so that speech starts early. What is left at the end, often nothing, is the last chunk.
"""

from typing import Final

from trunkline.audio.framing import Framer
from trunkline.audio.levels import silence
from trunkline.audio.resample import Resampler

RATE_HZ: Final = 8_000
CHUNK_MS: Final = 160
FIRST_CHUNK_MS: Final = 40
BYTES_PER_MS: Final = 2 * RATE_HZ // 1_000


class SentenceChunks:
    """The chunks of one sentence that comes at `rate_hz`, after `gap_ms` of silence."""

    def __init__(self, rate_hz: int, gap_ms: int = 0) -> None:
        self._resampler = Resampler(rate_hz, RATE_HZ)
        self._framer = Framer(CHUNK_MS * BYTES_PER_MS, first_bytes=FIRST_CHUNK_MS * BYTES_PER_MS)
        self._gap = silence(gap_ms, RATE_HZ)

    def push(self, pcm: bytes) -> list[bytes]:
        """Return the chunks that `pcm` completes.

        Raises:
            BadAudio: `pcm` is no whole number of samples.
        """
        gap, self._gap = self._gap, b""
        return self._framer.push(gap + self._resampler.push(pcm))

    def end(self) -> list[bytes]:
        """Return the chunks still owed; there is at least one, and the last may be empty."""
        return [*self._framer.push(self._resampler.flush()), self._framer.rest()]
