"""A load, made and observed: what the callers saw, and what those who served them paid."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from trunkline.bench.lines import Load, Made
from trunkline.bench.platform import Reading, read

LATE_MS: Final = 10.0
"""Callers who send later than this, at the 99th percentile, prove nothing about whom they call."""
_BEGINNING_S: Final = 6.0
"""Until the generator has started, and the greetings are over."""
_DECODER: Final = msgspec.json.Decoder(Made)


class Spread(msgspec.Struct, frozen=True):
    """Of many values."""

    n: int
    p50: float
    p95: float
    p99: float
    p999: float
    highest: float


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """What one number of calls came to."""

    calls: int
    core_percent_per_call: dict[str, float]
    """Of one core; ``callers`` is the generator."""
    mib_per_call: dict[str, float]
    """Memory with all calls there less memory without any."""
    response_ms: Spread
    """End of the caller's words to the first audio, the configured silence included."""
    interrupt_ms: Spread
    """First sound of words spoken in between to `clear`."""
    gaps: Spread
    """Silence within a sentence, ms."""
    heard_s: float
    lag_ms: Spread
    """By how much callers sent late."""
    unanswered: int
    closed_early: int
    failed: int

    @property
    def ours(self) -> float:
        """Percent of a core that platform and bus pay for a call."""
        return sum(share for name, share in self.core_percent_per_call.items() if name != "callers")

    @property
    def proves(self) -> bool:
        """Whether the callers were in time, and all served."""
        return self.lag_ms.p99 <= LATE_MS and not (self.failed or self.closed_early)


async def observe(load: Load, pids: Mapping[str, list[int]]) -> Column:
    """Have `load` made, by a process of its own, and read meanwhile what `pids` pay.

    Raises:
        RuntimeError: the generator failed.
    """
    idle = read(pids)
    callers = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "trunkline.bench.lines", *_options(load), stdout=asyncio.subprocess.PIPE
    )
    told = asyncio.create_task(callers.communicate())
    loop = asyncio.get_running_loop()
    try:
        await asyncio.sleep(load.calls / load.per_s + _BEGINNING_S)
        before, began = read(pids), loop.time()
        await asyncio.sleep(load.last_s - _BEGINNING_S)
        after, took_s = read(pids), loop.time() - began
        out, _ = await told
    finally:
        if callers.returncode is None:
            callers.kill()
    if callers.returncode:
        raise RuntimeError(f"the callers failed with exit code {callers.returncode}")
    return column(load, _DECODER.decode(out), idle, (before, after), took_s)


def column(
    load: Load,
    made: Made,
    idle: dict[str, Reading],
    between: tuple[dict[str, Reading], dict[str, Reading]],
    took_s: float,
) -> Column:
    """Put together what was seen and what was read."""
    before, after = between
    shares = {name: 100 * (after[name].cpu_s - before[name].cpu_s) / took_s / load.calls for name in after}
    shares["callers"] = 100 * made.cpu_s / (made.over_s - made.all_there_s) / load.calls

    def values(field: str) -> Spread:
        taken = [ms for seen in made.calls for at, ms in getattr(seen, field) if at >= made.all_there_s]
        return spread(taken)

    return Column(
        calls=load.calls,
        core_percent_per_call=shares,
        mib_per_call={name: (after[name].rss_mib - idle[name].rss_mib) / load.calls for name in after},
        response_ms=values("responses"),
        interrupt_ms=values("interrupts"),
        gaps=values("gaps"),
        heard_s=sum(seen.heard_s for seen in made.calls),
        lag_ms=spread(made.lag_ms),
        unanswered=sum(seen.unanswered for seen in made.calls),
        closed_early=sum(seen.closed_early for seen in made.calls),
        failed=made.failed,
    )


def spread(values: Sequence[float]) -> Spread:
    """Return the percentiles of `values`."""
    if not values:
        return Spread(0, 0.0, 0.0, 0.0, 0.0, 0.0)
    p50, p95, p99, p999 = np.percentile(values, [50, 95, 99, 99.9])
    return Spread(len(values), float(p50), float(p95), float(p99), float(p999), max(values))


def _options(load: Load) -> list[str]:
    values = {"--url": load.url, "--calls": load.calls, "--per-s": load.per_s, "--last-s": load.last_s}
    values["--interrupt-every"] = load.interrupt_every
    return [str(part) for pair in values.items() for part in pair]
