"""``trunkline demo``: a whole call, seen, heard and drawn. Needs no key, no account and no network."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

INTERRUPTED = 130

_EPILOG = """\
writes into DIR:
  call.wav      the call, 8 kHz: caller left, agent right, sample by sample what the caller heard
  report.json   turns, transcripts, latency, barge-ins, tools, events, and whether all was as it should be
  timeline.png  the call as a picture
  services.log  what the five services logged

exit code: 0 the call was all it should be, 1 it was not, 2 it could not be placed
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; return its exit code."""
    options = _parser().parse_args(argv)
    console = Console(highlight=False)
    console.print("Trunkline: a phone call from end to end, all of it on this machine", style="bold")
    # Brings in NumPy, an HTTP client and more: whoever waits should have something to read by now.
    from trunkline.demo.run import Options, run_demo  # noqa: PLC0415

    try:
        chosen = Options(folder=options.out, scenario=options.scenario, emulated=options.providers == "emulated")
        return asyncio.run(run_demo(console, chosen, os.environ))
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("interrupted; everything is stopped", style="yellow")
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trunkline demo",
        description="Start all services on free ports, let a simulated caller book a table, and show the call live.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("out/demo"), metavar="DIR", help="default: %(default)s")
    parser.add_argument(
        "--scenario", type=Path, metavar="FILE", help="another scenario of trunkline call (default: the booking)"
    )
    parser.add_argument(
        "--providers",
        choices=("local", "emulated"),
        default="local",
        help="local: espeak-ng, pocketsphinx, a script; emulated: the official SDKs of Deepgram, OpenAI and ElevenLabs"
        " against emulators of their services (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
