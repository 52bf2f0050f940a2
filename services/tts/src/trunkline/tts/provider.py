"""What a text-to-speech provider is: the seam between a call's speech and whoever makes the sound.

A provider is one per process, a voice one per call. Retries, queues, chunk sizes, the telephone's rate, interrupts and
metrics are not its business: it turns a sentence into samples and stops when told.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Final, Literal, Protocol

import msgspec

from trunkline.proto.agent import Tts
from trunkline.runtime.plugins import Found, Plugins


class TtsCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider can do, as data."""

    adjusts: frozenset[Literal["speed", "pitch"]] = frozenset()
    """Which of the agent's settings it honours; the others are ignored, with a warning."""
    sentence_gap_ms: int = 0
    """Silence to put between two sentences of one turn; 0 when its audio ends with a pause of its own."""


class TtsVoice(Protocol):
    """A voice, opened for one call. One sentence is spoken at a time."""

    @property
    def sample_rate_hz(self) -> int:
        """Rate of what `speak` yields; fixed for the life of the voice."""
        ...

    def speak(self, text: str) -> AsyncGenerator[bytes, None]:
        """Yield `text` as mono PCM16 little-endian, in pieces of any size, each as soon as it exists.

        `text` is one line without control characters, never empty and at most 1000 characters long. Closing the
        generator, or cancelling whoever waits for it, stops the synthesis itself, promptly, and leaves the voice ready
        for the next sentence. Nothing to pronounce yields nothing.

        Raises:
            SynthesisFailed: the sentence cannot be spoken; the next one may be.
        """
        ...

    async def aclose(self) -> None:
        """Give back what the call held."""
        ...


class TtsProvider(Protocol):
    """A way to make speech. Constructed without arguments, when the first call asks for it."""

    @property
    def capabilities(self) -> TtsCapabilities:
        """What it can do."""
        ...

    async def open(self, tts: Tts) -> TtsVoice:
        """Return the voice `tts` describes.

        Raises:
            Misconfigured: there is no such voice.
            Unavailable: the provider cannot work here.
        """
        ...

    async def aclose(self) -> None:
        """Give back what the process held."""
        ...


_OURS: Final = {
    "local": "trunkline.tts.providers.local:LocalProvider",
    "bench": "trunkline.tts.providers.bench:BenchProvider",
}


def providers(environ: Mapping[str, str], installed: Iterable[Found] | None = None) -> Plugins[TtsProvider]:
    """Return the providers of a process; others come as entry points of the group ``trunkline.tts_providers``."""
    return Plugins("tts.provider", "trunkline.tts_providers", _OURS, environ, installed)
