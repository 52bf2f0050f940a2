"""The bus, watched for the right moment: which call is in which state, and who serves it."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Final, Literal

from trunkline.bus import Bus
from trunkline.proto import subjects
from trunkline.proto.codec import EVENT, Story, decode, decode_story
from trunkline.proto.errors import BadMessage
from trunkline.proto.events import CallEnded, CallResumed, CallStarted, Event, StageAssigned, ToolCalled, ToolReturned
from trunkline.proto.ids import CallId, new_worker_id
from trunkline.proto.messages import (
    Assigned,
    Interrupt,
    PlayoutCut,
    PlayoutFinished,
    PlayoutStarted,
    Say,
    SpeechStarted,
    TurnEnded,
)
from trunkline.runtime.clock import SYSTEM

State = Literal["idle", "hearing", "thinking", "tool", "speaking"]
RIPE_S: Final = {"hearing": (0.3, 0.9), "thinking": (0.05, 0.4), "tool": (0.0, 0.25), "speaking": (0.4, 1.4)}
"""How old a state is to be when a fault comes: in its midst."""
_POLL_S: Final = 0.01
_ALIVE_S: Final = 2.0


class Seen:
    """One call, as the bus tells of it."""

    def __init__(self) -> None:
        self.state: State = "idle"
        self.since_t = SYSTEM.monotonic()
        self.workers: dict[str, tuple[int, str]] = {}
        """Stage → epoch and worker; ``edge`` → 0 and the edge."""
        self._playing: set[tuple[int, int]] = set()

    def worker(self, stage: str) -> str:
        """Return who serves `stage`, empty if that is not known."""
        return self.workers.get(stage, (0, ""))[1]

    def take(self, message: Story) -> None:
        """Take what is said in the call."""
        match message:
            case Assigned():
                self.assigned(message.stage, message.epoch, message.worker)
            case SpeechStarted():
                self._become("hearing")
            case TurnEnded() if self.state == "hearing":
                self._become("thinking")
            case Say() if self.state == "tool":
                self._become("thinking")
            case PlayoutStarted():
                self._playing.add((message.generation, message.utterance))
                self._become("speaking")
            case PlayoutFinished() | PlayoutCut():
                self._playing.discard((message.generation, message.utterance))
                if not self._playing and self.state == "speaking":
                    self._become("idle")
            case Interrupt(generation=generation):
                self._playing = {key for key in self._playing if key[0] >= generation}
            case _:
                pass

    def take_fact(self, event: Event) -> None:
        """Take a fact of the call."""
        match event.fact:
            case StageAssigned(stage=stage, epoch=epoch, worker=worker):
                self.assigned(stage, epoch, worker)
            case CallStarted(edge=edge) | CallResumed(edge=edge):
                self.workers["edge"] = (0, edge)
            case ToolCalled():
                self._become("tool")
            case ToolReturned():
                self._become("thinking")
            case _:
                pass

    def assigned(self, stage: str, epoch: int, worker: str) -> None:
        """Note who serves a stage."""
        if epoch >= self.workers.get(stage, (0, ""))[0]:
            self.workers[stage] = epoch, worker

    def _become(self, state: State) -> None:
        if state != self.state:
            self.state, self.since_t = state, SYSTEM.monotonic()


class Watch:
    """All calls. Made by `watching`."""

    def __init__(self) -> None:
        self.calls: dict[CallId, Seen] = {}
        self._alive: dict[str, dict[str, float]] = {}

    def on_story(self, subject: str, data: bytes) -> None:
        """Take a message of ``call.>``."""
        _, call, topic = subject.split(".")
        with contextlib.suppress(BadMessage):
            if call in self.calls:
                self.calls[CallId(call)].take(decode_story(topic, data))

    def on_alive(self, subject: str, _: bytes) -> None:
        """Take a heart-beat."""
        _alive, stage, worker = subject.split(".")
        self._alive.setdefault(stage, {})[worker] = SYSTEM.monotonic()

    def alive(self, stage: str) -> list[str]:
        """Return whose heart beats."""
        now = SYSTEM.monotonic()
        return [worker for worker, t in self._alive.get(stage, {}).items() if now - t < _ALIVE_S]

    def on_event(self, _: str, data: bytes) -> None:
        """Take a message of ``events.>``."""
        with contextlib.suppress(BadMessage):
            event = decode(EVENT, data)
            match event.fact:
                case CallStarted() | CallResumed():
                    self.calls.setdefault(event.call, Seen()).take_fact(event)
                case CallEnded():
                    self.calls.pop(event.call, None)
                case _ if event.call in self.calls:
                    self.calls[event.call].take_fact(event)
                case _:
                    pass

    async def ripe(
        self, state: State, stage: str, rng: random.Random, timeout_s: float = 20.0, of: str = ""
    ) -> tuple[CallId, str]:
        """Return a call in the midst of `state`, and who serves its `stage`: `of`, if that is given.

        Raises:
            TimeoutError: there was none.
        """
        low_s, high_s = RIPE_S.get(state, (0.0, 60.0))
        aim_s = rng.uniform(low_s, high_s)
        async with asyncio.timeout(timeout_s):
            while True:
                now = SYSTEM.monotonic()
                ripe = [
                    (call, seen.worker(stage))
                    for call, seen in self.calls.items()
                    if seen.state == state
                    and aim_s <= now - seen.since_t <= high_s + 0.1
                    and seen.worker(stage)
                    and of in ("", seen.worker(stage))
                ]
                if ripe:
                    return rng.choice(ripe)
                await asyncio.sleep(_POLL_S)


@contextlib.asynccontextmanager
async def watching(url: str) -> AsyncIterator[tuple[Watch, Bus]]:
    """Watch the bus at `url` while the block runs.

    Raises:
        BusUnavailable: it cannot be reached.
    """
    watch = Watch()
    bus = await Bus.connect(url, name=new_worker_id("chaos"), on_lost=lambda _: None)
    try:
        await bus.subscribe(subjects.STORIES, watch.on_story)
        await bus.subscribe(subjects.EVENTS_ALL, watch.on_event)
        await bus.subscribe(subjects.ALIVE_ALL, watch.on_alive)
        yield watch, bus
    finally:
        await bus.close()
