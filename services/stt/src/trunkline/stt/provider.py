"""What a speech-to-text provider is: the seam between a call's hearing and whoever finds the words.

A provider is one per process, a stream one per call. Two kinds fit:

- utterance mode (`needs_vad_segments`): it is given the audio of each utterance, with 300 ms before it, between `begin`
  and `finish`, and nothing else;
- continuous: it is given all the audio of the call, and `begin` and `finish` only tell it where utterances lie, so that
  it can ask its service for the final at once (Deepgram's ``Finalize``, a commit elsewhere).

Words come back through the callback given to `open`, in the event loop, at any time. Voice activity, endpointing,
time-outs, order on the bus and metrics are not a provider's business. A provider that brings its own settings reads
them from the `environ` it is constructed with.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final as Constant
from typing import Protocol

import msgspec

from trunkline.proto.agent import Stt
from trunkline.proto.ids import UtteranceId
from trunkline.runtime.plugins import Found, Plugins


class SttCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider can do, as data."""

    interim_results: bool = False
    """Whether `Partial`s come."""
    needs_vad_segments: bool = True
    """Whether it hears utterances only; otherwise it hears everything."""
    word_times: bool = False
    """Whether `Final.words` is filled."""
    honours: frozenset[str] = frozenset()
    """Which of the agent's settings `grammar` and `language` it heeds; the others are ignored, with a warning."""


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


class Failed(msgspec.Struct, frozen=True):
    """In place of a `Final`: this utterance's words will not come. The stream goes on with the next."""

    utterance: UtteranceId
    reason: str


Heard = Partial | Final | Failed
OnHeard = Callable[[Heard], None]


class SttStream(Protocol):
    """One call's ear. Nothing but `aclose` may block, and nothing may raise; trouble is told as `Failed`."""

    def begin(self, utterance: UtteranceId) -> None:
        """Take what is pushed from now on as `utterance`. Earlier ones may still await their final."""
        ...

    def push(self, pcm: bytes, *, voiced: bool) -> None:
        """Take audio: PCM16 little-endian at 8 kHz, any length, in order; `voiced` is the voice detector's opinion."""
        ...

    def finish(self) -> None:
        """The utterance is over: tell its `Final` as soon as it can be known."""
        ...

    def give_up(self, utterance: UtteranceId) -> None:
        """Nobody waits for the words of `utterance`, which is over, any more: spend nothing further on them."""
        ...

    async def aclose(self) -> None:
        """Forget the call; nothing is told after this."""
        ...


class SttProvider(Protocol):
    """A way to find words."""

    @property
    def capabilities(self) -> SttCapabilities:
        """What it can do."""
        ...

    async def warm_up(self) -> None:
        """Load what would make the first call wait.

        Raises:
            Unavailable: it cannot work here.
        """
        ...

    async def open(self, stt: Stt, on_heard: OnHeard) -> SttStream:
        """Return an ear for one call, as `stt` describes it.

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
}


def providers(environ: Mapping[str, str], installed: Iterable[Found] | None = None) -> Plugins[SttProvider]:
    """Return the providers of a process; others come as entry points of the group ``trunkline.stt_providers``."""
    return Plugins("stt.provider", "trunkline.stt_providers", _OURS, environ, installed)
