"""How many calls the platform carries, what each costs, and what its callers wait.

    python -m trunkline.bench [--calls 10 50 100 200 300 400 500 600] [--last-s 24] [--churn 1000] [--out FILE.json]

For every number of calls the whole platform is started (a NATS, every service, agent ``bench``, whose providers cost
nothing and whose voice detector is the real one) and as many callers talk to it without a pause. Processes are set up
as anybody would; ``TRUNKLINE_*`` variables are passed on. What it prints and writes can be compared with what it wrote
before: ``--baseline`` (by default the file it writes to).
"""

import argparse
import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from trunkline.bench import report
from trunkline.bench.lines import Load
from trunkline.bench.measure import Column, observe
from trunkline.bench.platform import trunkline
from trunkline.bench.report import Outcome, knee, moved, outcome_of, show, write
from trunkline.bench.startup import startups_s
from trunkline.devserver.services import parse_workers

CALLS = (10, 50, 100, 200, 300, 400, 500, 600)
LAST_S = 24.0
PER_S = 20.0
CHURN_PER_S = 10.0
CHURN_EACH_S = 10.0


def platform_environ(environ: dict[str, str]) -> dict[str, str]:
    """Return `environ` with as much room everywhere as a load may need, unless it says otherwise."""
    stages = ("EDGE", "STT", "BRAIN", "TTS")
    return {"TRUNKLINE_LOG_LEVEL": "warning", **{f"TRUNKLINE_{one}_CAPACITY": "2000" for one in stages}, **environ}


async def measure(load: Load, workers: dict[str, int], environ: dict[str, str]) -> Column:
    """Start everything, have `load` made, and read what it cost."""
    async with trunkline(workers, environ) as subject:
        return await observe(msgspec.structs.replace(load, url=subject.url), subject)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, compare, write."""
    options = _parser().parse_args(argv)
    environ = platform_environ(dict(os.environ))
    before = _baseline(options.baseline or options.out)
    columns = []
    for calls in options.calls:
        print(f"{calls} calls ...", flush=True)
        load = Load(url="", calls=calls, per_s=options.per_s, last_s=options.last_s)
        columns.append(asyncio.run(measure(load, options.workers, environ)))
    outcome = outcome_of("Trunkline", columns)
    show(f"{outcome.what}: {outcome.machine}", columns)
    print(f"\nall are served and the slowest wait no longer: up to {knee(columns)} calls")
    if options.churn:
        print(f"{options.churn} calls of {CHURN_EACH_S:g} s, {CHURN_PER_S:g} a second ...", flush=True)
        load = Load(url="", calls=options.churn, per_s=CHURN_PER_S, each_s=CHURN_EACH_S)
        outcome = msgspec.structs.replace(outcome, churn=asyncio.run(measure(load, options.workers, environ)))
        show("calls that come and go", [outcome.churn] if outcome.churn is not None else [])
    if options.startup:
        outcome = msgspec.structs.replace(outcome, startup_s=asyncio.run(startups_s(environ)))
        print("\nfrom start to readiness, s: " + ", ".join(f"{a} {b:.2f}" for a, b in outcome.startup_s.items()))
    for line in moved(before, columns):
        print(f"moved: {line}")
    if options.out is not None:
        _write(outcome, options.out)


def _write(outcome: Outcome, path: Path) -> None:
    from trunkline.bench.plot import draw  # noqa: PLC0415 - matplotlib takes a second to import

    write([outcome], path)
    draw([outcome], path.with_suffix(".svg"))


def _baseline(path: Path | None) -> list[Column]:
    if path is None or not path.exists():
        return []
    try:
        return report.load(path)[0].columns
    except msgspec.MsgspecError as error:
        print(f"{path} is no baseline of this kind: {error}")
        return []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, nargs="+", default=list(CALLS), help="calls at once, a column each")
    parser.add_argument("--last-s", type=float, default=LAST_S, help=f"how long all of them talk ({LAST_S:g})")
    parser.add_argument("--per-s", type=float, default=PER_S, help=f"calls that begin in a second ({PER_S:g})")
    parser.add_argument("--churn", type=int, default=0, metavar="N", help="then N calls of 10 s, 10 a second")
    parser.add_argument("--startup", action="store_true", help="then how soon each service is ready")
    parser.add_argument("--workers", type=parse_workers, default={}, metavar="STT=2,...", help="processes of a stage")
    parser.add_argument("--baseline", type=Path, help="what to compare with (the file that is written)")
    parser.add_argument("--out", type=Path, help="file for the results, and for the picture beside it")
    return parser


if __name__ == "__main__":
    main()
