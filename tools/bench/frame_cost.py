"""What a frame costs: CPU per 20 ms of a call, hop by hop and process by process.

    python tools/bench/frame_cost.py [--calls 10 50] [--seconds 15] [--out FILE.json]

Two tables. The first times the code of each hop alone, in this process, and the bus with real processes on both sides.
The second runs the whole platform with the agent ``bench`` (providers that cost nothing) under simulated calls, and
divides the CPU time that the kernel charged each process by the frames that came in. The simulated callers' own cost is
shown apart. Nothing here asserts: compare runs on one machine.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np

from trunkline.audio.g711 import mulaw_to_pcm16, pcm16_to_mulaw
from trunkline.bench.platform import cpu_s, pids_of
from trunkline.bus import Bus
from trunkline.call import Target, find_scenario, place_call, prepare_speech
from trunkline.devserver.devserver import run_dev
from trunkline.devserver.journal import Journal
from trunkline.devserver.settings import Plan, find_agents
from trunkline.edge.twilio import TwilioStream
from trunkline.proto.frame import (
    AudioChunk,
    Codec,
    MediaFrame,
    pack_audio,
    pack_media,
    unpack_audio,
    unpack_media,
)
from trunkline.proto.ids import Epoch, Generation, Seq, UtteranceId
from trunkline.stt.vad import VoiceDetector
from trunkline.testing.nats_server import run_nats

FRAMES_PER_CHUNK: Final = 8
FRAME_BYTES: Final = 320
_TICK_S: Final = 0.02


class Row(NamedTuple):
    """One line of a table: microseconds of CPU per frame."""

    what: str
    p50: float
    p95: float
    p999: float


# --- the code of each hop, alone -------------------------------------------------------------------------------------


def timed(what: str, once: Callable[[], object], frames: float = 1.0, rounds: int = 20_000) -> Row:
    """Time `once`, which handles `frames` frames, one call at a time."""
    samples = np.empty(rounds)
    clock = time.perf_counter_ns
    for _ in range(200):
        once()
    for i in range(rounds):
        began = clock()
        once()
        samples[i] = clock() - began
    p50, p95, p999 = np.percentile(samples / 1000 / frames, [50, 95, 99.9])
    return Row(what, float(p50), float(p95), float(p999))


def frame_of(pcm: bytes, seq: int = 7) -> MediaFrame:
    """Return a media frame."""
    return MediaFrame(Codec.PCM16, 8000, 0, Epoch(1), Seq(seq), 1, pcm)


def hops() -> list[Row]:
    """Time what each hop does with a frame, without the bus."""
    payload = bytes(range(160))
    pcm = mulaw_to_pcm16(payload)
    stream = TwilioStream()
    stream.receive('{"event":"connected","protocol":"Call","version":"1.0.0"}')
    start = {
        "event": "start",
        "sequenceNumber": "1",
        "streamSid": "MZ1",
        "start": {
            "accountSid": "AC1",
            "streamSid": "MZ1",
            "callSid": "CA1",
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"agent": "bench"},
        },
    }
    stream.receive(json.dumps(start))
    media = json.loads(stream.media(payload))
    media |= {"sequenceNumber": "2"}
    media["media"] |= {"track": "inbound", "chunk": "1", "timestamp": "20"}
    text = json.dumps(media)
    frame = pack_media(frame_of(pcm))
    chunk = pack_audio(
        AudioChunk(Codec.PCM16, 8000, 0, Epoch(1), Seq(7), 1, Generation(1), UtteranceId(1), pcm * FRAMES_PER_CHUNK)
    )

    def chunk_in() -> str:
        return stream.media(pcm16_to_mulaw(unpack_audio(chunk).payload))

    rows = [
        timed("edge: Twilio JSON + base64", lambda: stream.receive(text)),
        timed("edge: μ-law to PCM16", lambda: mulaw_to_pcm16(payload)),
        timed("edge: header", lambda: pack_media(frame_of(pcm))),
        timed("stt: header", lambda: unpack_media(frame)),
        timed("edge: chunk of 160 ms to Twilio JSON, per frame", chunk_in, FRAMES_PER_CHUNK),
    ]
    detector = VoiceDetector(128)
    row_numbers = [detector.join() for _ in range(100)]
    block = bytes(512)
    for batch in (1, 20, 100):

        def judge(n: int = batch) -> list[float]:
            return detector.probabilities(row_numbers[:n], [block] * n)

        rows += [timed(f"stt: voice detector, batch of {batch}, per 20 ms", judge, batch * 1.6, 300)]
    return rows


# --- the bus, with a process on either side --------------------------------------------------------------------------

_SUBSCRIBER: Final = """
import asyncio, sys, resource
from trunkline.bench.platform import cpu_s, pids_of
from trunkline.bus import Bus
from trunkline.proto.frame import unpack_media
from trunkline.runtime.loop import new_event_loop

async def main(url, calls, wildcard):
    bus = await Bus.connect(url, name="bench", on_lost=print)
    count = 0
    def on_frame(subject, data):
        nonlocal count
        unpack_media(data)
        count += 1
    for subject in (["media.bench.*"] if wildcard else [f"media.bench.c{i}" for i in range(calls)]):
        await bus.media.subscribe(subject, on_frame)
    await bus.media.flush()
    print("ready", flush=True)
    before = resource.getrusage(resource.RUSAGE_SELF)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(cpu, count, flush=True)
    await bus.close()

with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "wildcard"))
"""


async def lane(url: str, server_pid: int, calls: int, kind: str, seconds: float) -> list[tuple[str, float]]:
    """Send `calls` frames every 20 ms; return microseconds of CPU per frame of sender, server and receiver."""
    command = [sys.executable, "-c", _SUBSCRIBER, url, str(calls), kind]
    receiver = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220, S603
    assert receiver.stdout  # noqa: S101
    receiver.stdout.readline()
    bus = await Bus.connect(url, name="bench", on_lost=print)
    pcm = bytes(FRAME_BYTES)
    loop = asyncio.get_running_loop()
    server_before, before = cpu_s(server_pid), time.process_time()
    due, sent = loop.time(), 0
    while sent < calls * seconds / _TICK_S:
        for call in range(calls):
            await bus.media.publish_frame(f"media.bench.c{call}", pack_media(frame_of(pcm, sent)))
            sent += 1
        due += _TICK_S
        await asyncio.sleep(max(0.0, due - loop.time()))
    cost, server_cost = time.process_time() - before, cpu_s(server_pid) - server_before
    await bus.close()
    assert receiver.stdin  # noqa: S101
    receiver.stdin.write("\n")
    receiver.stdin.flush()
    received_cpu, received = receiver.stdout.readline().split()
    receiver.wait(10)
    return [
        (f"publish, {calls} calls", cost / sent * 1e6),
        (f"nats-server, {calls} calls", server_cost / sent * 1e6),
        (f"receive, {calls} calls, {kind}", float(received_cpu) / max(1, int(received)) * 1e6),
    ]


# --- the whole platform ----------------------------------------------------------------------------------------------


async def platform_cost(calls: int, seconds: float) -> dict[str, float]:
    """Return microseconds of CPU per inbound frame of every process, with `calls` at once for `seconds`."""
    plan = Plan(port=0, note=False, agents=find_agents(Path.cwd()), environ=dict(os.environ))
    lines: list[str] = []
    async with run_dev(plan, Journal(lines.append, [], colour=False)) as dev:
        scenario = find_scenario("load")
        clips = await prepare_speech(scenario)
        target = Target(url=dev.edge_url, agent="bench")
        pids = pids_of(dev)
        async with asyncio.TaskGroup() as group:
            placed = []
            for _ in range(calls):
                placed.append(group.create_task(place_call(target, scenario, clips=clips)))
                await asyncio.sleep(1.0 / calls)
            await asyncio.sleep(3.0)  # past the greeting
            before = {name: sum(map(cpu_s, ids)) for name, ids in pids.items()}
            own = time.process_time()
            began = time.monotonic()
            await asyncio.sleep(seconds)
            frames = calls * (time.monotonic() - began) / _TICK_S
            own = time.process_time() - own
            after = {name: sum(map(cpu_s, ids)) for name, ids in pids.items()}
            for task in placed:
                task.cancel()
    cost = {name: (after[name] - before[name]) / frames * 1e6 for name in pids}
    return {**cost, "(simulated callers)": own / frames * 1e6}


# --- telling ---------------------------------------------------------------------------------------------------------


class Outcome(msgspec.Struct):
    """What is written."""

    date: str
    command: str
    machine: str
    python: str
    hops_us: list[Row]
    bus_us: list[tuple[str, float]]
    platform_us: dict[str, dict[str, float]]


def show(outcome: Outcome) -> None:
    """Print the tables."""
    print(f"\n{outcome.machine}, Python {outcome.python}\n")
    print(f"{'code of a hop, μs per 20 ms frame':<52}{'p50':>8}{'p95':>8}{'p99.9':>8}")
    for row in outcome.hops_us:
        print(f"{row.what:<52}{row.p50:>8.2f}{row.p95:>8.2f}{row.p999:>8.2f}")
    print(f"\n{'bus, μs CPU per frame':<52}{'mean':>8}")
    for what, value in outcome.bus_us:
        print(f"{what:<52}{value:>8.2f}")
    print(f"\n{'whole platform, μs CPU per inbound frame':<44}" + "".join(f"{c:>10}" for c in outcome.platform_us))
    for name in next(iter(outcome.platform_us.values()), {}):
        print(f"{name:<44}" + "".join(f"{cost[name]:>10.1f}" for cost in outcome.platform_us.values()))
    ours = [
        sum(value for name, value in cost.items() if not name.startswith("(")) for cost in outcome.platform_us.values()
    ]
    print(f"{'platform and bus':<44}" + "".join(f"{value:>10.1f}" for value in ours))
    print(f"{'= share of a core per call':<44}" + "".join(f"{value * 50 / 1e4:>9.2f}%" for value in ours))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, nargs="+", default=[10, 50], help="calls at once, one column each")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of each measurement")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "frame_cost.json")
    options = parser.parse_args(argv)
    print("timing the code of each hop ...", flush=True)
    hop_rows = hops()
    bus_rows: list[tuple[str, float]] = []
    with run_nats() as server:
        for kind in ("wildcard", "per-call"):
            print(f"timing the bus, {kind} subscriptions ...", flush=True)
            rounds = [asyncio.run(lane(server.url, server.pid, 100, kind, 3.0)) for _ in range(3)]
            bus_rows += [(rows[0][0], statistics.median(r[1] for r in rows)) for rows in zip(*rounds, strict=True)]
    columns: dict[str, dict[str, float]] = {}
    for calls in options.calls:
        print(f"running the platform with {calls} calls for {options.seconds:.0f} s ...", flush=True)
        columns[f"{calls} calls"] = asyncio.run(platform_cost(calls, options.seconds))
    outcome = Outcome(
        date=datetime.now(UTC).date().isoformat(),
        command="python tools/bench/frame_cost.py " + " ".join(argv if argv is not None else sys.argv[1:]),
        machine=f"{os.cpu_count()} cores, {platform.machine()}, {cpu_model()}",
        python=platform.python_version(),
        hops_us=hop_rows,
        bus_us=bus_rows,
        platform_us=columns,
    )
    show(outcome)
    options.out.write_bytes(msgspec.json.format(msgspec.json.encode(outcome), indent=1) + b"\n")
    print(f"\nwritten to {options.out}")


def cpu_model() -> str:
    """Return the processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
