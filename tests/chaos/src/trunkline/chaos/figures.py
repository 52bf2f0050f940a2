"""What a fault cost its calls, in milliseconds: what callers heard of it, and when the parts were back. Pure.

Silence is measured at the ear: between two words of an answer there are 40 ms of it, and before an answer as much as in
turns of the same run that no fault came near to. What goes beyond is the fault's.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from trunkline.chaos.codebook import PAUSE_MS, answer
from trunkline.chaos.ear import HeardWord
from trunkline.chaos.evidence import Asked, CallEvidence, Evidence, Fault, Note, by_call
from trunkline.chaos.script import WANTS_TOOL

REACH_S: Final = 15.0
"""How long after a fault what is heard may still be its doing."""
_AT_ONCE_S: Final = 0.1
"""A call that ends so soon before a fault ended by it: the caller's time comes in steps."""
_PLAIN_S: Final = 1.2
_TOOL_S: Final = 0.6
"""What is taken for usual when no turn of the run was left in peace; and how much longer it takes with a tool."""
_STAGES: Final = ("stt", "brain", "tts")


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What one fault cost one call. None: there was nothing to measure."""

    kind: str
    service: str
    fault_t: float
    call: str
    state: str
    extra_silence_ms: float | None = None
    """The longest silence around the fault, beyond what there would have been."""
    reclaim_ms: float | None = None
    """From the fault until somebody else was assigned, or another edge had the call."""
    first_frame_ms: float | None = None
    """From the fault until a new STT worker heard a frame."""
    next_audio_ms: float | None = None
    """From the fault to the next audio of the agent's that an edge played, if the agent was speaking or to speak."""


class Usual(NamedTuple):
    """How long a caller waits for an answer when nothing is wrong, s."""

    plain: float
    tool: float
    """When a tool is asked first."""

    def of(self, asked: Asked) -> float:
        """Return how long the answer to this question takes."""
        return self.tool if asked.question == WANTS_TOOL else self.plain


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """A figure over many faults."""

    n: int
    p50: float
    p95: float
    max: float


def costs(evidence: Evidence) -> list[Cost]:
    """Return what every fault cost every call it hit."""
    calls = by_call(evidence)
    usual = usual_of(calls)
    found = []
    for fault in sorted(evidence.faults, key=lambda fault: fault.t):
        for call in calls:
            if call.caller.began_t < fault.t < call.caller.ended_t + _AT_ONCE_S and hit(call, fault):
                others = (other.t for other in call.faults if other.t > fault.t and hit(call, other))
                found.append(_cost(call, fault, usual, min(fault.t + REACH_S, min(others, default=math.inf))))
    return found


def hit(call: CallEvidence, fault: Fault) -> bool:
    """Return whether the fault was one of this call's: of its worker, its edge, or of what all share."""
    if not fault.worker:
        return True
    if fault.service == "edge":
        return serving_edge(call, fault.t) == fault.worker
    return serving(call, fault.service, fault.t) == fault.worker


def serving(call: CallEvidence, stage: str, at_t: float) -> str:
    """Return who served `stage` at that time."""
    worker = ""
    for note in call.noted("assigned"):
        if note.stage == stage and note.t <= at_t:
            worker = note.worker
    return worker


def serving_edge(call: CallEvidence, at_t: float) -> str:
    """Return whose call it was at that time."""
    edge = ""
    for note in call.noted("assigned", "audio", "frame"):
        if note.t > at_t:
            break
        edge = note.who
    return edge


def usual_of(calls: Iterable[CallEvidence]) -> Usual:
    """Return the median times from a question's end to the answer's first word, of turns that no fault came near to."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for call in calls:
        for asked, latency_s in latencies(call):
            begin, end = asked.ended_t - 5.0, asked.ended_t + latency_s + 2.0
            if not any(begin < fault.t < end and hit(call, fault) for fault in call.faults):
                found[asked.question == WANTS_TOOL].append(latency_s)
    plain_s = percentile(found[False], 50) if found[False] else _PLAIN_S
    return Usual(plain_s, percentile(found[True], 50) if found[True] else plain_s + _TOOL_S)


def latencies(call: CallEvidence) -> list[tuple[Asked, float]]:
    """Return every answered question, and how long after its end the answer's first word came."""
    first: dict[str, float] = {}
    for word in call.caller.words:
        first.setdefault(word.text, word.at_s)
    found = []
    for asked in call.caller.asked:
        words = answer(call.caller.call, asked.question)
        came = [first[word] for word in words if word in first]
        if came:
            found.append((asked, min(came) - asked.ended_t))
    return found


def _cost(call: CallEvidence, fault: Fault, usual: Usual, until_t: float) -> Cost:
    stage = fault.service if fault.service in _STAGES else ""
    after = [note for note in call.notes if note.t > fault.t]
    soon = [note for note in after if note.t <= until_t]
    if fault.service == "edge":
        back = next((n for n in soon if n.what in ("assigned", "frame") and n.who != fault.worker), None)
    else:
        back = next((n for n in soon if n.what == "assigned" and n.epoch > 1 and stage in ("", n.stage)), None)
    heard = None
    if stage == "stt" and back is not None:
        heard = next((n for n in after if n.what == "heard" and n.who != fault.worker), None)
    silence_s = extra_silence_s(call, fault, usual, until_t)
    return Cost(
        kind=fault.kind,
        service=fault.service,
        fault_t=fault.t,
        call=call.caller.call,
        state=fault.state if call.caller.call == fault.aimed_at else "",
        extra_silence_ms=None if silence_s is None else 1_000 * silence_s,
        reclaim_ms=_since(fault, back),
        first_frame_ms=_since(fault, heard),
        next_audio_ms=_next_audio_ms(call, fault, after),
    )


def extra_silence_s(call: CallEvidence, fault: Fault, usual: Usual, until_t: float) -> float | None:
    """Return the longest silence begun between the fault and `until_t` that the conversation does not explain."""
    words = sorted((word for word in call.caller.words if word.counts), key=lambda word: word.at_s)
    longest: float | None = None
    for before, word in _pairs(words):
        begin = before.end_s if before is not None else call.caller.began_t
        if word.at_s < fault.t or begin > until_t:
            continue
        asked = [asked for asked in call.caller.asked if begin <= asked.ended_t <= word.at_s]
        explained = PAUSE_MS / 1_000
        if asked:
            begin, explained = asked[-1].ended_t, usual.of(asked[-1])
            if word.at_s < fault.t:
                continue
        extra = max(0.0, word.at_s - begin - explained)
        longest = extra if longest is None else max(longest, extra)
    return longest


def _pairs(words: Sequence[HeardWord]) -> Iterable[tuple[HeardWord | None, HeardWord]]:
    return zip([None, *words], words, strict=False)


def _next_audio_ms(call: CallEvidence, fault: Fault, after: Sequence[Note]) -> float | None:
    silent_until = next((asked.began_t for asked in call.caller.asked if asked.began_t > fault.t), math.inf)
    played = next((note for note in after if note.what == "audio" and note.verdict == "played"), None)
    if played is None or played.t > silent_until:
        return None  # the agent had said all it had to
    return _since(fault, played)


def _since(fault: Fault, note: Note | None) -> float | None:
    return None if note is None else 1_000 * (note.t - fault.t)


def spread(values: Iterable[float | None]) -> Spread | None:
    """Return how the figures that are there lie."""
    found = sorted(value for value in values if value is not None)
    if not found:
        return None
    return Spread(n=len(found), p50=percentile(found, 50), p95=percentile(found, 95), max=found[-1])


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` of `values` do not exceed.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("there are no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


class Slope(msgspec.Struct, frozen=True, kw_only=True):
    """How a reading grows, per hour, and how sure that is (95 %)."""

    per_hour: float
    low: float
    high: float
    n: int


def slope(samples: Sequence[tuple[float, float]]) -> Slope | None:
    """Fit a line through ``(seconds, reading)``; None with too few of them."""
    count = len(samples)
    if count < 4:
        return None
    mean_t = sum(t for t, _ in samples) / count
    mean_y = sum(y for _, y in samples) / count
    spread_t = sum((t - mean_t) ** 2 for t, _ in samples)
    if spread_t == 0:
        return None
    rise = sum((t - mean_t) * (y - mean_y) for t, y in samples) / spread_t
    left = sum((y - mean_y - rise * (t - mean_t)) ** 2 for t, y in samples)
    error = math.sqrt(left / (count - 2) / spread_t)
    # Student's t at 97.5 %, by its expansion about the normal's (within 1 % from 4 degrees of freedom on).
    free, z = count - 2, 1.959964
    factor = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    hour = 3_600.0
    return Slope(per_hour=rise * hour, low=(rise - factor * error) * hour, high=(rise + factor * error) * hour, n=count)
