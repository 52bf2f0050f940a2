"""How many calls a core carries: Trunkline and Pipecat, under the same callers, in one run.

    python tools/bench/peers/pipecat_load.py [--peer 4 10 20 26 32] [--ours 10 200 300 500] [--out FILE.json]

Pipecat is installed from PyPI into an environment of its own (out/peers) and runs with its cheapest settings
(`pipecat_load_bot`), one process on every processor, as Trunkline has them all. Both answer the same words after the
same silence with providers that cost nothing.
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
from typing import Final

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tools.bench.peers import pipecat_env
from trunkline.bench.__main__ import LAST_S, measure, platform_environ
from trunkline.bench.lines import Load
from trunkline.bench.measure import Column, observe
from trunkline.bench.platform import Subject
from trunkline.bench.plot import draw
from trunkline.bench.report import outcome_of, show, write
from trunkline.testing.ports import free_ports

BOUND_MS: Final = 450.0
"""The 99th percentile of the response that both have to keep: 200 ms of it are silence that both wait for."""


async def peer(load: Load, python: Path, *, equal: bool = False) -> Column:
    """Run Pipecat under `load`, a process on every processor; `equal`: with a voice detector as eager as ours."""
    ports = free_ports(os.cpu_count() or 1)
    bots = [
        await asyncio.create_subprocess_exec(
            str(python),
            *("-m", "tools.bench.peers.pipecat_load_bot", "--port", str(port)),
            cwd=pipecat_env.ROOT,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, **({"BENCH_EQUAL_VAD": "1"} if equal else {})},
        )
        for port in ports
    ]
    try:
        for port in ports:
            await asyncio.to_thread(_await_up, f"http://127.0.0.1:{port}/up")
        urls = " ".join(f"http://127.0.0.1:{port}/voice" for port in ports)
        subject = Subject(url=urls, pids={"pipecat": [bot.pid for bot in bots]})
        return await observe(msgspec.structs.replace(load, url=urls), subject)
    finally:
        for bot in bots:
            bot.kill()
            await bot.wait()


def within(columns: Sequence[Column]) -> Column | None:
    """Return the column with the most calls up to which everybody is served within `BOUND_MS`."""
    found = None
    for column in columns:
        if not (column.served and column.proves and column.response_ms.p99 <= BOUND_MS):
            break
        found = column
    return found


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
    parser.add_argument("--peer", type=int, nargs="+", default=[4, 10, 20, 26, 32], help="calls at once with Pipecat")
    parser.add_argument("--ours", type=int, nargs="+", default=[10, 200, 300, 500], help="calls at once with Trunkline")
    parser.add_argument("--equal", type=int, nargs="+", default=[10], help="and with a voice detector as eager as ours")
    parser.add_argument("--last-s", type=float, default=LAST_S, help=f"how long all of them talk ({LAST_S:g})")
    parser.add_argument("--out", type=Path, help="file for the results")
    options = parser.parse_args(argv)
    python = pipecat_env.install()
    columns = []
    for calls in options.peer:
        print(f"Pipecat, {calls} calls ...", flush=True)
        columns.append(asyncio.run(peer(Load(url="", calls=calls, last_s=options.last_s), python)))
    theirs = outcome_of(f"Pipecat {pipecat_env.VERSION}", columns)
    columns = []
    for calls in options.equal:
        print(f"Pipecat with an equal detector, {calls} calls ...", flush=True)
        columns.append(asyncio.run(peer(Load(url="", calls=calls, last_s=options.last_s), python, equal=True)))
    as_eager = outcome_of(f"Pipecat {pipecat_env.VERSION}, equal detector", columns)
    columns = []
    for calls in options.ours:
        print(f"Trunkline, {calls} calls ...", flush=True)
        load = Load(url="", calls=calls, per_s=20.0, last_s=options.last_s)
        columns.append(asyncio.run(measure(load, {}, platform_environ(dict(os.environ)))))
    ours = outcome_of("Trunkline", columns)
    for outcome in (theirs, as_eager, ours):
        show(f"{outcome.what}: {outcome.machine}", outcome.columns)
    most, theirs_most = within(ours.columns), within(theirs.columns)
    if most is not None and theirs_most is not None:
        for what, column in (("Pipecat", theirs_most), ("Trunkline", most)):
            print(f"{what}: {column.calls} calls within {BOUND_MS:g} ms (p99), {column.ours:.3f} % of a core each")
        print(f"that is {theirs_most.ours / most.ours:.1f} times as many calls per core")
    if options.out is not None:
        write([ours, theirs, as_eager], options.out)
        draw([ours, theirs], options.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
