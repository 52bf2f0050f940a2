"""Fault by fault: so many calls at once, one blow, and what every caller got. See `pipecat_faults`."""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np

from tools.bench.peers.caller import PHRASES, Caller, Clips, Outcome, Struck, judge
from tools.bench.peers.pipecat_env import FOLDER, ROOT, NotInstalled, install, versions
from tools.bench.peers.report import Report, machine, markdown
from tools.bench.peers.supervisor import Supervised, WarmPool
from trunkline.call import prepare_speech
from trunkline.call.scenario import Scenario, Step, Voice
from trunkline.testing.errors import CallFailed
from trunkline.testing.twilio import Dial, new_call_sid, place

POOL_CALLS: Final = 3
TRIES: Final = 3
"""Of a trial in which sound was broken before anything was done."""
STOP_S: Final = 3.0
STALL_S: Final = 5.0
STALL_TURN: Final = 2
STAGGER_S: Final = 0.05
OUT: Final = ROOT / "tools" / "bench" / "results"


class Fault(NamedTuple):
    """A blow, and when it falls."""

    name: str
    moment: str
    signals: tuple[tuple[float, signal.Signals], ...] = ()
    """Sent to the bot process, with seconds after the moment."""
    stall_s: float = 0.0

    @property
    def deadly(self) -> bool:
        """Whether the process ends of it."""
        return any(number in (signal.SIGKILL, signal.SIGTERM) for _, number in self.signals)


NONE: Final = Fault("none", "never")
KILL_SPEAKING: Final = Fault("kill -9 while it speaks", "speaking", ((0.0, signal.SIGKILL),))
KILL_THINKING: Final = Fault("kill -9 while it thinks", "thinking", ((0.0, signal.SIGKILL),))
KILL_CALLER: Final = Fault("kill -9 while the caller speaks", "caller", ((0.0, signal.SIGKILL),))
TERM: Final = Fault("SIGTERM (deploy) while it speaks", "speaking", ((0.0, signal.SIGTERM),))
STOP: Final = Fault("SIGSTOP for 3 s while it speaks", "speaking", ((0.0, signal.SIGSTOP), (STOP_S, signal.SIGCONT)))
STALL: Final = Fault("LLM hangs for 5 s", "thinking", stall_s=STALL_S)

Peer = Supervised | WarmPool


class Setup(NamedTuple):
    """A way to run Pipecat, and what is tried there."""

    name: str
    then: str
    pool: bool
    faults: tuple[Fault, ...]


KILLS: Final = (KILL_SPEAKING, KILL_THINKING, KILL_CALLER)
SETUPS: Final = (
    Setup("one process, as in its guides", "", False, (NONE, *KILLS, TERM, STOP, STALL)),
    Setup("one process, Redirect", "redirect", False, (KILL_SPEAKING, TERM)),
    Setup("one process, Pause and Redirect", "pause", False, (*KILLS, TERM)),
    Setup("a warm process per call, as in its guides", "", True, (KILL_SPEAKING,)),
    Setup("a warm process per call, Redirect", "redirect", True, KILLS),
)
QUICK: Final = (
    Setup(SETUPS[0].name, "", False, (KILL_SPEAKING,)),
    Setup(SETUPS[2].name, "pause", False, (KILL_SPEAKING,)),
)


Campaign = tuple[list[Outcome], list[float]]


async def campaign(python: Path, setups: tuple[Setup, ...], calls: int, trials: int) -> Campaign:
    """Return what every caller got, and how long each restart took."""
    clips = await voices()
    log = FOLDER.parent / "pipecat.log"
    log.unlink(missing_ok=True)
    outcomes: list[Outcome] = []
    deaths = 0
    supervised = Supervised(python, log)
    pool = WarmPool(python, log, POOL_CALLS + 1)
    try:
        for setup in setups:
            peer: Peer = pool if setup.pool else supervised
            if setup == next(other for other in setups if other.pool == setup.pool):
                await peer.start()
            for fault in setup.faults:
                for trial in range(1, trials + 1):
                    count = POOL_CALLS if setup.pool else calls
                    for _ in range(TRIES):
                        await peer.ready(deaths=deaths)
                        found = await one_trial(peer, setup, fault, trial, clips, count)
                        deaths += not setup.pool and fault.deadly
                        if all(outcome.clear_before for outcome in found):
                            break
                        print("the machine was too busy to be heard before the fault: once more", flush=True)
                    outcomes += found
                    told(found)
        await supervised.ready(deaths=deaths)
    finally:
        await supervised.aclose()
        await pool.aclose()
    return outcomes, supervised.restarts_s


async def voices() -> Clips:
    """Return the sound of everything a caller says."""
    steps = tuple(Step(say=phrase) for phrase in PHRASES)
    clips = await prepare_speech(Scenario(name="peers", steps=steps, caller=Voice(voice="en-us")))
    return {phrase: np.asarray(clips[number]) for number, phrase in enumerate(PHRASES)}


async def one_trial(peer: Peer, setup: Setup, fault: Fault, trial: int, clips: Clips, calls: int) -> list[Outcome]:
    """Place `calls` calls at once, let the fault fall upon the first one's process, and judge all."""
    sids = [new_call_sid() for _ in range(calls)]
    struck = Struck(fault.moment, blow(fault, lambda: peer.pid_of(sids[0])))
    if fault.stall_s and isinstance(peer, Supervised):
        await peer.bot.stall(STALL_TURN, fault.stall_s)

    async def one(number: int) -> Outcome:
        await asyncio.sleep(number * STAGGER_S)
        caller = Caller(clips, struck, triggers=number == 0, seed=1_000 * trial + number)
        dial = Dial(voice_url=peer.voice_url(setup.then), call_sid=sids[number])
        try:
            recording = await place(dial, caller)
        except CallFailed as error:
            raise SystemExit(f"{setup.name}, {fault.name}: a call did not begin: {error}") from error
        hit = not setup.pool or number == 0
        return judge(caller, recording, setup=setup.name, fault=fault.name, trial=trial, call=number, hit=hit)

    found = await asyncio.gather(*(one(number) for number in range(calls)))
    if fault.stall_s and isinstance(peer, Supervised):
        await peer.bot.stall(0, 0.0)
    return list(found)


def blow(fault: Fault, pid: Callable[[], int]) -> Callable[[], None]:
    """Return what makes the fault happen to the process `pid` names by then."""

    def act() -> None:
        if not fault.signals:
            return
        victim = pid()
        for after_s, number in fault.signals:
            if after_s:
                asyncio.get_running_loop().call_later(after_s, os.kill, victim, number)
            else:
                os.kill(victim, number)

    return act


def told(found: list[Outcome]) -> None:
    """Print a trial."""
    first = found[0]
    hit = [outcome for outcome in found if outcome.hit]
    waits = [outcome.silence_s for outcome in hit if outcome.silence_s is not None]
    silence = f", silent for {min(waits):.1f} to {max(waits):.1f} s" if waits else ""
    spared = [outcome for outcome in found if not outcome.hit]
    others = f"; of {len(spared)} others {sum(outcome.survived for outcome in spared)} live" if spared else ""
    lives = f"{sum(outcome.survived for outcome in hit)} of {len(hit)} calls live"
    memory = "/".join(sorted({outcome.memory for outcome in hit}))
    print(f"{first.setup:42} {first.fault:34} {lives}{silence}, memory {memory}, {first.how}{others}", flush=True)


def main() -> None:
    """Run it all and write the tables."""
    parser = argparse.ArgumentParser(prog="pipecat_faults.py")
    parser.add_argument("--quick", action="store_true", help="two faults, in less than a minute once it is installed")
    parser.add_argument("--calls", type=int, default=6, help="at once, in the one process")
    parser.add_argument("--trials", type=int, default=1, choices=range(1, 11), help="of every fault")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the results (not those of --quick)")
    options = parser.parse_args()
    try:
        python = install()
    except NotInstalled as problem:
        raise SystemExit(str(problem)) from None
    installed = versions(python)
    print("Pipecat " + installed["pipecat-ai"], flush=True)
    began = time.monotonic()
    setups = QUICK if options.quick else SETUPS
    outcomes, restarts_s = asyncio.run(campaign(python, setups, options.calls, options.trials))
    report = Report(
        command="python tools/bench/peers/pipecat_faults.py " + " ".join(sys.argv[1:]),
        date=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        machine=machine(),
        versions=installed,
        seconds=round(time.monotonic() - began, 1),
        restarts_s=[round(restart_s, 2) for restart_s in restarts_s],
        outcomes=outcomes,
    )
    text = markdown(report)
    print(text)
    if not options.quick:
        options.out.mkdir(parents=True, exist_ok=True)
        pretty = msgspec.json.format(msgspec.json.encode(report), indent=1)
        (options.out / "pipecat_faults.json").write_bytes(pretty + b"\n")
        (options.out / "pipecat_faults.md").write_text(text)
