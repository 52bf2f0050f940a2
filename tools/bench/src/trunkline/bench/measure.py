"""A load, made and observed: what the callers saw, what those who served them paid, and what they told of it."""

import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from trunkline.bench.lines import Load, Made
from trunkline.bench.parts import Parts, mean, measured, split
from trunkline.bench.platform import Reading, Subject
from trunkline.bench.scrape import Bounds, Told, Traffic, bounds

CALLERS: Final = "callers"
"""Who is not the platform, among what a call costs."""
LATE_MS: Final = 10.0
"""Callers who send later than this, at the 99th percentile, prove nothing about whom they call."""
SILENCE_MS: Final = 200.0
"""What agent ``bench`` waits for, and its peers do."""
_BEGINNING_S: Final = 6.0
"""Until the generator has started, and the greetings are over."""
_SAMPLE_S: Final = 1.0
_DECODER: Final = msgspec.json.Decoder(Made)


class Spread(msgspec.Struct, frozen=True):
    """Of many values."""

    n: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    p999: float = 0.0
    highest: float = 0.0


class Flow(msgspec.Struct, frozen=True):
    """What goes over the bus, per call and second."""

    in_msgs: float
    out_msgs: float
    in_kib: float
    out_kib: float


class Growth(msgspec.Struct, frozen=True):
    """Of memory while calls came and went, MiB per 100 calls, by least squares, with its 95 % confidence."""

    mib_per_100_calls: float
    within: float


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """What one number of calls came to. Times are milliseconds."""

    calls: int
    """At once."""
    core_percent_per_call: dict[str, float]
    """Of one core; ``callers`` is the generator."""
    mib_per_call: dict[str, float]
    """Memory with all calls there less memory without any."""
    response_ms: Spread
    """End of the caller's words to the first audio, the configured silence included."""
    parts_ms: Parts
    """Where the mean response went."""
    platform_ms: Spread
    """Of every turn, what is neither silence nor the detector's idea of it."""
    answering_ms: Spread
    """Of that, what follows the judgement that the turn is over."""
    interrupt_ms: Spread
    """First sound of words spoken in between to `clear`."""
    gaps: Spread
    """Silence within a sentence, ms."""
    told: dict[str, dict[str, Bounds]]
    """Histograms that services keep, by name, then by service."""
    flow: Flow
    growth: dict[str, Growth] = {}
    """By service; only where calls came and went."""
    heard_s: float
    lag_ms: Spread
    """By how much callers sent late."""
    unanswered: int
    closed_early: int
    failed: int

    @property
    def ours(self) -> float:
        """Percent of a core that platform and bus pay for a call."""
        return sum(share for name, share in self.core_percent_per_call.items() if name != CALLERS)

    @property
    def served(self) -> bool:
        """Whether every caller got what they came for, without a gap that anybody hears."""
        return not (self.failed or self.closed_early or self.unanswered or self.gaps.n)

    @property
    def proves(self) -> bool:
        """Whether the callers were in time."""
        return self.lag_ms.p99 <= LATE_MS


async def observe(load: Load, subject: Subject) -> Column:
    """Have `load` made, by a process of its own, and read meanwhile what `subject` pays.

    Raises:
        RuntimeError: the generator failed.
    """
    idle = subject.read()
    callers = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "trunkline.bench.lines", *_options(load), stdout=asyncio.subprocess.PIPE
    )
    generated = asyncio.create_task(callers.communicate())
    try:
        await asyncio.sleep((load.each_s or load.calls / load.per_s) + _BEGINNING_S)
        before = _Look(subject.read(), await subject.ask(), time.monotonic())
        samples = await _sample(subject, (load.calls / load.per_s - load.each_s if load.each_s else load.last_s))
        after = _Look(subject.read(), await subject.ask(), time.monotonic())
        out, _ = await generated
    finally:
        if callers.returncode is None:
            callers.kill()
    if callers.returncode:
        raise RuntimeError(f"the callers failed with exit code {callers.returncode}")
    # Facts are written some time after they happened.
    await asyncio.sleep(1.0)
    return _column(load, subject, _DECODER.decode(out), idle, (before, after), samples)


class _Look(NamedTuple):
    readings: dict[str, Reading]
    told: Told
    at_s: float


async def _sample(subject: Subject, window_s: float) -> list[tuple[float, dict[str, Reading]]]:
    """Read every second until the calls are nearly over."""
    until = time.monotonic() + window_s - _BEGINNING_S
    samples = []
    while time.monotonic() < until:
        samples.append((time.monotonic(), subject.read()))
        await asyncio.sleep(min(_SAMPLE_S, max(0.0, until - time.monotonic())))
    return samples


def _column(
    load: Load,
    subject: Subject,
    made: Made,
    idle: dict[str, Reading],
    between: tuple[_Look, _Look],
    samples: list[tuple[float, dict[str, Reading]]],
) -> Column:
    before, after = between
    took_s = after.at_s - before.at_s
    at_once = round(load.per_s * load.each_s) if load.each_s else load.calls
    paid = {name: after.readings[name].cpu_s - before.readings[name].cpu_s for name in after.readings}
    shares = {name: 100 * spent_s / took_s / at_once for name, spent_s in paid.items()}
    shares[CALLERS] = 100 * made.cpu_s / (made.over_s - made.all_there_s) / at_once
    to_wall = time.time() - time.monotonic()
    turns = (
        [split(t, SILENCE_MS) for t in measured(subject.events, made.all_there_s + to_wall, made.over_s + to_wall)]
        if subject.events is not None
        else []
    )

    def values(field: str) -> Spread:
        return spread([ms for seen in made.calls for at, ms in getattr(seen, field) if at >= made.all_there_s])

    response = values("responses")
    return Column(
        calls=at_once,
        core_percent_per_call=shares,
        mib_per_call={name: (after.readings[name].rss_mib - idle[name].rss_mib) / at_once for name in idle},
        response_ms=response,
        parts_ms=mean(turns, response.mean),
        platform_ms=spread([turn.platform for turn in turns]),
        answering_ms=spread([turn.answering for turn in turns]),
        interrupt_ms=values("interrupts"),
        gaps=values("gaps"),
        told={
            name: {service: bounds(before.told.histograms[name].get(service, {}), late) for service, late in by.items()}
            for name, by in after.told.histograms.items()
        },
        flow=_flow(after.told.traffic.since(before.told.traffic), took_s * at_once),
        growth=_growths(samples, load.per_s) if load.each_s else {},
        heard_s=sum(seen.heard_s for seen in made.calls),
        lag_ms=spread(made.lag_ms),
        unanswered=sum(seen.unanswered for seen in made.calls),
        closed_early=sum(seen.closed_early for seen in made.calls),
        failed=made.failed,
    )


def spread(values: Sequence[float]) -> Spread:
    """Return mean and percentiles of `values`."""
    if not values:
        return Spread()
    p50, p95, p99, p999 = (float(value) for value in np.percentile(values, [50, 95, 99, 99.9]))
    return Spread(len(values), float(np.mean(values)), p50, p95, p99, p999, max(values))


def _flow(traffic: Traffic, call_seconds: float) -> Flow:
    messages = traffic.in_msgs / call_seconds, traffic.out_msgs / call_seconds
    return Flow(*messages, traffic.in_bytes / call_seconds / 1_024, traffic.out_bytes / call_seconds / 1_024)


def _growths(samples: list[tuple[float, dict[str, Reading]]], calls_per_s: float) -> dict[str, Growth]:
    """Return how memory grew over the later half, when what is made once has been made."""
    later = samples[len(samples) // 2 :]
    if len(later) < 3:
        return {}
    calls = [at * calls_per_s / 100 for at, _ in later]
    names = later[0][1]
    return {name: growth(calls, [readings[name].rss_mib for _, readings in later]) for name in names}


def growth(at: Sequence[float], mib: Sequence[float]) -> Growth:
    """Return the slope of `mib` over `at`, and half its 95 % interval (normal approximation)."""
    slope, intercept = statistics.linear_regression(at, mib)
    rest = [value - (intercept + slope * where) for where, value in zip(at, mib, strict=True)]
    spread_of_at = sum((where - statistics.fmean(at)) ** 2 for where in at)
    error = (sum(one * one for one in rest) / max(1, len(at) - 2) / spread_of_at) ** 0.5
    return Growth(slope, 1.96 * error)


def _options(load: Load) -> list[str]:
    values = {"--url": load.url, "--calls": load.calls, "--per-s": load.per_s, "--last-s": load.last_s}
    values |= {"--interrupt-every": load.interrupt_every, "--each-s": load.each_s}
    return [str(part) for pair in values.items() for part in pair]
