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

from trunkline.bench.lines import Load
from trunkline.bench.measure import Column, observe
from trunkline.bench.platform import pids_of
from trunkline.devserver.devserver import run_dev
from trunkline.devserver.journal import Journal
from trunkline.devserver.services import parse_workers
from trunkline.devserver.settings import Plan, find_agents

AGENT: Final = "bench"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What is written."""

    what: str
    date: str
    command: str
    machine: str
    columns: list[Column]


def outcome_of(what: str, columns: list[Column]) -> Outcome:
    """Return `columns` with where and how they came about."""
    return Outcome(
        what=what,
        date=datetime.now(UTC).date().isoformat(),
        command=" ".join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
        machine=f"{os.cpu_count()} processors, {platform.machine()}, Python {platform.python_version()}",
        columns=columns,
    )


def write(outcomes: list[Outcome], path: Path) -> None:
    """Write everything to a file."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(outcomes), indent=1) + b"\n")


def platform_environ(environ: dict[str, str]) -> dict[str, str]:
    """Return `environ` with as much room everywhere as a load may need, unless it says otherwise."""
    stages = ("EDGE", "STT", "BRAIN", "TTS")
    return {"TRUNKLINE_LOG_LEVEL": "warning", **{f"TRUNKLINE_{one}_CAPACITY": "2000" for one in stages}, **environ}


async def measure(load: Load, workers: dict[str, int], environ: dict[str, str]) -> Column:
    """Start everything, have `load` made, and read what it cost."""
    plan = Plan(port=0, note=False, agents=find_agents(Path.cwd()), workers=workers, environ=environ)
    lines: list[str] = []
    async with run_dev(plan, Journal(lines.append, [], colour=False)) as dev:
        load = msgspec.structs.replace(load, url=f"{dev.edge_url}/twilio/voice-hook?agent={AGENT}")
        return await observe(load, pids_of(dev))


def show(outcome: Outcome) -> None:
    """Print the table."""
    columns = outcome.columns
    print(f"\n{outcome.what}: {outcome.machine}\n")
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


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, nargs="+", default=[10, 50, 100], help="calls at once, a column each")
    parser.add_argument("--last-s", type=float, default=24.0, help="how long all of them talk (24)")
    parser.add_argument("--per-s", type=float, default=10.0, help="calls that begin in a second (10)")
    parser.add_argument("--workers", type=parse_workers, default={}, metavar="STT=2,...", help="processes of a stage")
    parser.add_argument("--out", type=Path, help="file for the results")
    options = parser.parse_args(argv)
    environ = platform_environ(dict(os.environ))
    columns = []
    for calls in options.calls:
        print(f"{calls} calls ...", flush=True)
        load = Load(url="", calls=calls, per_s=options.per_s, last_s=options.last_s)
        columns.append(asyncio.run(measure(load, options.workers, environ)))
    outcome = outcome_of("Trunkline", columns)
    show(outcome)
    if options.out is not None:
        write([outcome], options.out)


if __name__ == "__main__":
    main()
