"""The agent's audio in the order in which it was sent, though some of it may have to be asked for again. Pure.

Who sends numbers the chunks of an epoch from 0. What comes too early is kept until what is missing has come, or is
given up. What came before is left out.
"""

from typing import Final

from trunkline.proto.frame import AudioChunk
from trunkline.proto.ids import Epoch, Seq

MOST_EARLY: Final = 64
"""Chunks kept at most; with more, what is missing is given up."""


class InOrder:
    """One call's."""

    def __init__(self) -> None:
        self.repeated = 0
        """Chunks that had come before."""
        self.given_up = 0
        """Chunks that never came."""
        self._epoch = Epoch(0)
        self._next = 0
        self._early: dict[int, AudioChunk] = {}

    @property
    def gap(self) -> bool:
        """Whether something is missing that was sent before what has come."""
        return bool(self._early)

    @property
    def awaited(self) -> tuple[Epoch, Seq]:
        """Which chunk is to come next."""
        return self._epoch, Seq(self._next)

    def take(self, chunk: AudioChunk) -> list[AudioChunk]:
        """Take a chunk as it comes; return what may be heard now, in order."""
        if chunk.epoch > self._epoch:  # somebody else speaks, and says what its predecessor did not bring across
            self._epoch, self._next = chunk.epoch, 0
            self._early.clear()
        if chunk.epoch < self._epoch or chunk.seq < self._next or chunk.seq in self._early:
            self.repeated += 1
            return []
        self._early[chunk.seq] = chunk
        return self._ready() if len(self._early) <= MOST_EARLY else self.give_up()

    def give_up(self) -> list[AudioChunk]:
        """Wait no longer for what is missing; return what came after it, up to what is missing next."""
        if not self._early:
            return []
        first = min(self._early)
        self.given_up += first - self._next
        self._next = first
        return self._ready()

    def _ready(self) -> list[AudioChunk]:
        ready = []
        while (chunk := self._early.pop(self._next, None)) is not None:
            ready.append(chunk)
            self._next += 1
        return ready
