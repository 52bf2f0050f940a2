"""Agent audio on its way to the caller: from the bus through the playout ledger into the carrier's line.

Never waits: what the line cannot take yet stands in its outbox. `tell` is called with what is to be published, always
after whatever the line has to be told first.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from trunkline.audio.g711 import mulaw_to_pcm16, pcm16_to_mulaw
from trunkline.edge.carrier import Carrier, Line
from trunkline.edge.metrics import EdgeMetrics
from trunkline.edge.outbox import Outbox
from trunkline.edge.playout import PlayoutLedger, Speech, Void
from trunkline.proto import clips
from trunkline.proto.frame import AudioChunk, Codec, Flag
from trunkline.proto.ids import Epoch, Generation, Seq, UtteranceId
from trunkline.proto.messages import PlayoutMessage, Reached
from trunkline.runtime.clock import Clock

_PIECE_BYTES: Final = 200 * 2 * clips.RATE_HZ // 1_000


class Wire(NamedTuple):
    """What the line carries: whose language, which codec, at which rate, and how much of it may wait."""

    carrier: Carrier
    codec: Codec
    sample_rate_hz: int
    unsent_bytes: int


class Downlink:
    """The agent's side of one call's audio."""

    def __init__(self, wire: Wire, clock: Clock, metrics: EdgeMetrics, tell: Callable[[PlayoutMessage], None]) -> None:
        self._carrier, self._codec, self._rate_hz, unsent_bytes = wire
        self._clock = clock
        self._metrics = metrics
        self._tell = tell
        self._ledger = PlayoutLedger()
        self._outbox = Outbox(unsent_bytes)
        self.verdict = ""
        """What became of the chunk taken last: ``played``, or why it was void."""

    @property
    def floor(self) -> Generation:
        """Lowest generation that may still be heard."""
        return self._ledger.floor

    @property
    def highest(self) -> Generation:
        """Highest generation seen."""
        return self._ledger.highest

    @property
    def reached(self) -> tuple[Reached, ...]:
        """What has come of the utterances that the caller has not heard to their end."""
        return self._ledger.reached

    @property
    def idle(self) -> bool:
        """Whether the caller hears nothing of the agent, and nothing begun is to come."""
        return self._ledger.idle(self._clock.monotonic())

    @property
    def audio_ms(self) -> int:
        """Audio taken so far."""
        return round(self._ledger.queued_ms)

    async def deliver(self, line: Line) -> None:
        """Send to `line` what waits, until cancelled.

        Raises:
            LineClosed: the line is gone.
        """
        await self._outbox.deliver(line)

    def take(self, chunk: AudioChunk) -> str | None:
        """Take `chunk`; return why its audio had to be dropped, or None. Its utterance ends with it all the same.

        What is void is dropped without a word, and counted; `verdict` tells.
        """
        self.verdict = "played"
        audio, complaint = self._fitting(chunk)
        audio_ms = len(audio) * 1000 / (self._rate_hz * self._codec.bytes_per_sample)
        speech = Speech(chunk.generation, chunk.utterance, audio_ms, chunk.last, chunk.synthesised_us / 1e6)
        verdict = self._ledger.take(speech, at=self._clock.monotonic(), wall_at=self._clock.wall())
        if isinstance(verdict, Void):
            self._metrics.fenced[f"audio_{verdict.reason}"] += 1
            self.verdict = verdict.reason
            return None
        if audio:
            self._outbox.put(self._carrier.media(audio))
        if verdict.mark is not None:
            self._outbox.put(self._carrier.mark(verdict.mark))
        if verdict.started is not None:
            self._tell(verdict.started)
        return complaint

    def play(self, pcm: bytes, generation: Generation, utterance: UtteranceId) -> None:
        """Say `pcm`, a clip, as a whole utterance of ours."""
        pieces = [pcm[at : at + _PIECE_BYTES] for at in range(0, len(pcm), _PIECE_BYTES)] or [b""]
        for number, piece in enumerate(pieces):
            chunk = AudioChunk(
                codec=Codec.PCM16,
                sample_rate_hz=clips.RATE_HZ,
                flags=Flag.LAST if number == len(pieces) - 1 else Flag.NONE,
                epoch=Epoch(0),
                seq=Seq(number),
                synthesised_us=int(self._clock.wall() * 1e6),
                generation=generation,
                utterance=utterance,
                payload=piece,
            )
            self.take(chunk)

    def returned(self, mark: str) -> None:
        """Take a mark that the carrier returned."""
        messages = self._ledger.returned(mark, at=self._clock.monotonic())
        if not messages:
            self._metrics.traffic["marks_void"] += 1
        for message in messages:
            self._tell(message)

    def interrupt(self, generation: Generation) -> bool:
        """Void what is below `generation`, and return whether anything was to be heard.

        The carrier falls silent before anybody is told.
        """
        cut = self._ledger.interrupt(generation, at=self._clock.monotonic())
        if cut.clear:
            self._outbox.clear(self._carrier.clear())
            self._metrics.traffic["clears"] += 1
        for message in cut.messages:
            self._tell(message)
        return cut.clear

    def abandon(self) -> None:
        """End what will not be finished: its TTS worker is gone."""
        for mark in self._ledger.abandon():
            self._outbox.put(self._carrier.mark(mark))

    def _fitting(self, chunk: AudioChunk) -> tuple[bytes, str | None]:
        """Return the audio of `chunk` as the line carries it; empty, with a complaint, if that cannot be."""
        if chunk.sample_rate_hz != self._rate_hz:
            self._metrics.dropped["audio_rate"] += 1
            return b"", "agent audio of a wrong sample rate dropped"
        if chunk.payload and not self._outbox.has_room():
            self._metrics.dropped["audio_line_slow"] += 1
            return b"", "line does not read; agent audio dropped"
        return _recoded(chunk.payload, chunk.codec, self._codec), None


def _recoded(payload: bytes, codec: Codec, wanted: Codec) -> bytes:
    if codec is wanted:
        return payload
    return pcm16_to_mulaw(payload) if wanted is Codec.MULAW else mulaw_to_pcm16(payload)
