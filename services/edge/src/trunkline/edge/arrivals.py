"""The agent's audio as it comes off the bus: fenced, in order, asked for again where it is missing, and played.

NATS delivers at most once: a connection that breaks, or a node that dies, swallows what is under way. TTS sends ahead
of what is heard, and keeps what it sent for a while; so there is time to ask.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Final

from trunkline.bus import BusUnavailable
from trunkline.edge.assign import Assignments
from trunkline.edge.downlink import Downlink
from trunkline.edge.facilities import Facilities
from trunkline.edge.order import InOrder
from trunkline.proto import subjects
from trunkline.proto.errors import BadFrame
from trunkline.proto.frame import AudioChunk, unpack_audio
from trunkline.proto.ids import CallId
from trunkline.proto.messages import Missed

MISSED_S: Final = 0.3
"""How long what comes after a gap is kept back: less than TTS is ahead of what is heard."""


class Arrivals:
    """One call's. `watch` once there is a loop, and `close` in the end.

    Args:
        call: whose.
        facilities: the edge's.
        assignments: who speaks, in which epoch.
        downlink: where it goes.
        complain: told what could not be played, and at which rate it came.
        spawn: runs a coroutine in the background.
    """

    def __init__(
        self,
        call: CallId,
        facilities: Facilities,
        assignments: Assignments,
        downlink: Downlink,
        complain: Callable[[str, int], None],
        spawn: Callable[[Coroutine[None, None, None]], None],
    ) -> None:
        self._call = call
        self._bus = facilities.bus
        self._assignments = assignments
        self._downlink = downlink
        self._metrics = facilities.metrics
        self._journal = facilities.journal
        self._complain = complain
        self._spawn = spawn
        self._order = InOrder()
        self._giving_up: asyncio.TimerHandle | None = None
        self._stop_watching: Callable[[], None] | None = None

    def watch(self) -> None:
        """Ask for what may be missing whenever our own connection was broken."""
        self._stop_watching = self._bus.media.on_back(self._ask)

    def close(self) -> None:
        """Ask for nothing any more, and wait for nothing."""
        if self._stop_watching is not None:
            self._stop_watching()
            self._stop_watching = None
        self._wait_no_longer()

    def take(self, data: bytes) -> None:
        """Take a packed `AudioChunk`. Never waits, never raises."""
        try:
            chunk = unpack_audio(data)
        except BadFrame:
            self._metrics.dropped["audio_malformed"] += 1
            return
        if chunk.epoch < self._assignments.epoch("tts"):
            self._metrics.fenced["audio_epoch"] += 1
            self._note(chunk, "tts-epoch")
            return
        before = self._order.repeated
        ready = self._order.take(chunk)
        if self._order.repeated > before:
            self._metrics.traffic["audio_repeated"] += 1
            self._note(chunk, "repeated")
            return
        for one in ready:
            self._play(one)
        self._mind_the_gap()

    def _play(self, chunk: AudioChunk) -> None:
        if complaint := self._downlink.take(chunk):
            self._complain(complaint, chunk.sample_rate_hz)
        self._note(chunk, self._downlink.verdict)

    def _mind_the_gap(self) -> None:
        if not self._order.gap:
            self._wait_no_longer()
        elif self._giving_up is None:
            self._giving_up = asyncio.get_running_loop().call_later(MISSED_S, self._give_up)
            self._ask()

    def _ask(self) -> None:
        """Have TTS send again from the chunk on that should have come next."""
        held = self._assignments.held("tts")
        epoch, seq = self._order.awaited
        if held is not None and held.epoch == epoch:
            self._metrics.traffic["audio_asked_again"] += 1
            self._spawn(self._publish(subjects.missed(held.worker), Missed(call=self._call, epoch=epoch, seq=seq)))

    async def _publish(self, subject: str, missed: Missed) -> None:
        try:
            await self._bus.publish(subject, missed)
        except BusUnavailable:
            self._metrics.dropped["message_unsent"] += 1

    def _give_up(self) -> None:
        self._giving_up = None
        before = self._order.given_up
        for chunk in self._order.give_up():
            self._play(chunk)
        self._metrics.dropped["audio_missed"] += self._order.given_up - before
        self._mind_the_gap()

    def _wait_no_longer(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    def _note(self, chunk: AudioChunk, verdict: str) -> None:
        if self._journal.on:
            self._journal.note(
                "audio",
                self._call,
                epoch=chunk.epoch,
                generation=chunk.generation,
                utterance=chunk.utterance,
                seq=chunk.seq,
                ms=len(chunk.payload) // 16,
                verdict=verdict,
            )
