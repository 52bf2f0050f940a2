"""What a frame costs: CPU of a call's audio through the code of each hop, and through the bus.

    python tools/bench/frame_cost.py [--out FILE.json]

The first table times the code of each hop alone, in this process. The second has a process on either side of a
nats-server, and puts the media lane beside nats-py's own way. Twilio speaks in messages of 20 ms, the bus has frames of
32 ms: every row says of which of them it tells the cost. What whole calls cost, `python -m trunkline.bench` tells.
Nothing here asserts: compare runs on one machine.
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

from trunkline.audio.framing import Framer
from trunkline.audio.g711 import mulaw_to_pcm16, pcm16_to_mulaw
from trunkline.bench.platform import cpu_s
from trunkline.bus import Address, Bus
from trunkline.edge.twilio import TwilioStream
from trunkline.proto.frame import (
    FRAME_MS,
    SEQ_AND_CAPTURED,
    AudioChunk,
    Codec,
    MediaFrame,
    pack_audio,
    pack_media,
    pack_origin,
    unpack_audio,
)
from trunkline.proto.ids import Epoch, Generation, Seq, UtteranceId
from trunkline.stt.intake import FRAME_SAMPLES, PCM_BYTES, Frame, Intake, pcm16_of
from trunkline.stt.vad import VoiceDetector
from trunkline.testing import twilio
from trunkline.testing.nats_server import run_nats

MESSAGES_PER_CHUNK: Final = 8
FRAME: Final = f"frame of {FRAME_MS} ms"
MESSAGE: Final = f"message of {twilio.FRAME_MS} ms"
_TICK_S: Final = FRAME_MS / 1_000


class Row(NamedTuple):
    """One line of a table: microseconds of CPU."""

    what: str
    per: str
    """What they are spent on: a frame of the bus, or as much as is in one of Twilio's messages."""
    p50: float
    p95: float
    p999: float


# --- the code of each hop, alone -------------------------------------------------------------------------------------


def timed(what: str, per: str, once: Callable[[], object], count: int = 1, rounds: int = 20_000) -> Row:
    """Time `once`, which handles `count` of what `per` says, one call at a time."""
    samples = np.empty(rounds)
    clock = time.perf_counter_ns
    for _ in range(200):
        once()
    for i in range(rounds):
        began = clock()
        once()
        samples[i] = clock() - began
    p50, p95, p999 = np.percentile(samples / 1000 / count, [50, 95, 99.9])
    return Row(what, per, float(p50), float(p95), float(p999))


def frame_of(pcm: bytes, seq: int = 7) -> MediaFrame:
    """Return a media frame."""
    return MediaFrame(Codec.PCM16, 8000, 0, Epoch(1), Seq(seq), 1, pcm)


def hops() -> list[Row]:
    """Time what each hop does with a message of Twilio's or a frame, without the bus."""
    said = bytes(range(twilio.FRAME_BYTES))
    audio = bytes(range(FRAME_SAMPLES))
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
    media = json.loads(stream.media(said))
    media |= {"sequenceNumber": "2"}
    media["media"] |= {"track": "inbound", "chunk": "1", "timestamp": "20"}
    text = json.dumps(media)
    origin = pack_origin(Codec.MULAW, 8000, 0, Epoch(1))
    address = Address("media.stt-abcdefgh.call", "_INBOX.abcdefghijklmnopqrstuv.call-1-")
    cut = Framer(FRAME_SAMPLES).push
    rounds = 20_000
    coming = iter([origin + SEQ_AND_CAPTURED.pack(seq, 1) + audio for seq in range(rounds + 1_000)])
    intake = Intake(Epoch(1))
    intake.take(next(coming))
    intake.frame()
    together = [Frame(Seq(0), audio)] * 50

    def in_and_out() -> None:
        if intake.follow(next(coming)):
            intake.frame()

    speech = mulaw_to_pcm16(said) * MESSAGES_PER_CHUNK
    chunk = pack_audio(AudioChunk(Codec.PCM16, 8000, 0, Epoch(1), Seq(7), 1, Generation(1), UtteranceId(1), speech))

    def chunk_in() -> str:
        return stream.media(pcm16_to_mulaw(unpack_audio(chunk).payload))

    rows = [
        timed("edge: Twilio JSON + base64", MESSAGE, lambda: stream.receive(text)),
        timed("edge: cut into frames", MESSAGE, lambda: cut(said)),
        timed(
            "edge: header, line for the bus",
            FRAME,
            lambda: address.message(7, origin + SEQ_AND_CAPTURED.pack(7, 1), audio),
        ),
        timed("stt: frame in, frame out", FRAME, in_and_out, rounds=rounds),
        timed("stt: μ-law to PCM16, 50 calls together", FRAME, lambda: pcm16_of(together), len(together)),
        timed("edge: chunk of 160 ms to Twilio JSON", f"{twilio.FRAME_MS} ms of it", chunk_in, MESSAGES_PER_CHUNK),
    ]
    detector = VoiceDetector(128)
    row_numbers = [detector.join() for _ in range(100)]
    pcm = bytes(PCM_BYTES)
    for batch in (1, 20, 100):

        def judge(n: int = batch) -> list[float]:
            return detector.probabilities(row_numbers[:n], [pcm] * n)

        rows += [timed(f"stt: voice detector, batch of {batch}", FRAME, judge, batch, 300)]
    return rows


# --- the bus, with a process on either side --------------------------------------------------------------------------

_SUBSCRIBER: Final = """
import asyncio, sys, resource
import nats
from trunkline.bus import Address, Bus
from trunkline.proto.frame import unpack_media
from trunkline.runtime.loop import new_event_loop

async def main(url, kind):
    count = 0
    def on_frame(subject, data):
        nonlocal count
        unpack_media(data)
        count += 1
    async def on_message(msg):
        on_frame(msg.subject, msg.data)
    if kind == "lane":
        bus = await Bus.connect(url, name="bench", on_lost=print)
        await bus.media.subscribe("media.bench.*", on_frame)
        await bus.media.flush()
    else:
        client = await nats.connect(url)
        await client.subscribe("media.bench.*", cb=on_message)
        await client.flush()
    print("ready", flush=True)
    before = resource.getrusage(resource.RUSAGE_SELF)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(cpu, count, flush=True)

with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(main(sys.argv[1], sys.argv[2]))
"""


async def lane(url: str, server_pid: int, calls: int, kind: str, seconds: float) -> list[tuple[str, float]]:
    """Send a frame of each of `calls` every 32 ms, spread over that time, by the media lane or as nats-py does.

    Return microseconds of CPU per frame of sender, server and receiver.
    """
    command = [sys.executable, "-c", _SUBSCRIBER, url, kind]
    pipe = subprocess.PIPE
    receiver = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)  # noqa: ASYNC220, S603 - our own words
    assert receiver.stdin  # noqa: S101
    assert receiver.stdout  # noqa: S101
    receiver.stdout.readline()
    bus = await Bus.connect(url, name="bench", on_lost=print)
    pcm, origin = bytes(PCM_BYTES), pack_origin(Codec.PCM16, 8000, 0, Epoch(1))
    addresses = [Address(f"media.bench.c{call}") for call in range(calls)]
    loop = asyncio.get_running_loop()
    server_before, before = cpu_s(server_pid), time.process_time()
    due, sent = loop.time(), 0
    while sent < calls * seconds / _TICK_S:
        call = sent % calls
        if kind == "lane":
            bus.media.gather(addresses[call], sent, origin + SEQ_AND_CAPTURED.pack(sent, 1), pcm)
        else:
            await bus.media.client.publish(f"media.bench.c{call}", pack_media(frame_of(pcm, sent)))
        sent += 1
        due += _TICK_S / calls
        if due > loop.time():
            await asyncio.sleep(due - loop.time())
    await bus.media.flush()
    cost, server_cost = time.process_time() - before, cpu_s(server_pid) - server_before
    await bus.close()
    receiver.stdin.write("\n")
    receiver.stdin.flush()
    received_cpu, received = receiver.stdout.readline().split()
    receiver.wait(10)
    way = "media lane" if kind == "lane" else "nats-py"
    return [
        (f"publish, pace of {calls} calls included, {way}", cost / sent * 1e6),
        (f"nats-server, {way}", server_cost / sent * 1e6),
        (f"receive, {way}", float(received_cpu) / max(1, int(received)) * 1e6),
    ]


# --- telling ---------------------------------------------------------------------------------------------------------


class Outcome(msgspec.Struct):
    """What is written."""

    date: str
    command: str
    machine: str
    python: str
    hops_us: list[Row]
    bus_us: list[tuple[str, float]]


def show(outcome: Outcome) -> None:
    """Print the tables."""
    print(f"\n{outcome.machine}, Python {outcome.python}\n")
    print(f"{'code of a hop, μs':<44}{'per':<20}{'p50':>8}{'p95':>8}{'p99.9':>8}")
    for row in outcome.hops_us:
        print(f"{row.what:<44}{row.per:<20}{row.p50:>8.2f}{row.p95:>8.2f}{row.p999:>8.2f}")
    print(f"\n{f'bus, μs CPU per {FRAME}':<52}{'mean':>8}")
    for what, value in outcome.bus_us:
        print(f"{what:<52}{value:>8.2f}")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "frame_cost.json")
    options = parser.parse_args(argv)
    print("timing the code of each hop ...", flush=True)
    hop_rows = hops()
    bus_rows: list[tuple[str, float]] = []
    with run_nats() as server:
        for kind in ("nats-py", "lane"):
            print(f"timing the bus, {kind} ...", flush=True)
            rounds = [asyncio.run(lane(server.url, server.pid, 100, kind, 3.0)) for _ in range(3)]
            bus_rows += [(rows[0][0], statistics.median(r[1] for r in rows)) for rows in zip(*rounds, strict=True)]
    outcome = Outcome(
        date=datetime.now(UTC).date().isoformat(),
        command="python tools/bench/frame_cost.py " + " ".join(argv if argv is not None else sys.argv[1:]),
        machine=f"{os.cpu_count()} cores, {platform.machine()}, {cpu_model()}",
        python=platform.python_version(),
        hops_us=hop_rows,
        bus_us=bus_rows,
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
