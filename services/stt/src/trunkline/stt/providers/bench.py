"""The `bench` provider: the word "hello" the instant an utterance ends, for load work. No partials, no work."""

from collections.abc import Mapping
from typing import Final

from trunkline.proto.agent import Stt
from trunkline.proto.ids import UtteranceId
from trunkline.stt.provider import Final as FinalWords
from trunkline.stt.provider import OnHeard, SttCapabilities, SttStream

TEXT: Final = "hello"


class BenchStream:
    """One call's ear."""

    def __init__(self, on_heard: OnHeard) -> None:
        self._on_heard = on_heard
        self._utterance: UtteranceId | None = None

    def begin(self, utterance: UtteranceId) -> None:
        """Note whose final is next."""
        self._utterance = utterance

    def push(self, pcm: bytes, *, voiced: bool) -> None:
        """Take audio, and leave it at that."""

    def finish(self) -> None:
        """Tell the final at once."""
        if self._utterance is not None:
            utterance, self._utterance = self._utterance, None
            self._on_heard(FinalWords(utterance, TEXT))

    def give_up(self, utterance: UtteranceId) -> None:
        """Owe nothing."""

    async def aclose(self) -> None:
        """Hold nothing."""


class BenchProvider:
    """Hears the same in every utterance."""

    capabilities: Final = SttCapabilities()

    def __init__(self, environ: Mapping[str, str]) -> None:
        del environ

    async def warm_up(self) -> None:
        """Need nothing."""

    def check(self, stt: Stt) -> None:
        """Take any."""

    async def warm(self, stt: Stt) -> None:
        """Need nothing."""

    async def open(self, stt: Stt, on_heard: OnHeard) -> SttStream:
        """Return an ear, whatever `stt` says."""
        del stt
        return BenchStream(on_heard)

    async def aclose(self) -> None:
        """Hold nothing."""
