"""What was seen of a call, sorted by what it is about. Pure: a log in, records out.

Moments are milliseconds from the first sample of the recording.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from trunkline.call import Seen
from trunkline.proto.events import Event, Fact
from trunkline.proto.messages import (
    FinalTranscript,
    Interrupt,
    PartialTranscript,
    PlayoutCut,
    PlayoutFinished,
    PlayoutStarted,
    Say,
)

_CLEAR: Final = "clear"
_MARK_RETURNED: Final = "mark-returned"


class Written(msgspec.Struct, frozen=True):
    """Words of the caller as STT wrote them, and when they came."""

    at_ms: int
    utterance: int
    text: str
    final: bool


class Utterance(msgspec.Struct, kw_only=True):
    """A sentence of the agent on its way to the caller's ear. Fields are filled in as it gets there."""

    utterance: int
    generation: int
    text: str
    sent_ms: int | None = None
    """When its first audio left for the carrier."""
    played_ms: int | None = None
    """When its mark came back after it was played."""
    cut: PlayoutCut | None = None


class Stop(msgspec.Struct, frozen=True):
    """An order that voids what the agent was saying."""

    at_ms: int
    generation: int
    reason: str


class Record(msgspec.Struct, kw_only=True):
    """A call as it was seen."""

    written: list[Written]
    utterances: dict[int, Utterance]
    """The agent's, by number, in the order in which they were to be said."""
    stops: list[Stop]
    clears_ms: list[int]
    events: list[tuple[int, Event]]
    """Facts in the order in which they were published, and when they happened."""

    def facts(self) -> Iterable[Fact]:
        """Yield the facts alone."""
        return (event.fact for _, event in self.events)


def ms(seconds: float) -> int:
    """Return whole milliseconds."""
    return round(seconds * 1_000)


def record_of(log: Iterable[Seen], started_at: float) -> Record:
    """Sort the log of a call whose first sample was at `started_at`, wall-clock seconds."""
    record = Record(written=[], utterances={}, stops=[], clears_ms=[], events=[])
    for seen in log:
        _take(record, seen, started_at)
    return record


def _take(record: Record, seen: Seen, started_at: float) -> None:
    at_ms = ms(seen.at_s)
    match seen.message:
        case PartialTranscript(utterance=utterance, text=text):
            record.written.append(Written(at_ms, utterance, text, final=False))
        case FinalTranscript(utterance=utterance, text=text):
            record.written.append(Written(at_ms, utterance, text, final=True))
        case Say(utterance=number, generation=generation, text=text):
            known = record.utterances.setdefault(number, Utterance(utterance=number, generation=generation, text=""))
            known.text += text
        case PlayoutStarted(utterance=number, generation=generation, sent_at=sent_at):
            # The edge says some things by itself: nobody has told their text, then.
            said = Utterance(utterance=number, generation=generation, text="")
            record.utterances.setdefault(number, said).sent_ms = ms(sent_at - started_at)
        case PlayoutFinished(utterance=number) if number in record.utterances:
            record.utterances[number].played_ms = record.utterances[number].played_ms or at_ms
        case PlayoutCut(utterance=number) as cut if number in record.utterances:
            record.utterances[number].cut = cut
        case Interrupt(generation=generation, reason=reason):
            record.stops.append(Stop(at_ms, generation, reason))
        case Event(wall_at=wall_at) as event:
            record.events.append((ms(wall_at - started_at), event))
        case _:
            _take_line(record, seen, at_ms)


def _take_line(record: Record, seen: Seen, at_ms: int) -> None:
    if seen.who != "line":
        return
    if seen.what == _CLEAR:
        record.clears_ms.append(at_ms)
    elif seen.what == _MARK_RETURNED:
        utterance = utterance_of(seen.text)
        # A clear returns marks as well; what came back in the same instant was not played.
        if utterance in record.utterances and at_ms not in record.clears_ms:
            record.utterances[utterance].played_ms = at_ms


def utterance_of(mark: str) -> int:
    """Return the agent's utterance that the mark ``<generation>.<utterance>`` ends; -1 if it is no such mark."""
    _, _, number = mark.partition(".")
    return int(number) if number.isdecimal() else -1
