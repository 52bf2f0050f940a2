"""What a run left in its folder, read back as evidence; and what is kept of it."""

import gzip
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from trunkline.bus import Bus, BusError, recorded
from trunkline.chaos.evidence import CallerRecord, Effect, Evidence, Fault, Note, Sample
from trunkline.chaos.rig import Folders
from trunkline.chaos.who import WORKER_ID
from trunkline.proto.events import Event

_NOTE: Final = msgspec.json.Decoder(Note)
_RECORD: Final = msgspec.json.Decoder(CallerRecord)
_EFFECT: Final = msgspec.json.Decoder(Effect)
_EVENT: Final = msgspec.json.Decoder(Event)

T = TypeVar("T")


def gather(
    folders: Folders,
    events_file: Path,
    faults: Sequence[Fault],
    stored: tuple[str, ...] | None,
    samples: Sequence[Sample] = (),
) -> Evidence:
    """Return all that a run has left.

    Raises:
        OSError: a file cannot be read.
        msgspec.MsgspecError: a line in the midst of a file is not what it should be.
    """
    notes = [note for path in sorted(folders.journals.glob("*.jsonl")) for note in _signed(path)]
    callers = [record for path in folders.callers() for record in _lines(path, _RECORD)]
    return Evidence(
        notes=tuple(sorted(notes, key=lambda note: note.t)),
        callers=tuple(sorted(callers, key=lambda record: record.began_t)),
        effects=tuple(_lines(folders.effects, _EFFECT)),
        events=tuple(_lines(events_file, _EVENT)),
        stored=stored,
        faults=tuple(faults),
        samples=tuple(samples),
    )


def _signed(path: Path) -> list[Note]:
    """Return the notes of one process, each with a name that no other process has."""
    return [
        note if WORKER_ID.fullmatch(note.who) else msgspec.structs.replace(note, who=path.stem)
        for note in _lines(path, _NOTE)
    ]


async def stored_ids(bus: Bus) -> tuple[str, ...] | None:
    """Return the ids of all facts in the stream, once each; None if it cannot be read."""
    try:
        return tuple(dict.fromkeys([record.id async for record in recorded(bus)]))
    except BusError:
        return None


def keep(evidence: Evidence, calls: Iterable[str], path: Path) -> None:
    """Write what there is about these calls, compressed: a line per item, tagged with what it is."""
    wanted = set(calls)
    with gzip.open(path, "wb") as out:
        for kind, items in (
            ("caller", evidence.callers),
            ("event", evidence.events),
            ("effect", evidence.effects),
            ("note", evidence.notes),
        ):
            for item in items:
                if item.call in wanted:
                    out.write(msgspec.json.encode({"kind": kind, "is": item}) + b"\n")
        for fault in evidence.faults:
            out.write(msgspec.json.encode({"kind": "fault", "is": fault}) + b"\n")


def _lines(path: Path, decoder: "msgspec.json.Decoder[T]") -> list[T]:
    if not path.exists():
        return []
    *lines, last = path.read_bytes().split(b"\n")
    if last:  # whoever wrote it was killed within the line
        try:
            return [*map(decoder.decode, lines), decoder.decode(last)]
        except msgspec.MsgspecError:
            pass
    return [decoder.decode(line) for line in lines]
