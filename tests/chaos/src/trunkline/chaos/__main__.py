"""``python -m trunkline.chaos run``: kill things and count; ``report``: write the table of what came of it."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from trunkline.chaos.report import failures_page, one_line
from trunkline.chaos.rows import ROWS
from trunkline.chaos.run import Result, Settings, run_row, write
from trunkline.devserver.errors import DevError
from trunkline.runtime.clock import SYSTEM
from trunkline.testing.errors import TestingError

RESULTS: Final = Path(__file__).parents[3] / "results"
PAGE: Final = Path(__file__).parents[5] / "docs" / "operations" / "failures.md"
MOST_SHOWN: Final = 12


def main(argv: Sequence[str] | None = None) -> int:
    """Do what `argv` says; return 0 when every promise was kept."""
    options = _parser().parse_args(argv)
    if options.command == "report":
        page = failures_page(PAGE.read_text(encoding="utf-8"), options.results)
        PAGE.write_text(page, encoding="utf-8")
        print(f"wrote {PAGE}")
        return 0
    names = [name for name in ROWS if name != "quick"] if options.row == ["all"] else options.row
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        print(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}", file=sys.stderr)
        return 2
    kept = True
    for name in names:
        settings = Settings(
            row=name,
            repeats=options.repeats,
            calls=options.calls,
            seed=options.seed,
            questions=options.questions,
            folder=options.keep / name if options.keep else None,
        )
        result = asyncio.run(_run(settings, options.out))
        if result is None:
            return 130
        kept = kept and result.kept
    return 0 if kept else 1


async def _run(settings: Settings, out: Path) -> Result | None:
    """Run a row; None if it was broken off."""
    began_t = SYSTEM.monotonic()

    def say(text: str) -> None:
        print(f"{SYSTEM.monotonic() - began_t:7.1f} s  {text}", flush=True)

    running = asyncio.create_task(run_row(settings, say), name="row")
    asked = False

    def on_signal() -> None:
        nonlocal asked
        asked = True
        running.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    try:
        result, evidence = await running
    except asyncio.CancelledError:
        return None
    except (DevError, TestingError) as error:
        print(f"the deployment does not start: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    write(result, evidence, out)
    _show(result)
    return None if asked else result


def _show(result: Result) -> None:
    findings = result.findings
    print(one_line(result))
    for name, count in findings.counts.items():
        print(f"    {name:<48} {count}")
    for text in findings.vacuous:
        print(f"  NO PROOF: {text}")
    for violation in findings.violations[:MOST_SHOWN]:
        print(f"  BROKEN: {violation.rule} in {violation.call} at {violation.t:.3f}: {violation.text}")
    if len(findings.violations) > MOST_SHOWN:
        print(f"  and {len(findings.violations) - MOST_SHOWN} more")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trunkline.chaos", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run rows of the table")
    run.add_argument("--row", nargs="+", default=["all"], metavar="ROW", help=f"all, or of {', '.join(ROWS)}")
    run.add_argument("--repeats", type=int, default=30, metavar="N", help="faults per row (30)")
    run.add_argument("--calls", type=int, default=20, metavar="N", help="calls in flight (20)")
    run.add_argument("--questions", type=int, default=5, metavar="N", help="turns a caller has, 1 to 8 (5)")
    run.add_argument("--seed", type=int, default=7, metavar="N")
    run.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="folder for the results")
    run.add_argument("--keep", type=Path, metavar="DIR", help="leave journals, records and logs here")
    report = commands.add_parser("report", help="fill in docs/operations/failures.md")
    report.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    return parser


if __name__ == "__main__":
    sys.exit(main())
