"""How many calls the platform carries, what each costs, and what its callers wait.

    python -m trunkline.bench [--calls 10 50 100] [--last-s 20] [--out FILE.json]

For every number of calls: the whole platform is started (embedded NATS, agent ``bench``, whose providers cost nothing),
callers of a process of their own talk to it, and the processor time that the kernel charged every service while all of
them were there is divided among them. A run in which the callers themselves were late claims nothing. Timings are never
asserted: compare runs on one machine.
"""

import argparse
import asyncio
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from trunkline.bench.lines import Load, Made
from trunkline.bench.platform import Reading, pids_of, read
from trunkline.devserver.devserver import run_dev
from trunkline.devserver.journal import Journal
from trunkline.devserver.services import parse_workers
from trunkline.devserver.settings import Plan, find_agents

AGENT: Final = "bench"
ENDPOINT_MS: Final = 200.0
"""What the agent waits for, of silence, before it answers (agents/bench.toml)."""
LATE_MS: Final = 10.0
"""Callers who send later than this, at the 99th percentile, prove nothing about the platform."""
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


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What is written."""

    date: str
    command: str
    machine: str
    columns: list[Column]


async def measure(load: Load, workers: dict[str, int], environ: dict[str, str]) -> Column:
    """Start everything, have `load` made, and read what it cost."""
    plan = Plan(port=0, note=False, agents=find_agents(Path.cwd()), workers=workers, environ=environ)
    lines: list[str] = []
    async with run_dev(plan, Journal(lines.append, [], colour=False)) as dev:
        load = msgspec.structs.replace(load, url=f"{dev.edge_url}/twilio/voice-hook?agent={AGENT}")
        pids = pids_of(dev)
        idle = read(pids)
        callers = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "trunkline.bench.lines", *_options(load), stdout=asyncio.subprocess.PIPE
        )
        told = asyncio.create_task(callers.communicate())
        try:
            await asyncio.sleep(load.calls / load.per_s + 6.0)  # the generator starts, its calls begin
            before, began = read(pids), asyncio.get_running_loop().time()
            await asyncio.sleep(load.last_s - 8.0)
            after, took_s = read(pids), asyncio.get_running_loop().time() - began
            out, _ = await told
        finally:
            if callers.returncode is None:
                callers.kill()
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


def show(outcome: Outcome) -> None:
    """Print the table."""
    columns = outcome.columns
    print(f"\n{outcome.machine}\n")
    print(f"{'calls at once':<40}" + "".join(f"{one.calls:>12}" for one in columns))
    for name in columns[0].core_percent_per_call:
        row = "".join(f"{one.core_percent_per_call[name]:>12.3f}" for one in columns)
        print(f"{f'{name}, % of a core per call':<40}{row}")
    print(f"{'platform and bus, % of a core per call':<40}" + "".join(f"{one.ours:>12.3f}" for one in columns))
    print(f"{'memory, MiB per call':<40}" + "".join(f"{sum(c.mib_per_call.values()):>12.2f}" for c in columns))
    for what, field in (
        ("response", "response_ms"),
        ("interruption to clear", "interrupt_ms"),
        ("gaps heard", "gaps"),
        ("callers late by", "lag_ms"),
    ):
        for part in ("p50", "p99", "highest"):
            row = "".join(f"{getattr(getattr(one, field), part):>12.1f}" for one in columns)
            print(f"{f'{what}, ms, {part}':<40}{row}")
        print(f"{f'{what}, how many':<40}" + "".join(f"{getattr(one, field).n:>12}" for one in columns))
    for field in ("unanswered", "closed_early", "failed"):
        print(f"{field.replace('_', ' '):<40}" + "".join(f"{getattr(one, field):>12}" for one in columns))
    print(f"{'proves something':<40}" + "".join(f"{'yes' if one.proves else 'NO':>12}" for one in columns))


def _options(load: Load) -> list[str]:
    values = {"--url": load.url, "--calls": load.calls, "--per-s": load.per_s, "--last-s": load.last_s}
    values["--interrupt-every"] = load.interrupt_every
    return [str(part) for pair in values.items() for part in pair]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, nargs="+", default=[10, 50, 100], help="calls at once, a column each")
    parser.add_argument("--last-s", type=float, default=24.0, help="how long all of them talk (24)")
    parser.add_argument("--per-s", type=float, default=10.0, help="calls that begin in a second (10)")
    parser.add_argument("--workers", type=parse_workers, default={}, metavar="STT=2,...", help="processes of a stage")
    parser.add_argument("--out", type=Path, help="file for the results")
    options = parser.parse_args(argv)
    environ = {"TRUNKLINE_EDGE_CAPACITY": "2000", "TRUNKLINE_LOG_LEVEL": "warning", **os.environ}
    for stage in ("STT", "BRAIN", "TTS"):
        environ.setdefault(f"TRUNKLINE_{stage}_CAPACITY", "2000")
    columns = []
    for calls in options.calls:
        print(f"{calls} calls ...", flush=True)
        load = Load(url="", calls=calls, per_s=options.per_s, last_s=options.last_s)
        columns.append(asyncio.run(measure(load, options.workers, environ)))
    outcome = Outcome(
        date=datetime.now(UTC).date().isoformat(),
        command="python -m trunkline.bench " + " ".join(argv if argv is not None else sys.argv[1:]),
        machine=f"{os.cpu_count()} processors, {platform.machine()}, Python {platform.python_version()}",
        columns=columns,
    )
    show(outcome)
    if options.out is not None:
        options.out.write_bytes(msgspec.json.format(msgspec.json.encode(outcome), indent=1) + b"\n")


if __name__ == "__main__":
    main()
