"""Whether a call was what its scenario expected. Pure: recordings and facts in, verdicts out."""

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from trunkline.audio.levels import Voicing, voiced_spans
from trunkline.call.caller import AUDIBLE_DBFS
from trunkline.call.scenario import Expect
from trunkline.call.seen import Spoken, Verdict
from trunkline.call.words import contains, word_error_rate
from trunkline.testing.twilio import RATE_HZ

_STOPPED_S = 0.3
"""A pause of the agent this long means that it has stopped."""

Stretch = tuple[float, float]


class BusRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the bus told about the call."""

    finals: tuple[tuple[float, str], ...] = ()
    """When each final transcript was seen, in seconds of the stream, and its text."""
    tools: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    """Every sentence the agent meant to say."""
    ended_reason: str | None = None


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a call that is over."""

    duration_s: float
    ended_by_agent: bool
    agent: Sequence[Stretch]
    """When the agent was audible."""
    spoken: Sequence[Spoken]
    last_act_s: float
    problem: str | None = None
    bus: BusRecord | None = None


def audible(samples: NDArray[np.int16]) -> list[Stretch]:
    """Return when there is sound in `samples` (8 kHz), in seconds, to 20 ms."""
    rule = Voicing(threshold_dbfs=AUDIBLE_DBFS, join_gap_ms=60, min_ms=20)
    return [(span.start_ms / 1_000, span.end_ms / 1_000) for span in voiced_spans(samples, RATE_HZ, rule)]


def judge(expect: Expect, evidence: Evidence) -> list[Verdict]:
    """Return a verdict for everything `expect` names, and one on whether the steps could be played."""
    verdicts = [
        Verdict(
            name="scenario played",
            expected="to its end",
            found=evidence.problem or "to its end",
            passed=evidence.problem is None,
        )
    ]
    verdicts += _heard(expect, evidence)
    verdicts += _ended(expect, evidence)
    verdicts += _on_the_bus(expect, evidence)
    return verdicts


def _heard(expect: Expect, evidence: Evidence) -> Iterator[Verdict]:
    first_s = evidence.agent[0][0] if evidence.agent else None
    if (limit_s := expect.agent_speaks_within_s) is not None:
        yield _within("agent speaks", limit_s, first_s)
    if (limit_s := expect.answers_within_s) is not None:
        for spoken, answer_s in _answers(evidence, limit_s):
            name = f"answers {_shown(spoken)}"
            yield _within(name, limit_s, None if answer_s is None else answer_s - spoken.end_s)
    if (least_s := expect.agent_speech_at_least_s) is not None:
        total_s = sum(end_s - start_s for start_s, end_s in evidence.agent)
        yield Verdict(
            name="agent speech", expected=f"≥ {least_s:g} s", found=f"{total_s:.2f} s", passed=total_s >= least_s
        )
    if (limit_ms := expect.stops_within_ms) is not None:
        for spoken in evidence.spoken:
            if spoken.barge_in:
                stop_ms = 1_000 * (_stop_s(evidence.agent, spoken.start_s) - spoken.start_s)
                yield Verdict(
                    name=f"stops for {_shown(spoken)}",
                    expected=f"≤ {limit_ms} ms",
                    found=f"{stop_ms:.0f} ms",
                    passed=stop_ms <= limit_ms,
                )


def _answers(evidence: Evidence, limit_s: float) -> Iterator[tuple[Spoken, float | None]]:
    """Pair what the caller said with when the agent was next heard, where an answer was due."""
    for i, spoken in enumerate(evidence.spoken):
        if spoken.barge_in or spoken.end_s > evidence.duration_s:
            continue
        answer_s = next((max(start_s, spoken.end_s) for start_s, end_s in evidence.agent if end_s > spoken.end_s), None)
        next_s = evidence.spoken[i + 1].start_s if i + 1 < len(evidence.spoken) else None
        if next_s is not None and (answer_s is None or answer_s >= next_s):
            continue
        if answer_s is None and not evidence.ended_by_agent and evidence.duration_s - spoken.end_s < limit_s:
            continue
        yield spoken, answer_s


def _stop_s(agent: Sequence[Stretch], from_s: float) -> float:
    """Return when the agent, who may be speaking at `from_s`, first pauses for long; `from_s` if it does already."""
    stop_s = from_s
    for start_s, end_s in agent:
        if end_s > stop_s and start_s <= stop_s + _STOPPED_S:
            stop_s = end_s
    return stop_s


def _ended(expect: Expect, evidence: Evidence) -> Iterator[Verdict]:
    if (limit_s := expect.agent_hangs_up_within_s) is not None:
        after_s = evidence.duration_s - evidence.last_act_s
        if evidence.ended_by_agent:
            yield _within("agent hangs up", limit_s, after_s)
        else:
            yield Verdict(name="agent hangs up", expected=f"≤ {limit_s:g} s", found="the caller hung up", passed=False)


def _on_the_bus(expect: Expect, evidence: Evidence) -> Iterator[Verdict]:
    bus = evidence.bus
    if (limit := expect.word_error_rate_at_most) is not None:
        for spoken, written in _transcripts(evidence):
            rate = word_error_rate(spoken.words or "", written or "")
            yield Verdict(
                name=f"hears {_shown(spoken)}",
                expected=f"word error ≤ {limit:.0%}",
                found=_UNSEEN if written is None else f"{rate:.0%} “{written}”",
                passed=None if written is None else rate <= limit,
            )
    if expect.tools is not None:
        found = None if bus is None else bus.tools
        yield _same("tools", ", ".join(expect.tools) or "none", None if found is None else ", ".join(found) or "none")
    if expect.ended_reason is not None:
        yield _same("ended reason", expect.ended_reason, None if bus is None else bus.ended_reason or "no call.ended")
    for phrase in expect.agent_says:
        said = None if bus is None else " ".join(bus.said)
        yield Verdict(
            name="agent says",
            expected=f"“{phrase}”",
            found=_UNSEEN if said is None else "said" if contains(said, phrase) else "not said",
            passed=None if said is None else contains(said, phrase),
        )


def _transcripts(evidence: Evidence) -> Iterator[tuple[Spoken, str | None]]:
    """Pair what the caller said with what was written between its start and the caller's next words."""
    for i, spoken in enumerate(evidence.spoken):
        if spoken.words is None:
            continue
        until_s = evidence.spoken[i + 1].start_s if i + 1 < len(evidence.spoken) else float("inf")
        if evidence.bus is None:
            yield spoken, None
        else:
            yield spoken, " ".join(text for at_s, text in evidence.bus.finals if spoken.start_s <= at_s < until_s)


_UNSEEN = "not judged: the bus was not watched"


def _same(name: str, expected: str, found: str | None) -> Verdict:
    return Verdict(
        name=name, expected=expected, found=found or _UNSEEN, passed=None if found is None else found == expected
    )


def _within(name: str, limit_s: float, found_s: float | None) -> Verdict:
    return Verdict(
        name=name,
        expected=f"≤ {limit_s:g} s",
        found="never" if found_s is None else f"{found_s:.2f} s",
        passed=found_s is not None and found_s <= limit_s,
    )


def _shown(spoken: Spoken) -> str:
    words = spoken.words or f"step {spoken.step + 1}"
    return f"“{words}”" if len(words) <= 32 else f"“{words[:30].rstrip()}…”"
