"""What a speech-to-text provider is: the seam between a call's hearing and whoever finds the words.

A provider is one per process, a stream one per call. Two kinds fit:

- utterance mode (`needs_vad_segments`): it is given the audio of each utterance, with 300 ms before it, between `begin`
  and `finish`, and nothing else;
- continuous: it is given all the audio of the call, and `begin` and `finish` only tell it where utterances lie, so that
  it can ask its service for the final at once (Deepgram's ``Finalize``, a commit elsewhere).

Words come back through the callback given to `open`, in the event loop, at any time. Voice activity, endpointing,
time-outs, retries, other providers, order on the bus and metrics are not a provider's business: when its connection
breaks it says `Lost`, and does not connect again. A provider that brings its own settings reads
them from the `environ` it is constructed with.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final as Constant
from typing import Protocol

import msgspec

from trunkline.proto.agent import Stt
from trunkline.proto.ids import UtteranceId
from trunkline.providers.errors import ProviderError
from trunkline.runtime.plugins import Found, Plugins

RATE_HZ: Constant = 8_000
"""Of all that is heard, since a telephone has no more."""
BYTES_PER_S: Constant = 2 * RATE_HZ


class SttCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider can do, as data."""

    model: str = ""
    """The one that is asked where the agent names none; what is used of it is priced by this name."""
    interim_results: bool = False
    """Whether `Partial`s come."""
    needs_vad_segments: bool = True
    """Whether it hears utterances only; otherwise it hears everything."""
    word_times: bool = False
    """Whether `Final.words` is filled."""
    turn_events: bool = False
    """Whether it judges by itself that the caller's turn is over (`TurnOver`)."""
    usage: bool = False
    """Whether `Billed` comes; otherwise the audio pushed to it is counted."""
    languages: frozenset[str] | None = None
    """Languages it takes, ISO 639-1; None: it says itself at `open`."""
    honours: frozenset[str] = frozenset()
    """Which of the agent's settings `grammar`, `language`, `keyterms` and `model` it heeds; the others are ignored,
    with a warning."""


class Word(msgspec.Struct, frozen=True):
    """A word and where it lies in its utterance's audio."""

    text: str
    start_ms: int
    end_ms: int


class Partial(msgspec.Struct, frozen=True):
    """Words of an utterance so far; the next ones replace them."""

    utterance: UtteranceId
    text: str


class Final(msgspec.Struct, frozen=True):
    """All words of an utterance; empty when there were none. Exactly one per `finish`, unless it is given up first."""

    utterance: UtteranceId
    text: str
    confidence: float | None = None
    words: tuple[Word, ...] = ()


class TurnOver(msgspec.Struct, frozen=True):
    """The provider's own judgement that the caller has finished the turn `utterance` belongs to.

    The utterance is finished at once, if it is not yet; its `Final` follows the `finish`, as always.
    """

    utterance: UtteranceId


class Failed(msgspec.Struct, frozen=True):
    """In place of a `Final`: this utterance's words will not come. The stream goes on with the next."""

    utterance: UtteranceId
    error: ProviderError


class Lost(msgspec.Struct, frozen=True):
    """The stream is of no use any more: never connected, refused, broken. Nothing is told after this."""

    error: ProviderError


class Billed(msgspec.Struct, frozen=True):
    """Seconds of audio the provider charges for in this stream so far, by its own figure."""

    audio_s: float


Heard = Partial | Final | TurnOver | Failed | Lost | Billed
OnHeard = Callable[[Heard], None]


class SttStream(Protocol):
    """One call's ear. Nothing but `aclose` may block, and nothing may raise; trouble is told as `Failed` or `Lost`."""

    def begin(self, utterance: UtteranceId) -> None:
        """Take what is pushed from now on as `utterance`. Earlier ones may still await their final."""
        ...

    def push(self, pcm: bytes, *, voiced: bool) -> None:
        """Take audio: PCM16 little-endian at 8 kHz, any length, in order; `voiced` is the voice detector's opinion.

        It may come before there is a connection, and faster than real time (audio that is heard again): 10 s at once
        are kept, what is older is dropped.
        """
        ...

    def finish(self) -> None:
        """The utterance is over: tell its `Final` as soon as it can be known."""
        ...

    def give_up(self, utterance: UtteranceId) -> None:
        """Nobody waits for the words of `utterance`, which is over, any more: spend nothing further on them."""
        ...

    async def aclose(self) -> None:
        """Forget the call; nothing is told after this. Returns within a second, whatever the other side does."""
        ...


class SttProvider(Protocol):
    """A way to find words. Made once per process by ``Provider(environ)``, which imports its SDK, connects nowhere."""

    @property
    def capabilities(self) -> SttCapabilities:
        """What it can do."""
        ...

    def check(self, stt: Stt) -> None:
        """Say before any call what would go wrong in one. Does no I/O.

        Raises:
            Misconfigured: `stt` asks for what is not there, or a setting (a key) is missing; names it.
        """
        ...

    async def warm_up(self) -> None:
        """Load what would make the first call wait.

        Raises:
            Unavailable: it cannot work here.
        """
        ...

    async def warm(self, stt: Stt) -> None:
        """A call as `stt` describes is about to come: open what can be opened beforehand. Never raises."""
        ...

    async def open(self, stt: Stt, on_heard: OnHeard) -> SttStream:
        """Return an ear for one call, as `stt` describes it; at once, the connection is made behind it.

        Raises:
            Misconfigured: a setting cannot be honoured.
            Unavailable: it cannot work here.
        """
        ...

    async def aclose(self) -> None:
        """Give back what the process held."""
        ...


_OURS: Constant = {
    "local": "trunkline.stt.providers.local:LocalProvider",
    "bench": "trunkline.stt.providers.bench:BenchProvider",
    "deepgram": "trunkline.stt.providers.deepgram:DeepgramProvider",
    "deepgram-flux": "trunkline.stt.providers.flux:FluxProvider",
    "openai": "trunkline.stt.providers.openai:OpenAiProvider",
    "openai-compatible": "trunkline.stt.providers.openai:CompatibleProvider",
    "elevenlabs": "trunkline.stt.providers.scribe:ScribeProvider",
}


def providers(environ: Mapping[str, str], installed: Iterable[Found] | None = None) -> Plugins[SttProvider]:
    """Return the providers of a process; others come as entry points of the group ``trunkline.stt_providers``."""
    return Plugins("stt.provider", "trunkline.stt_providers", _OURS, environ, installed)
