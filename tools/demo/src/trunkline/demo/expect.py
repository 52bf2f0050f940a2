"""What the demo promises about its call, beyond what its scenario asks for. Pure: a report in, verdicts out."""

from collections.abc import Iterable
from typing import Final

from trunkline.call import Verdict
from trunkline.call.words import words_of
from trunkline.demo.report import Report
from trunkline.proto.events import CallEnded, CallStarted

LEAST_CALLER_TURNS: Final = 5
MOST_WER: Final = 0.2
QUIETEST_RMS_DBFS: Final = -40.0
SLOWEST_STOP_MS: Final = 700


def promises(report: Report) -> tuple[Verdict, ...]:
    """Return a verdict for each promise."""
    return tuple(_judged(report))


def _judged(report: Report) -> Iterable[Verdict]:
    totals = report.totals
    yield _verdict(
        "caller turns", f"≥ {LEAST_CALLER_TURNS}", totals.caller_turns, passed=totals.caller_turns >= LEAST_CALLER_TURNS
    )
    yield _verdict(
        "every turn transcribed as spoken",
        f"word errors < {MOST_WER:.0%}",
        f"worst {totals.worst_wer:.0%}",
        passed=totals.caller_turns > 0 and totals.worst_wer < MOST_WER,
    )
    yield _verdict("barge-ins", "1 or more", totals.barge_ins, passed=totals.barge_ins >= 1)
    slowest = max((cut.stopped_after_ms for cut in report.interrupts), default=0)
    yield _verdict("agent falls silent", f"≤ {SLOWEST_STOP_MS} ms", f"{slowest} ms", passed=slowest <= SLOWEST_STOP_MS)
    old_ms = sum(cut.old_generation_audio_after_clear_ms for cut in report.interrupts)
    yield _verdict("old audio after a barge-in", "0 ms", f"{old_ms} ms", passed=old_ms == 0)
    yield _goodbye(report)
    for name, level in (("caller", report.recording.caller), ("agent", report.recording.agent)):
        found = f"{level.rms_dbfs:g} dBFS, {level.voiced_ms / 1_000:.1f} s of voice"
        audible = level.rms_dbfs >= QUIETEST_RMS_DBFS and level.voiced_ms > 0
        yield _verdict(f"{name} audible in the recording", f"≥ {QUIETEST_RMS_DBFS:g} dBFS", found, passed=audible)
    for kind in (CallStarted, CallEnded):
        count = sum(isinstance(seen.event.fact, kind) for seen in report.events)
        yield _verdict(str(kind.__struct_config__.tag), "exactly one", count, passed=count == 1)


def _goodbye(report: Report) -> Verdict:
    """Judge whether the last words were heard in full before the line was closed."""
    spoken = [turn.agent for turn in report.turns if turn.agent is not None]
    last = spoken[-1] if spoken else None
    name, expected = "goodbye heard in full before hanging up", "all of it"
    if last is None:
        return _verdict(name, expected, "the agent said nothing", passed=False)
    if last.interrupted or words_of(last.heard) != words_of(last.said):
        return _verdict(name, expected, f"“{last.heard}” of “{last.said}”", passed=False)
    after_ms = report.recording.duration_ms - last.ends_ms
    return _verdict(name, expected, f"all of it, {after_ms} ms before the end", passed=after_ms >= 0)


def _verdict(name: str, expected: str, found: object, *, passed: bool) -> Verdict:
    return Verdict(name=name, expected=expected, found=str(found), passed=passed)
