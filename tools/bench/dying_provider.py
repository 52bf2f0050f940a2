"""What becomes of calls when the provider they talk through dies under them, and when it comes back.

    python tools/bench/dying_provider.py [--calls 100] [--seconds 40] [--stage llm|stt|tts] [--workers 1 2] [--out FILE]

The agent's first choice for the stage under test is an emulated vendor, and its fallback another one; the other two
stages are answered within the workers, because callers, emulators and platform share one machine. Calls begin within
ten seconds, and a tenth of them while the first choice is dead. At half time it dies; 15 s later it is healed. It dies
in two ways: nobody listens any more and open connections are reset (`refuse`), or it takes requests and never says a
word (`hang`).

Nothing here asserts, but figures of callers who were late themselves are marked as worthless.
"""

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import platform
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import aiohttp
import msgspec
import numpy as np
from numpy.typing import NDArray

from trunkline.call import CallResult, Scenario, Target, place_call, prepare_speech
from trunkline.call.scenario import Step, Voice, WaitForAgent
from trunkline.devserver.devserver import Devserver, run_dev
from trunkline.devserver.journal import Journal
from trunkline.devserver.settings import Plan
from trunkline.proto.events import AgentSpoke, CallEnded, CallerSpoke, Event, Fact, ProviderFailed
from trunkline.testing.errors import CallFailed
from trunkline.testing.providers import Asked, Reply, tones
from trunkline.testing.providers.content import Lines, Mind
from trunkline.testing.providers.deepgram import DeepgramEmulator
from trunkline.testing.providers.openai import OpenAiEmulator
from trunkline.testing.providers.openai_audio import OpenAiAudioEmulator
from trunkline.testing.providers.server import Emulator, Fault

RAMP_S: Final = 10.0
DEAD_S: Final = 15.0
TURN_S: Final = 4.6
"""How long a turn takes, about: a word, the answer, a breath."""
LATE_MS: Final = 200.0
"""Callers later than this do not measure the platform any more."""
TONE_S: Final = 2.0
LOUD: Final = 300.0
FIRST_HZ, OTHER_HZ = 400, 900
RATE_HZ: Final = 8_000
FRAME: Final = 160
FILLER: Final = "One moment."
APOLOGY: Final = "Sorry."
SAID: Final = {"first": "The first one answers.", "other": "The other one answers."}
HEARD: Final = {"first": "north", "other": "south"}
SERVICES: Final = {"stt": "stt", "llm": "brain", "tts": "tts"}
LABELS: Final = {"stt": "deepgram", "llm": "openai", "tts": "deepgram"}
OTHER: Final = "openai-compatible/spare"
CHEAP: Final = {"stt": 'provider = "bench"', "llm": 'provider = "bench"', "tts": 'provider = "bench"'}
DYING: Final = {
    "stt": """provider = "deepgram"
model = "nova-3"
[[stt.fallbacks]]
provider = "openai-compatible"
endpoint = "spare"
model = "whisper-1"
""",
    "llm": """provider = "openai"
model = "gpt-4.1-mini"
[[llm.fallbacks]]
provider = "openai-compatible"
endpoint = "spare"
model = "llama-4"
""",
    "tts": """provider = "deepgram"
voice = "aura-2-thalia-en"
[[tts.fallbacks]]
provider = "openai-compatible"
endpoint = "spare"
model = "gpt-4o-mini-tts"
voice = "alloy"
""",
}


# --- callers, in processes of their own -------------------------------------------------------------------------------


class Turn(NamedTuple):
    """What a caller got for one thing said."""

    ended_at: float
    """Wall clock of the caller's last sound."""
    wait_s: float | None
    """From there to the agent's first sound; None when there was none."""
    silence_s: float | None
    """Longest silence from there to the end of what the agent said."""
    sound_s: float
    """For how long the agent sounded."""
    voice: str
    """Whose tone it was: ``first``, ``other`` or, when both were heard, ``both``; ``none``."""


class Called(NamedTuple):
    """One call, as its caller lived it."""

    call: str
    problem: str | None
    ended_by: str
    latest_ms: float
    turns: tuple[Turn, ...]


class Order(NamedTuple):
    """What a process of callers is to do."""

    url: str
    starts: tuple[tuple[float, int], ...]
    """Wall clock of each call's beginning, and how often its caller speaks."""


def scenario(turns: int) -> Scenario:
    """Return a caller who says one word again and again, each time after the agent."""
    patient = WaitForAgent(quiet_ms=700, timeout_s=15.0)
    steps = [Step(wait_for_agent=patient)]
    for _ in range(turns):
        steps += [Step(say="hello"), Step(wait_for_agent=patient), Step(silence_s=0.8)]
    return Scenario(name="dying", steps=(*steps, Step(hang_up=True)), max_s=600.0, caller=Voice())


def call_them(order: Order) -> list[Called]:
    """Place the calls of `order`; the whole life of a process of callers."""
    return asyncio.run(_call_them(order))


async def _call_them(order: Order) -> list[Called]:
    (clip,) = (await prepare_speech(Scenario(name="one", steps=(Step(say="hello"),)))).values()

    async def one(start_at: float, turns: int) -> Called:
        tale = scenario(turns)
        clips = {number: clip for number, step in enumerate(tale.steps) if step.say is not None}
        await asyncio.sleep(max(0.0, start_at - time.time()))
        try:
            return lived(await place_call(Target(url=order.url, agent="dying"), tale, clips=clips))
        except CallFailed as error:
            return Called("", str(error), "nobody", 0.0, ())

    return await asyncio.gather(*(one(*start) for start in order.starts))


def lived(result: CallResult) -> Called:
    """Keep what is asked of a call: its sound is too much to carry about."""
    frames = result.right[: result.right.size // FRAME * FRAME].reshape(-1, FRAME).astype(np.float64)
    loud = np.sqrt(np.mean(frames * frames, axis=1)) > LOUD
    ends = [spoken.end_s for spoken in result.spoken]
    nexts = [*(spoken.start_s for spoken in result.spoken[1:]), result.duration_s]
    turns = []
    for end_s, next_s in zip(ends, nexts, strict=True):
        at, until = int(end_s * 50), int(next_s * 50)
        sounding = np.flatnonzero(loud[at:until])
        silences = np.diff(np.concatenate(([0], sounding))) / 50 if sounding.size else np.zeros(0)
        turns.append(
            Turn(
                ended_at=result.started_at + end_s,
                wait_s=float(sounding[0] / 50) if sounding.size else None,
                silence_s=float(silences.max()) if sounding.size else None,
                sound_s=sounding.size / 50,
                voice=_voice(frames[at:until][sounding]),
            )
        )
    return Called(result.call, result.problem, result.ended_by, result.latest_ms, tuple(turns))


def _voice(frames: NDArray[np.float64]) -> str:
    if not len(frames):
        return "none"
    size = np.abs(np.fft.rfft(frames, axis=1))
    first = size[:, FIRST_HZ // 50] > size[:, OTHER_HZ // 50]
    share = float(first.mean())
    return "first" if share > 0.9 else "other" if share < 0.1 else "both"


# --- the vendors ------------------------------------------------------------------------------------------------------


class Dying(NamedTuple):
    """The stage's two vendors."""

    first: Emulator
    environ: dict[str, str]

    async def die(self, way: str, stage: str) -> None:
        """Have the first one die."""
        if way == "refuse":
            await self.first.inject(Fault.REFUSE)
        elif stage == "llm":
            await self.first.inject(Fault.HANG)
        else:  # sockets that are open go dumb as well
            await self.first.inject(Fault.STALL, after=0)


@asynccontextmanager
async def vendors(stage: str) -> AsyncIterator[Dying]:
    """Run a first choice and a fallback for `stage`."""
    first, other = _pair(stage)
    async with first, other:
        label = LABELS[stage].upper()
        yield Dying(
            first,
            {
                f"{label}_API_KEY": first.key,
                f"{label}_BASE_URL": first.url + ("/v1" if stage == "llm" else ""),
                "SPARE_API_KEY": other.key,
                "SPARE_BASE_URL": f"{other.url}/v1",
            },
        )


def _pair(stage: str) -> tuple[Emulator, Emulator]:
    if stage == "llm":
        return OpenAiEmulator(mind=_mind("first"), first_s=0.3), OpenAiEmulator(mind=_mind("other"), first_s=0.3)
    if stage == "tts":
        return DeepgramEmulator(voice=tones(FIRST_HZ)), OpenAiAudioEmulator(voice=tones(OTHER_HZ))
    ears = {who: Lines([HEARD[who]] * 100_000) for who in HEARD}
    return DeepgramEmulator(ear=ears["first"]), OpenAiAudioEmulator(ear=ears["other"])


def _mind(who: str) -> Mind:
    def answer(_: Asked) -> Reply:
        return Reply(SAID[who])

    return answer


# --- what the workers say of themselves -------------------------------------------------------------------------------

_LINE: Final = re.compile(r"^(\w+)\{(.*)\} (\S+)$", re.MULTILINE)


class Sample(NamedTuple):
    """The first choice, as every worker of the stage sees it."""

    at: float
    attempts: tuple[dict[str, float], ...]
    """Outcome → attempts at the first choice, for each worker."""
    breakers: tuple[int, ...]
    """0 closed, 1 half-open, 2 open; -1 unknown."""

    def total(self, *outcomes: str) -> int:
        """Return the attempts of all workers that ended so."""
        return int(sum(worker.get(outcome, 0) for worker in self.attempts for outcome in outcomes))


async def sample(http: aiohttp.ClientSession, dev: Devserver, stage: str) -> Sample:
    """Ask every worker of the stage for its metrics."""
    service = SERVICES[stage]
    urls = [url.removesuffix("/stats") for name, url in dev.stats_urls() if name.partition("-")[0] == service]
    attempts, breakers = [], []
    at = time.time()
    for url in urls:
        async with http.get(f"{url}/metrics") as response:
            text = await response.text()
        found: dict[str, float] = {}
        breaker = -1
        for name, labels, value in _LINE.findall(text):
            if name == "trunkline_tts_clips_total" and 'what="filler"' in labels:
                found["fillers"] = float(value)
            if f'provider="{LABELS[stage]}"' not in labels:
                continue
            if name == f"trunkline_{service}_provider_attempts_total":
                found[labels.partition('outcome="')[2].partition('"')[0]] = float(value)
            elif name == f"trunkline_{service}_provider_breaker":
                breaker = int(float(value))
        attempts.append(found)
        breakers.append(breaker)
    return Sample(at, tuple(attempts), tuple(breakers))


def busy_s() -> tuple[float, float]:
    """Return the seconds all cores have worked, and waited, since the machine began."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    hz = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - idle) / hz, idle / hz


# --- one story --------------------------------------------------------------------------------------------------------


class Told(NamedTuple):
    """All there is to know of one run."""

    calls: list[Called]
    facts: dict[str, list[Event]]
    samples: list[Sample]
    seen: list[float]
    """Wall clock of every request, or WebSocket, that the first choice saw."""
    died_at: float
    healed_at: float
    busy: float
    """Share of all cores that was at work."""
    loop_late_ms: float
    """By how much the process of the emulators was late at most."""


def starts(options: argparse.Namespace, began_at: float) -> list[tuple[float, int]]:
    """Return when calls begin and how many turns they have: most at first, a tenth in the dead time."""
    late = options.calls // 10
    early = options.calls - late
    many, few = max(2, round((options.seconds - 3) / TURN_S)), max(2, round((options.seconds / 2 - 3) / TURN_S))
    dies_at = began_at + options.seconds / 2
    return [
        *((began_at + RAMP_S * number / early, many) for number in range(early)),
        *((dies_at + DEAD_S * (number + 0.5) / late, few) for number in range(late)),
    ]


def plan_of(stage: str, workers: int, folder: Path, environ: dict[str, str], options: argparse.Namespace) -> Plan:
    """Write the agent into `folder`; return the deployment that serves it."""
    service = SERVICES[stage]
    sections = "".join(f"[{name}]\n{DYING[name] if name == stage else CHEAP[name]}\n" for name in CHEAP)
    (folder / "dying.toml").write_text(
        f'name = "dying"\ngreeting = "Hello."\napology = "{APOLOGY}"\nprompt = "Answer."\n{sections}\n'
        f'[turns]\nendpoint_silence_ms = 200\nfillers = ["{FILLER}"]\n'
    )
    environ = {**os.environ, **environ, "TRUNKLINE_LOG_LEVEL": "warning"}
    if options.open_s is not None:
        environ[f"TRUNKLINE_{service.upper()}_BREAKER_OPEN_S"] = str(options.open_s)
    return Plan(port=0, agents=folder, note=False, drain_s=1.0, environ=environ, workers={service: workers})


async def watch(
    http: aiohttp.ClientSession, dev: Devserver, stage: str, samples: list[Sample], late_ms: list[float]
) -> None:
    """Take a sample every half second, and note by how much this process was late, until cancelled."""
    while True:
        samples.append(await sample(http, dev, stage))
        for _ in range(5):
            due = time.monotonic() + 0.1
            await asyncio.sleep(0.1)
            late_ms.append((time.monotonic() - due) * 1e3)


async def play(stage: str, way: str, workers: int, options: argparse.Namespace) -> Told:
    """Let one story happen."""
    samples: list[Sample] = []
    lines: list[str] = []
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        dying = await stack.enter_async_context(vendors(stage))
        plan = plan_of(stage, workers, folder, dying.environ, options)
        dev = await stack.enter_async_context(run_dev(plan, Journal(lines.append, (), colour=False)))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        pool = stack.enter_context(ProcessPoolExecutor(options.caller_processes, multiprocessing.get_context("spawn")))
        began_at = time.time() + 3.0
        orders = [
            Order(dev.edge_url, tuple(starts(options, began_at)[part :: options.caller_processes]))
            for part in range(options.caller_processes)
        ]
        loop = asyncio.get_running_loop()
        callers = [loop.run_in_executor(pool, call_them, order) for order in orders]

        late_ms: list[float] = []
        watching = asyncio.create_task(watch(http, dev, stage, samples, late_ms))
        await asyncio.sleep(began_at - time.time() + options.seconds / 4)
        before = busy_s()
        await asyncio.sleep(began_at - time.time() + options.seconds / 2)
        samples.append(await sample(http, dev, stage))
        died_at = time.time()
        await dying.die(way, stage)
        await asyncio.sleep(DEAD_S)
        samples.append(await sample(http, dev, stage))
        healed_at = time.time()
        await dying.first.heal()
        after = busy_s()
        calls = [call for part in await asyncio.gather(*callers) for call in part]
        await asyncio.sleep(1.5)
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        samples.append(await sample(http, dev, stage))
        facts: dict[str, list[Event]] = {}
        for line in dev.events_file.read_bytes().splitlines():
            event = msgspec.json.decode(line, type=Event)
            facts.setdefault(event.call, []).append(event)
        offset = time.time() - time.monotonic()
        seen = [one.at + offset for one in dying.first.seen]
        if options.log is not None:
            options.log.write_text("\n".join(lines))
    busy, idle = after[0] - before[0], after[1] - before[1]
    samples.sort()
    return Told(calls, facts, samples, seen, died_at, healed_at, busy / (busy + idle), max(late_ms))


# --- what it comes to -------------------------------------------------------------------------------------------------


def phase(told: Told, at: float) -> str:
    """Return when in the story `at` is."""
    return "before" if at < told.died_at else "dead" if at < told.healed_at else "after"


def answered_by(stage: str, turn: Turn, spoke: CallerSpoke | None, answer: str) -> str:
    """Return which vendor served a turn."""
    if stage == "tts":
        return turn.voice
    text, names = (answer, SAID) if stage == "llm" else (spoke.text if spoke is not None else "", HEARD)
    by = [who for who, what in names.items() if what in text]
    return "both" if len(by) > 1 else by[0] if by else "nobody"


def summary(stage: str, told: Told, options: argparse.Namespace) -> dict[str, object]:
    """Return the figures of one run."""
    by: dict[str, Counter[str]] = {name: Counter() for name in ("before", "dead", "after")}
    waits: dict[str, list[float]] = {name: [] for name in by}
    longest: list[float] = []
    twice = mismatched = fillers = 0
    for call in told.calls:
        facts: list[Fact] = [event.fact for event in told.facts.get(call.call, ())]
        spoke = [fact for fact in facts if isinstance(fact, CallerSpoke)]
        said: dict[int, str] = {}
        for fact in facts:
            if isinstance(fact, AgentSpoke):
                said[fact.turn] = f"{said.get(fact.turn, '')} {fact.said}"
        # The cheap voice says everything within two seconds, so that more sound was a filler and the answer.
        fillers += sum(turn.sound_s > 1.5 * TONE_S for turn in call.turns) if stage != "tts" else 0
        twice += sum(text.count(line) > 1 for text in said.values() for line in SAID.values())
        mismatched += len(spoke) != len(call.turns)
        for number, turn in enumerate(call.turns):
            heard = spoke[number] if number < len(spoke) else None
            when = phase(told, turn.ended_at)
            by[when][answered_by(stage, turn, heard, said.get(heard.turn, "") if heard is not None else "")] += 1
            if turn.wait_s is not None:
                waits[when].append(turn.wait_s)
        longest.append(max((turn.wait_s or math.inf for turn in call.turns), default=math.inf))
    ends = Counter(
        next((e.fact.reason for e in told.facts.get(call.call, ()) if isinstance(e.fact, CallEnded)), "unknown")
        for call in told.calls
    )
    failures = [
        (event.wall_at, event.fact)
        for events in told.facts.values()
        for event in events
        if isinstance(event.fact, ProviderFailed)
    ]
    return {
        "calls": len(told.calls),
        "ended for their own reason": sum(c.problem is None and c.ended_by == "caller" for c in told.calls),
        "problems": sorted({c.problem for c in told.calls if c.problem})[:5],
        "end reasons": dict(ends),
        "turns by provider": {name: dict(counts) for name, counts in by.items()},
        "calls whose turns do not match what was said": mismatched,
        "sentences said twice in a turn": twice,
        "wait ms": {
            name: {f"p{q}": round(1e3 * float(np.percentile(some, q))) for q in (50, 95, 100)}
            for name, some in waits.items()
            if some
        },
        "longest wait of a call ms": {
            f"p{q}": round(1e3 * float(np.percentile(longest, q))) for q in (50, 95, 100) if math.isfinite(max(longest))
        },
        "fillers": fillers if stage != "tts" else told.samples[-1].total("fillers"),
        "apologies": sum(fact.then == "apology" for _, fact in failures),
        "provider.failed": {
            name: dict(Counter(f"{f.provider} {f.kind} {f.then}" for at, f in failures if phase(told, at) == name))
            for name in by
        },
        **attempts(told, options),
        "machine busy": round(told.busy, 2),
        "callers late ms": {
            f"p{q}": round(float(np.percentile([c.latest_ms for c in told.calls], q))) for q in (50, 95, 100)
        },
        "emulators late ms": round(told.loop_late_ms),
        "usable": bool(np.percentile([c.latest_ms for c in told.calls], 95) < LATE_MS),
    }


def attempts(told: Told, options: argparse.Namespace) -> dict[str, object]:
    """Return what reached, or would have reached, the first choice while it was dead, and how it came back."""
    at_death, at_heal = _latest(told.samples, told.died_at), _latest(told.samples, told.healed_at)
    failing = ("failed", "broke-off")
    opened = next((s.at for s in told.samples if s.at > told.died_at and min(s.breakers) == 2), None)
    later = [s for s in told.samples if s.at > told.healed_at]
    used = next((s.at for s in later if s.total("answered") > at_heal.total("answered")), None)
    closed = next((s.at for s in later if used and s.at >= used and max(s.breakers) <= 0), None)
    open_s = options.open_s or 30.0
    return {
        "attempts failed while dead": at_heal.total(*failing) - at_death.total(*failing),
        "of each worker": [
            int(sum(one.get(o, 0) - two.get(o, 0) for o in failing))
            for one, two in zip(at_heal.attempts, at_death.attempts, strict=True)
        ],
        "failed until all breakers were open": (
            _latest(told.samples, opened).total(*failing) - at_death.total(*failing) if opened else None
        ),
        "trials allowed after that": math.floor(DEAD_S / open_s) * len(at_heal.attempts),
        "seen by it while dead": sum(told.died_at < at < told.healed_at for at in told.seen),
        "all breakers open after s": _since(opened, told.died_at),
        "failed after healing": told.samples[-1].total(*failing) - at_heal.total(*failing),
        "first used again s after healing": _since(used, told.healed_at),
        "all breakers closed s after healing": _since(closed, told.healed_at),
        "most seen in 1 s after healing": _busiest([at for at in told.seen if at > told.healed_at]),
        "breakers": _changes(told),
    }


def _latest(samples: Sequence[Sample], at: float) -> Sample:
    return [one for one in samples if one.at <= at][-1]


def _since(at: float | None, origin: float) -> float | None:
    return None if at is None else round(at - origin, 1)


def _busiest(times: Iterable[float]) -> int:
    """Return the most requests within a second."""
    ordered = np.sort(np.array(list(times)))
    return int(max((np.searchsorted(ordered, at + 1.0) - n for n, at in enumerate(ordered)), default=0))


def _changes(told: Told) -> list[str]:
    """Return the states of the breakers whenever one has changed, by seconds since the death."""
    found: list[str] = []
    last: tuple[int, ...] = ()
    for one in told.samples:
        if one.breakers != last:
            last = one.breakers
            names = " ".join({-1: "unknown", 0: "closed", 1: "half-open", 2: "open"}[state] for state in last)
            found.append(f"{one.at - told.died_at:+.1f} {names}")
    return found


def show(name: str, figures: dict[str, object]) -> None:
    """Print one run."""
    print(f"\n{name}")
    for what, value in figures.items():
        print(f"  {what:<46}{json.dumps(value)}")
    if not figures["usable"]:
        print("  CALLERS WERE TOO LATE THEMSELVES: nothing is claimed of waits")


async def main(options: argparse.Namespace) -> None:
    """Play every story, and report."""
    runs: dict[str, object] = {}
    if options.out.exists():
        runs = json.loads(options.out.read_text())["runs"]
    for workers in options.workers:
        for way in options.ways:
            told = await play(options.stage, way, workers, options)
            figures = summary(options.stage, told, options)
            what = (options.stage, way, f"{options.calls} calls", f"{workers} worker{'s' * (workers > 1)}")
            name = ", ".join((*what, f"open {options.open_s or 30:g} s"))
            show(name, figures)
            runs[name] = {
                "command": "python " + " ".join(["tools/bench/dying_provider.py", *sys.argv[1:]]),
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
                **figures,
            }
            options.out.write_text(json.dumps({"runs": runs}, indent=1) + "\n")
    print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=40.0, help="the first choice dies at half of them")
    parser.add_argument("--stage", choices=("llm", "stt", "tts"), default="llm")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes of the stage, a run for each")
    parser.add_argument("--ways", nargs="+", choices=("refuse", "hang"), default=["refuse", "hang"])
    parser.add_argument("--open-s", type=float, help="how long breakers stay open (default: the platform's, 30 s)")
    parser.add_argument("--caller-processes", type=int, default=2)
    parser.add_argument("--log", type=Path, help="where the workers' logs go")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "dying_provider.json")
    asyncio.run(main(parser.parse_args()))
