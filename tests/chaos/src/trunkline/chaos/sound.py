"""Rules about sound on its way: who may speak to the caller, and which of the caller's frames were heard. Pure."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from trunkline.chaos.evidence import CallEvidence, Note, Violation

PLAYED: Final = "played"
OWN: Final = 0
"""The epoch of clips, which an edge plays by itself: of no worker's."""
BREAK_S: Final = 0.3
"""How much sooner than an outage is noted a frame may already be lost, and how much later the call be over."""
TAIL_FRAMES: Final = 16
"""Frames sent in the last half second of a call: whoever lets it go need not hear them."""
UNSENT_S: Final = 0.05
"""What an edge hands to its socket so soon before it is killed may never have left it."""


def one_speaker(call: CallEvidence, counts: Counter[str]) -> Iterator[Violation]:
    """What edges played never goes back: not to a lower epoch, generation or utterance, not to an earlier chunk."""
    latest: tuple[int, int, int, int] | None = None
    for note in call.noted("audio"):
        if note.verdict != PLAYED:
            counts["chunks fenced"] += 1
            counts[f"chunks fenced: {note.verdict or 'unnamed'}"] += 1
            continue
        if note.epoch == OWN:
            counts["chunks of the edge's own clips played"] += 1
            continue
        counts["chunks played"] += 1
        this = (note.generation, note.epoch, note.utterance, note.seq)
        if latest is not None:
            yield from _back(call, note, latest)
        latest = this if latest is None else max(latest, this)


def _back(call: CallEvidence, note: Note, latest: tuple[int, int, int, int]) -> Iterator[Violation]:
    generation, epoch, utterance, seq = latest
    problem = ""
    if note.generation < generation:
        problem = f"generation {note.generation} after {generation}"
    elif note.epoch < epoch:
        problem = f"epoch {note.epoch} after {epoch}"
    elif (note.generation, note.epoch) == (generation, epoch):
        if note.utterance < utterance:
            problem = f"utterance {note.utterance} after {utterance}"
        elif note.utterance == utterance and note.seq <= seq:
            problem = f"chunk {note.seq} of utterance {utterance} after {seq}"
    if problem:
        yield Violation(rule="two-speakers", call=call.caller.call, t=note.t, text=f"played {problem}")


def stale_is_fenced(call: CallEvidence, counts: Counter[str]) -> Iterator[Violation]:
    """Once another TTS worker is assigned, an edge plays nothing of the one before."""
    assigned: dict[str, int] = {}
    for note in call.noted("assigned", "audio"):
        if note.what == "assigned":
            if note.stage == "tts":
                counts["voices assigned"] += 1
                assigned[note.who] = max(note.epoch, assigned.get(note.who, 0))
            continue
        current = assigned.get(note.who, 0)
        if note.verdict == PLAYED and OWN < note.epoch < current:
            yield Violation(
                rule="stale-played",
                call=call.caller.call,
                t=note.t,
                text=f"epoch {note.epoch} was played while {current} was assigned",
            )


def frames_heard(call: CallEvidence, counts: Counter[str]) -> Iterator[Violation]:
    """Every frame of the caller's was heard by some STT worker, or lies before audio that is done with."""
    caller = call.caller.call
    sent: dict[int, float] = {}
    senders: dict[int, str] = {}
    heard: set[int] = set()
    committed = -1
    for note in call.notes:
        match note.what:
            case "frame":
                counts["frames sent again"] += bool(note.replay)
                sent.setdefault(note.seq, note.t)
                senders[note.seq] = note.who
            case "heard":
                heard.add(note.seq)
            case "final":
                committed = max(committed, note.committed)
    counts["frames sent"] += len(sent)
    counts["frames heard"] += len(heard)
    if not sent:
        counts["calls without any frame noted"] += 1
        return
    last = max(sent)
    end = min(last - TAIL_FRAMES, _before_outage(call, sent))
    unheard = [seq for seq in sorted(sent) if seq not in heard and seq > committed and seq <= end]
    killed = {fault.worker: fault.t for fault in call.faults if fault.service == "edge"}
    deaf = [seq for seq in unheard if sent[seq] < killed.get(senders[seq], math.inf) - UNSENT_S]
    counts["frames that went down with their edge"] += len(unheard) - len(deaf)
    for begin, end in _stretches(deaf):
        counts["frames nobody heard"] += end - begin + 1
        text = f"frames {begin} to {end} were sent, and no worker heard them"
        yield Violation(rule="frame-lost", call=caller, t=sent[begin], text=text)
    # What an edge never sent at all: it may have had no line to get it from.
    never = [seq for seq in range(last) if seq not in sent]
    for begin, end in _stretches(never):
        if call.caller.gaps:
            counts["frame numbers skipped over a lost line"] += end - begin + 1
            continue
        counts["frames never sent"] += end - begin + 1
        text = f"frames {begin} to {end} were never sent to anybody"
        yield Violation(rule="frame-not-sent", call=caller, t=sent[last], text=text)


def _before_outage(call: CallEvidence, sent: Mapping[int, float]) -> int:
    """Return the last frame before the outage of the bus in which the call ended, if it did: nobody waits for more."""
    last = max(sent)
    since = [
        fault.t - BREAK_S
        for fault in call.faults
        if fault.service == "nats" and fault.t <= sent[last] + BREAK_S <= fault.until_t + 2 * BREAK_S
    ]
    return max((seq for seq, t in sent.items() if t < min(since)), default=-1) if since else last


def _stretches(seqs: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and last of every run of consecutive numbers."""
    begin = previous = None
    for seq in seqs:
        if previous is None or seq != previous + 1:
            if begin is not None and previous is not None:
                yield begin, previous
            begin = seq
        previous = seq
    if begin is not None and previous is not None:
        yield begin, previous
