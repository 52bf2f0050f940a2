"""What may still be said in a call, and what comes next. Pure: no loop, no clock, no log.

Two integers decide. The *generation* floor rises with every interrupt; sentences below it are void, the one being
spoken included. The *epoch* is that of the brain that gives the orders: the highest one seen is in command, and
sentences of a deposed brain that still wait are void too. The sentence being spoken when a new brain takes over is let
finish, since the caller is hearing it and nobody has interrupted it.

The floor is raised by interrupts alone. A sentence of a new generation does not silence those of the turn before: no
interrupt means that they are still to be heard, in order.

When `capacity` sentences wait, a further one is refused: what has been promised first is kept, and a brain that runs
away (64 sentences are several minutes of speech) loses its newest words, not the caller's next ones. A refused sentence
gets no audio and no end; the brain's own time limit covers it.
"""

from collections import deque
from enum import StrEnum
from typing import Final, NamedTuple

from trunkline.proto.ids import Epoch, Generation
from trunkline.proto.messages import Interrupt, Say

CAPACITY: Final = 64


class Verdict(StrEnum):
    """What became of a message."""

    TAKEN = "taken"
    STALE_EPOCH = "stale-epoch"
    STALE_GENERATION = "stale-generation"
    FULL = "full"


class Cut(NamedTuple):
    """What an interrupt did: whether the sentence being spoken must stop, and how many that waited are gone."""

    verdict: Verdict
    stop: bool = False
    dropped: int = 0


class Floor:
    """The sentences of one call, in order, as far as they may be said."""

    def __init__(self, generation: Generation, capacity: int = CAPACITY) -> None:
        self.generation = generation
        self.epoch = Epoch(0)
        self.speaking: Say | None = None
        self.deposed = 0
        """Sentences dropped because another brain took over."""
        self._capacity = capacity
        self._waiting: deque[Say] = deque()

    @property
    def waiting(self) -> int:
        """How many sentences wait for their turn."""
        return len(self._waiting)

    def take(self, say: Say) -> Verdict:
        """Put `say` last in line, unless it is void or the line is full."""
        if say.epoch < self.epoch:
            return Verdict.STALE_EPOCH
        self._follow(say.epoch)
        if say.generation < self.generation:
            return Verdict.STALE_GENERATION
        if len(self._waiting) >= self._capacity:
            return Verdict.FULL
        self._waiting.append(say)
        return Verdict.TAKEN

    def interrupt(self, order: Interrupt) -> Cut:
        """Raise the floor to the generation of `order`."""
        if order.epoch < self.epoch:
            return Cut(Verdict.STALE_EPOCH)
        self._follow(order.epoch)
        if order.generation < self.generation:
            return Cut(Verdict.STALE_GENERATION)
        self.generation = order.generation
        before = len(self._waiting)
        self._waiting = deque(say for say in self._waiting if say.generation >= self.generation)
        stop = self.speaking is not None and not self.stands(self.speaking)
        return Cut(Verdict.TAKEN, stop, before - len(self._waiting))

    def next(self) -> Say | None:
        """Take the next sentence to be spoken, or None; the one before is over."""
        self.speaking = self._waiting.popleft() if self._waiting else None
        return self.speaking

    def stands(self, say: Say) -> bool:
        """Whether audio of `say` may still be sent."""
        return say.generation >= self.generation

    def _follow(self, epoch: Epoch) -> None:
        if epoch > self.epoch:
            self.epoch = epoch
            kept = deque(say for say in self._waiting if say.epoch >= epoch)
            self.deposed += len(self._waiting) - len(kept)
            self._waiting = kept
