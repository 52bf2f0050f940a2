"""``trunkline tail`` and ``trunkline events`` as processes, against a real nats-server."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from trunkline.bus import Bus, EventLog
from trunkline.proto import subjects
from trunkline.proto.events import CallEnded, CallStarted
from trunkline.proto.ids import CallId, Epoch, Generation, UtteranceId, WorkerId
from trunkline.proto.messages import Interrupt, Say
from trunkline.testing.nats_server import NatsServer, run_nats
from trunkline.testing.patience import PATIENCE_S

pytestmark = pytest.mark.integration

A, B = CallId("aaaa"), CallId("bbbb")
STARTED = CallStarted(agent="demo", carrier="twilio", carrier_call="CA1", edge=WorkerId("edge-1"))
ENDED = CallEnded(reason="caller-hung-up", duration_s=1.0)
SAY = Say(epoch=Epoch(1), generation=Generation(1), utterance=UtteranceId(1), text="Good evening.")
CUT = Interrupt(epoch=Epoch(1), generation=Generation(2), reason="barge-in")


def trunkline(server: NatsServer | None, *words: str, tmp: str = "") -> "subprocess.Popen[str]":
    environ = {name: value for name, value in os.environ.items() if name != "TRUNKLINE_NATS_URL"}
    environ |= {"XDG_RUNTIME_DIR": tmp or "/nonexistent"}
    if server is not None:
        environ["TRUNKLINE_NATS_URL"] = server.url
    return subprocess.Popen(
        [sys.executable, "-m", "trunkline.cli", *words],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def watching(server: NatsServer, *words: str) -> Iterator["subprocess.Popen[str]"]:
    process = trunkline(server, *words)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def say(server: NatsServer, what: Callable[[Bus, EventLog], None]) -> None:
    async def work() -> None:
        bus = await Bus.connect(server.url, name="test", on_lost=lambda _reason: None)
        log = EventLog(bus, time.time)
        what(bus, log)
        for call in (B, A):
            await bus.publish(subjects.speak(call), SAY)
        await bus.publish(subjects.interrupt(A), CUT)
        await bus.control.publish(f"call.{A}.odd", b"\x1b]0;title\x07")
        assert await log.flush(PATIENCE_S)
        await log.close()
        await bus.close()

    asyncio.run(work())


def a_call(_bus: Bus, log: EventLog) -> None:
    log.emit(A, STARTED)
    log.emit(B, STARTED)
    log.emit(A, ENDED)


def test_tail_tells_the_story_of_one_call_and_ends_cleanly_on_ctrl_c():
    with run_nats() as server, watching(server, "tail", "aa") as process:
        assert process.stderr is not None
        assert "watching calls beginning with aa" in process.stderr.readline()
        say(server, a_call)
        assert process.stdout is not None
        seen = [process.stdout.readline() for _ in range(5)]
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        assert (rest, errors) == ("", "")
        text = "".join(seen)
        assert 'agent is to say #1: "Good evening."' in text
        assert "INTERRUPT (barge-in)" in text
        assert "\\x1b]0;title\\x07" in text
        assert "inbound call for demo" in text
        assert "call ended after 1.0 s" in text
        assert "bbbb" not in text


def test_events_prints_what_was_recorded_and_ends():
    with run_nats() as server:
        say(server, a_call)
        out, errors = trunkline(server, "events").communicate(timeout=PATIENCE_S)
        assert errors == ""
        assert [line.split()[3] for line in out.splitlines()] == ["call.started", "call.started", "call.ended"]
        out, _ = trunkline(server, "events", "--call", "bbbb", "--json").communicate(timeout=PATIENCE_S)
        assert [json.loads(line)["fact"]["type"] for line in out.splitlines()] == ["call.started"]
        out, _ = trunkline(server, "events", "--call", "cccc").communicate(timeout=PATIENCE_S)
        assert out == ""


def test_events_follows_until_ctrl_c():
    with run_nats() as server:
        say(server, a_call)
        with watching(server, "events", "--follow", "--json", "--call", "aaaa") as process:
            assert process.stdout is not None
            first = [json.loads(process.stdout.readline())["fact"]["type"] for _ in range(2)]
            say(server, lambda _bus, log: log.emit(A, ENDED))
            third = json.loads(process.stdout.readline())["fact"]["type"]
            assert [*first, third] == ["call.started", "call.ended", "call.ended"]
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 0


def test_a_reader_that_has_seen_enough_is_no_error():
    with run_nats() as server:
        say(server, lambda _bus, log: [log.emit(A, STARTED) for _ in range(3_000)] and None)
        process = trunkline(server, "events", "--json")
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        process.stdout = None
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert errors == ""
        assert process.returncode == 0


def test_without_a_bus_it_says_what_to_do():
    for command in ("tail", "events"):
        _, errors = (process := trunkline(None, command)).communicate(timeout=PATIENCE_S)
        assert process.returncode == 1
        assert "trunkline dev" in errors
        assert "TRUNKLINE_NATS_URL" in errors
        assert "Traceback" not in errors


def test_a_bus_that_is_not_there_is_named():
    _, errors = (process := trunkline(None, "events", "--nats", "nats://127.0.0.1:1")).communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "127.0.0.1:1" in errors
    assert "Traceback" not in errors


def test_a_bus_without_a_record_says_so():
    with run_nats(jetstream=False) as server:
        _, errors = (process := trunkline(server, "events")).communicate(timeout=PATIENCE_S)
        assert process.returncode == 1
        assert "no stream EVENTS" in errors
