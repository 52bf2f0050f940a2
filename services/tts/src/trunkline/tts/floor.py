"""What may still be said in a call, and what comes next. Pure: no loop, no clock, no log.

Two integers decide. The *generation* floor rises with every interrupt; sentences below it are void, the one being
spoken included. The *epoch* is that of the brain that gives the orders: the highest one heard of is in command, and
what older ones still send is refused. Their sentences stay in line, since whoever takes over knows of them and goes on
from there; those that were still being written end with what has come, since nobody writes them any more.

The floor is raised by interrupts alone. A sentence of a new generation does not silence those of the turn before: no
interrupt means that they are still to be heard, in order.

When `capacity` sentences wait, a further one is refused: what has been promised first is kept, and a brain that runs
away (64 sentences are several minutes of speech) loses its newest words, not the caller's next ones. A refused sentence
gets no audio and no end; the brain's own time limit covers it.

A sentence may come in pieces. Its place in the line is that of its first piece; the others join it wherever it is. The
pieces of a sentence that was refused or given up go the way of the first, so nothing is ever spoken from its midst.
"""

from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Final, NamedTuple

from trunkline.proto.ids import Epoch, Generation
from trunkline.proto.messages import Interrupt, Say
from trunkline.tts.sentence import Key, Sentence, key_of

CAPACITY: Final = 64
MOST_GIVEN_UP: Final = 1_024
"""Sentences given up and not yet over that are remembered; beyond, the oldest is forgotten."""


class Verdict(StrEnum):
    """What became of a message."""

    TAKEN = "taken"
    STALE_EPOCH = "stale-epoch"
    STALE_GENERATION = "stale-generation"
    FULL = "full"
    GIVEN_UP = "given-up"
    OTHER_VOICE = "other-voice"


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
        self.speaking: Sentence | None = None
        self._capacity = capacity
        self._waiting: deque[Sentence] = deque()
        self._open: dict[Key, Sentence] = {}
        """Those that wait or are spoken, and are not complete."""
        self._given_up: dict[Key, None] = {}
        """Sentences that are not to be spoken, and whose last piece has not come."""

    @property
    def waiting(self) -> int:
        """How many sentences wait for their turn."""
        return len(self._waiting)

    def take(self, say: Say) -> Verdict:
        """Put `say` last in line, or add it to the sentence it is a piece of, unless it is void or the line is full."""
        if say.epoch < self.epoch:
            return Verdict.STALE_EPOCH
        self.follow(say.epoch)
        if say.generation < self.generation:
            return Verdict.STALE_GENERATION
        key = key_of(say)
        begun = self._open.get(key)
        if begun is not None and begun.complete:  # ended without its last piece
            self._give_up(begun)
            begun = None
        if begun is not None:
            begun.add(say)
            if begun.complete:
                del self._open[key]
            return Verdict.TAKEN
        if key in self._given_up:
            if not say.goes_on:
                del self._given_up[key]
            return Verdict.GIVEN_UP
        if len(self._waiting) >= self._capacity:
            if say.goes_on:
                self._remember(key)
            return Verdict.FULL
        sentence = Sentence(say)
        self._waiting.append(sentence)
        if not sentence.complete:
            self._open[key] = sentence
        return Verdict.TAKEN

    def interrupt(self, order: Interrupt) -> Cut:
        """Raise the floor to the generation of `order`."""
        if order.epoch < self.epoch:
            return Cut(Verdict.STALE_EPOCH)
        self.follow(order.epoch)
        if order.generation < self.generation:
            return Cut(Verdict.STALE_GENERATION)
        self.generation = order.generation
        dropped = self._keep(self.stands)
        self._given_up = {key: None for key in self._given_up if key[1] >= self.generation}
        stop = self.speaking is not None and not self.stands(self.speaking)
        return Cut(Verdict.TAKEN, stop, dropped)

    def follow(self, epoch: Epoch) -> None:
        """Take orders from the brain of `epoch` from now on, and no more of those before it."""
        if epoch <= self.epoch:
            return
        self.epoch = epoch
        for sentence in self._open.values():
            sentence.end()
        self._open.clear()
        self._given_up.clear()

    def next(self) -> Sentence | None:
        """Take the next sentence to be spoken, or None; the one before is over, whatever of it may still come."""
        if self.speaking is not None:
            self._give_up(self.speaking)
        self.speaking = self._waiting.popleft() if self._waiting else None
        return self.speaking

    def drop(self, generation: Generation) -> int:
        """Drop what waits of `generation`; return how many sentences that were."""
        return self._keep(lambda sentence: sentence.generation != generation)

    def stands(self, sentence: Sentence) -> bool:
        """Whether audio of `sentence` may still be sent."""
        return sentence.generation >= self.generation

    def _keep(self, wanted: Callable[[Sentence], bool]) -> int:
        before = len(self._waiting)
        for sentence in self._waiting:
            if not wanted(sentence):
                self._give_up(sentence)
        self._waiting = deque(filter(wanted, self._waiting))
        return before - len(self._waiting)

    def _give_up(self, sentence: Sentence) -> None:
        if self._open.pop(sentence.key, None) is not None and sentence.generation >= self.generation:
            self._remember(sentence.key)

    def _remember(self, key: Key) -> None:
        self._given_up[key] = None
        if len(self._given_up) > MOST_GIVEN_UP:
            del self._given_up[next(iter(self._given_up))]
