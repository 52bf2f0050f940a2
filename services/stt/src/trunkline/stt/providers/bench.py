"""For load work: hears ``hello`` at the end of every utterance, at once."""

from collections.abc import Mapping

from trunkline.proto.agent import Stt
from trunkline.proto.ids import UtteranceId
from trunkline.stt.provider import Heard, OnHeard, SttCapabilities


class BenchStt:
    """The provider ``bench``."""

    capabilities = SttCapabilities(partials=False, continuous=False)

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Needs nothing of `environ`."""

    async def start(self) -> None:
        """Nothing to load."""

    async def open(self, _stt: Stt, on_heard: OnHeard) -> "BenchStream":
        """Return a recogniser for a call."""
        return BenchStream(on_heard)

    async def aclose(self) -> None:
        """Nothing to free."""


class BenchStream:
    """One call's."""

    def __init__(self, on_heard: OnHeard) -> None:
        self._on_heard = on_heard
        self._utterance = UtteranceId(0)

    def begin(self, utterance: UtteranceId, _pre_roll: bytes) -> None:
        """Remember whose words they will be."""
        self._utterance = utterance

    def push(self, pcm: bytes) -> None:
        """Let it pass."""

    def finish(self) -> None:
        """Have heard."""
        self._on_heard(Heard(utterance=self._utterance, text="hello", final=True))

    async def aclose(self) -> None:
        """Nothing to free."""
