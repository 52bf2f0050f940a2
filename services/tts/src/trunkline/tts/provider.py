"""What a text-to-speech provider is: the seam between a call's speech and whoever makes the sound.

A provider is one per process, a voice one per call. Retries, queues, chunk sizes, the telephone's rate, interrupts and
metrics are not its business: it turns a sentence into samples and stops when told.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping
from typing import Final, Literal, Protocol

import msgspec

from trunkline.proto.agent import Tts
from trunkline.runtime.plugins import Found, Plugins


class TtsCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider can do, as data."""

    model: str = ""
    """The one that is asked where the agent names none; what is used of it is priced by this name."""
    adjusts: frozenset[Literal["speed", "pitch", "language"]] = frozenset()
    """Which of the agent's settings it honours; the others are ignored, with a warning."""
    sentence_gap_ms: int = 0
    """Silence to put between two sentences of one turn; 0 when its audio ends with a pause of its own."""
    streams_text: bool = False
    """Whether it begins to speak a sentence that is still being written; others are given each sentence whole."""
    word_times: bool = False
    """Whether `Points` come."""
    usage: bool = False
    """Whether `Billed` comes; otherwise the characters given to it are counted."""


class Points(msgspec.Struct, frozen=True):
    """How far the sentence's text is spoken at which point of its audio: ``(characters, ms)``, both rising."""

    points: tuple[tuple[int, int], ...]


class Billed(msgspec.Struct, frozen=True):
    """Characters the provider charges for this sentence, by its own figure."""

    characters: int


Spoken = bytes | Points | Billed
"""Mono PCM16 little-endian, any size; or what is known about it."""


class TtsVoice(Protocol):
    """A voice, opened for one call. One sentence is spoken at a time."""

    @property
    def sample_rate_hz(self) -> int:
        """Rate of what `speak` yields; fixed for the life of the voice."""
        ...

    def speak(self, text: AsyncIterable[str]) -> AsyncGenerator[Spoken, None]:
        """Yield the sentence as sound, in pieces of any size, each as soon as it exists.

        `text` is the sentence: put together, one line without control characters, never empty and at most 1000
        characters long. It comes in one piece, or, with `streams_text`, in pieces as it is written, cut between words.
        Closing the generator, or cancelling whoever waits for it, stops the synthesis itself, promptly, and leaves the
        voice ready for the next sentence. Nothing to pronounce yields nothing. Time-outs, retries and other providers
        are not its business.

        Raises:
            ProviderError: the sentence cannot be spoken, or only what has been yielded of it; the next one may be.
        """
        ...

    async def aclose(self) -> None:
        """Give back what the call held, within a second."""
        ...


class TtsProvider(Protocol):
    """A way to make speech. Made once per process by ``Provider(environ)``, which imports its SDK, connects nowhere."""

    @property
    def capabilities(self) -> TtsCapabilities:
        """What it can do."""
        ...

    def check(self, tts: Tts) -> None:
        """Say before any call what would go wrong in one. Does no I/O.

        Raises:
            Misconfigured: `tts` asks for what is not there, or a setting (a key) is missing; names it.
        """
        ...

    async def warm(self, tts: Tts) -> None:
        """A call as `tts` describes is about to come: open what can be opened beforehand. Never raises."""
        ...

    async def open(self, tts: Tts) -> TtsVoice:
        """Return the voice `tts` describes; at once, what connection it needs is made behind it.

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
    "deepgram": "trunkline.tts.providers.deepgram:AuraProvider",
    "openai": "trunkline.tts.providers.openai:OpenAiProvider",
    "openai-compatible": "trunkline.tts.providers.openai:CompatibleProvider",
    "elevenlabs": "trunkline.tts.providers.elevenlabs:ElevenLabsProvider",
}


def providers(environ: Mapping[str, str], installed: Iterable[Found] | None = None) -> Plugins[TtsProvider]:
    """Return the providers of a process; others come as entry points of the group ``trunkline.tts_providers``."""
    return Plugins("tts.provider", "trunkline.tts_providers", _OURS, environ, installed)
