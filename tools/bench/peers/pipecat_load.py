"""How many calls a core carries: Trunkline and Pipecat, under the same callers, in one run.

    python tools/bench/peers/pipecat_load.py [--peer 2 5 10 15 20] [--ours 10 50 100] [--out FILE.json]

Pipecat is installed from PyPI into an environment of its own (out/peers) and runs in one process, with its cheapest
settings (`pipecat_load_bot`). Both answer the same words after the same silence with providers that cost nothing.
"""

import argparse
import asyncio
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tools.bench.peers import pipecat_env
from trunkline.bench.__main__ import measure, outcome_of, platform_environ, show, write
from trunkline.bench.lines import Load
from trunkline.bench.measure import Column, observe
from trunkline.testing.ports import free_ports


async def peer(load: Load, python: Path) -> Column:
    """Run Pipecat under `load`."""
    (port,) = free_ports(1)
    bot = await asyncio.create_subprocess_exec(
        str(python), "-m", "tools.bench.peers.pipecat_load_bot", "--port", str(port), cwd=pipecat_env.ROOT
    )
    try:
        await asyncio.to_thread(_await_up, f"http://127.0.0.1:{port}/up")
        load = msgspec.structs.replace(load, url=f"http://127.0.0.1:{port}/voice")
        return await observe(load, {"pipecat": [bot.pid]})
    finally:
        bot.kill()
        await bot.wait()


def _await_up(url: str) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310 - our own loopback URL
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise RuntimeError("Pipecat did not start")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure both, print both, write both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=int, nargs="+", default=[2, 5, 10, 15, 20], help="calls at once with Pipecat")
    parser.add_argument("--ours", type=int, nargs="+", default=[10, 50, 100, 200], help="calls at once with Trunkline")
    parser.add_argument("--last-s", type=float, default=24.0, help="how long all of them talk (24)")
    parser.add_argument("--out", type=Path, help="file for the results")
    options = parser.parse_args(argv)
    python = pipecat_env.install()
    columns = []
    for calls in options.peer:
        print(f"Pipecat, {calls} calls ...", flush=True)
        columns.append(asyncio.run(peer(Load(url="", calls=calls, last_s=options.last_s), python)))
    theirs = outcome_of(f"Pipecat {pipecat_env.VERSION}", columns)
    show(theirs)
    columns = []
    for calls in options.ours:
        print(f"Trunkline, {calls} calls ...", flush=True)
        load = Load(url="", calls=calls, last_s=options.last_s)
        columns.append(asyncio.run(measure(load, {}, platform_environ(dict(os.environ)))))
    ours = outcome_of("Trunkline", columns)
    show(ours)
    if options.out is not None:
        write([theirs, ours], options.out)


if __name__ == "__main__":
    main()
