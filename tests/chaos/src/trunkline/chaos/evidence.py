"""What a run leaves behind, as data: journals, callers' records, effects, facts, and the faults injected. Pure.

All times named ``t`` or ``*_t`` are those of the machine's steady clock, which all its processes share.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

from trunkline.chaos.ear import HeardWord
from trunkline.proto.events import Event


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a process's journal. Which fields have a meaning depends on `what`."""

    t: float
    who: str
    what: str
    call: str
    stage: str = ""
    worker: str = ""
    epoch: int = 0
    generation: int = 0
    utterance: int = 0
    seq: int = -1
    ms: float = 0.0
    verdict: str = ""
    replay: int = 0
    committed: int = -1
    key: str = ""
    tool_call: str = ""
    reason: str = ""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A question, from its first sound to its last."""

    question: int
    began_t: float
    ended_t: float


def swallowed(asked: Asked, gaps: Iterable[tuple[float, float]]) -> bool:
    """Return whether the line was lost while the question was asked, or before it can have been heard to its end."""
    return any(begin < asked.ended_t + 1.0 and end > asked.began_t for begin, end in gaps)


class CallerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A call, as its caller lived it."""

    call: str
    sid: str
    questions: tuple[int, ...]
    """What was to be asked."""
    asked: tuple[Asked, ...] = ()
    words: tuple[HeardWord, ...] = ()
    two_voices: tuple[tuple[float, float], ...] = ()
    gaps: tuple[tuple[float, float], ...] = ()
    """When the line was broken."""
    began_t: float = 0.0
    ended_t: float = 0.0
    ended_by: Literal["caller", "application", "nobody"] = "nobody"
    """``nobody``: the run was broken off."""
    refused: str = ""
    """Why there was no call at all: what the voice webhook answered instead."""
    problem: str = ""
    """Why the caller did not ask or hear everything."""
    latest_ms: float = 0.0
    """By how much the caller's own machine was late at worst."""


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """The tool has had its effect."""

    key: str
    """The idempotency key."""
    call: str
    question: int
    t: float
    """Steady clock, as in the journals."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Something done to the deployment."""

    t: float
    kind: str
    """The row of the table it belongs to."""
    service: str = ""
    """``stt``, ``brain``, ``tts``, ``edge`` or ``nats``."""
    worker: str = ""
    """Id of the process, if it was one."""
    pid: int = 0
    aimed_at: str = ""
    """The call whose state was waited for."""
    state: str = ""
    """That state: ``hearing``, ``thinking``, ``tool``, ``speaking``."""
    until_t: float = 0.0
    """When it was undone; 0 for a kill."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A reading of one process."""

    t: float
    pid: int
    """0: the bus."""
    service: str
    reading: str
    """What was read: ``rss_mib``, ``fds``, ``tasks``, ``subscriptions``, ``streams``."""
    value: float


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All there is about a run."""

    notes: tuple[Note, ...] = ()
    """Of all processes, in the order of time."""
    callers: tuple[CallerRecord, ...] = ()
    effects: tuple[Effect, ...] = ()
    events: tuple[Event, ...] = ()
    """As delivered, in the order of delivery."""
    stored: tuple[str, ...] | None = None
    """Ids of all events in the stream; None: nobody looked."""
    faults: tuple[Fault, ...] = ()
    samples: tuple[Sample, ...] = ()


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """A promise that was broken."""

    rule: str
    call: str
    t: float
    text: str


class CallEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """What there is about one call."""

    caller: CallerRecord
    notes: tuple[Note, ...]
    effects: tuple[Effect, ...]
    events: tuple[Event, ...]
    faults: tuple[Fault, ...]
    """All of the run."""

    def noted(self, *what: str) -> Iterable[Note]:
        """Return the notes of these kinds."""
        return (note for note in self.notes if note.what in what)


def by_call(evidence: Evidence) -> list[CallEvidence]:
    """Return the evidence, sorted by call."""
    notes: dict[str, list[Note]] = {}
    for note in evidence.notes:
        notes.setdefault(note.call, []).append(note)
    effects: dict[str, list[Effect]] = {}
    for effect in evidence.effects:
        effects.setdefault(effect.call, []).append(effect)
    events: dict[str, list[Event]] = {}
    for event in evidence.events:
        events.setdefault(event.call, []).append(event)
    return [
        CallEvidence(
            caller=caller,
            notes=tuple(sorted(notes.get(caller.call, []), key=lambda note: note.t)),
            effects=tuple(effects.get(caller.call, ())),
            events=tuple(events.get(caller.call, ())),
            faults=evidence.faults,
        )
        for caller in evidence.callers
    ]
