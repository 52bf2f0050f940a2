"""The service against a real nats-server, a real receiver and a real disk."""

import asyncio
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from trunkline.bus import Bus, EventLog
from trunkline.events import signature
from trunkline.events.service import EventsService, build
from trunkline.events.settings import EventsSettings
from trunkline.proto.events import CallEnded, CallStarted, Fact, KeyPressed
from trunkline.proto.ids import CallId, WorkerId
from trunkline.runtime.clock import SYSTEM, Clock
from trunkline.runtime.process import Chassis
from trunkline.runtime.settings import BaseSettings, SettingsError
from trunkline.testing.nats_server import NatsServer, run_nats
from trunkline.testing.patience import PATIENCE_S, until

pytestmark = pytest.mark.integration

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STARTED = CallStarted(agent="demo", carrier="twilio", carrier_call="CA1", edge=WorkerId("edge-1"))
ENDED = CallEnded(reason="caller-hung-up", duration_s=1.0)
A, B = CallId("call-a"), CallId("call-b")


def key(number: int) -> KeyPressed:
    return KeyPressed(digit=str(number % 10), at=float(number))


class Receiver:
    """Takes webhooks; `answer` decides the status of each, given the event and how often it came."""

    def __init__(self, answer: Callable[[dict, int], int]) -> None:
        self.answer = answer
        self.taken: list[dict] = []
        self.tries: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.busy = self.busiest = 0
        self.lock = threading.Lock()

    def of(self, call: CallId) -> list[dict]:
        return [event["fact"] for event in self.taken if event["call"] == call]


@contextlib.contextmanager
def receiving(
    answer: Callable[[dict, int], int] = lambda _event, _tries: 204, port: int = 0
) -> Iterator[tuple[str, Receiver]]:
    receiver = Receiver(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            event = json.loads(body)
            with receiver.lock:
                receiver.busy += 1
                receiver.busiest = max(receiver.busiest, receiver.busy)
                receiver.tries[event["id"]] += 1
                receiver.headers.append({name.lower(): value for name, value in self.headers.items()})
                receiver.bodies.append(body)
            status = receiver.answer(event, receiver.tries[event["id"]])
            with receiver.lock:
                receiver.busy -= 1
                if 200 <= status < 300:
                    receiver.taken.append(event)
            self.send_response(status)
            if status == 307:
                self.send_header("location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        allow_reuse_address = True

    server = Server(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.asynccontextmanager
async def serving(
    server: NatsServer, *, clock: Clock = SYSTEM, **settings: object
) -> AsyncIterator[tuple[EventsService, Chassis]]:
    chassis = Chassis("events", BaseSettings(nats_url=server.url), clock=clock)
    service = await build(EventsSettings(**settings), chassis)  # type: ignore[arg-type]
    await service.start()
    chassis.started = True
    try:
        yield service, chassis
    finally:
        await service.stop()


@contextlib.asynccontextmanager
async def event_log(server: NatsServer) -> AsyncIterator[EventLog]:
    bus = await Bus.connect(server.url, name="test", on_lost=lambda _reason: None)
    log = EventLog(bus, time.time)
    try:
        yield log
    finally:
        await log.close()
        await bus.close()


async def emit(log: EventLog, call: CallId, *facts: Fact) -> None:
    for fact in facts:
        log.emit(call, fact)
    assert await log.flush(PATIENCE_S)


def lines(path: Path) -> list[dict]:
    whole = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
    return [json.loads(line) for line in whole.splitlines()]


def facts(path: Path, call: CallId) -> list[dict]:
    return [event["fact"] for event in lines(path) if event["call"] == call]


def as_json(*wanted: Fact) -> list[dict]:
    return [
        {"type": "key.pressed", "digit": fact.digit, "at": fact.at} for fact in wanted if isinstance(fact, KeyPressed)
    ]


def metric(chassis: Chassis, name: str, sink: str) -> float:
    return chassis.registry.get_sample_value(f"trunkline_events_{name}", {"sink": sink}) or 0.0


def test_without_a_sink_events_stay_in_the_stream_and_the_log_says_so(caplog):
    async def story(server: NatsServer) -> None:
        with caplog.at_level("INFO", "trunkline.events"):
            async with serving(server) as (_, chassis):
                await until(lambda: not chassis.problems())

    with run_nats() as server:
        asyncio.run(story(server))
    assert any("no sink" in record.message for record in caplog.records)


def test_the_file_has_every_fact_in_order_also_those_from_before_the_service(tmp_path):
    async def story(server: NatsServer) -> None:
        path = tmp_path / "events.jsonl"
        async with event_log(server) as log:
            await emit(log, A, STARTED, key(1))
            async with serving(server, file=str(path)) as (service, chassis):
                await emit(log, A, key(2), ENDED)
                await until(lambda: len(lines(path)) == 4)
                assert [fact["type"] for fact in facts(path, A)] == [
                    "call.started",
                    "key.pressed",
                    "key.pressed",
                    "call.ended",
                ]
                await service.drain()
                await until(lambda: metric(chassis, "delivered_total", "file") == 4)
                assert "delivered" in chassis.page()

    with run_nats() as server:
        asyncio.run(story(server))


def test_the_same_event_stored_twice_reaches_the_sinks_once(tmp_path):
    async def story(server: NatsServer) -> None:
        path = tmp_path / "events.jsonl"
        async with event_log(server) as log:
            with receiving() as (url, receiver):
                async with serving(server, file=str(path), webhook_url=url) as (_, chassis):
                    await emit(log, A, STARTED, STARTED, key(1), ENDED, ENDED)
                    await until(lambda: len(lines(path)) == 3 and len(receiver.taken) == 3)
                    again = lines(path)[1]
                    await log._bus.control.jetstream(timeout=PATIENCE_S).publish(
                        "events.key-pressed.call-a", json.dumps(again).encode()
                    )
                    await until(lambda: metric(chassis, "duplicates_total", "file") == 3)
                    await until(lambda: metric(chassis, "duplicates_total", "webhook") == 3)
                    kinds = ["call.started", "key.pressed", "call.ended"]
                    assert [fact["type"] for fact in facts(path, A)] == kinds
                    assert [fact["type"] for fact in receiver.of(A)] == kinds

    with run_nats() as server:
        asyncio.run(story(server))


def test_the_webhook_is_signed_as_standard_webhooks_asks():
    async def story(server: NatsServer) -> None:
        with receiving() as (url, receiver):
            async with event_log(server) as log, serving(server, webhook_url=url, webhook_secret=SECRET):
                await emit(log, A, STARTED)
                await until(lambda: len(receiver.taken) == 1)
        (got,), (body,) = receiver.headers, receiver.bodies
        event_id = receiver.taken[0]["id"]
        wanted = signature.headers(event_id, int(got["webhook-timestamp"]), body, signature.key_of(SECRET))
        assert {name: got[name] for name in wanted} == wanted
        assert abs(int(got["webhook-timestamp"]) - time.time()) < 60
        assert got["content-type"] == "application/json"

    with run_nats() as server:
        asyncio.run(story(server))


def test_a_receiver_that_fails_for_a_while_gets_everything_afterwards_in_order_per_call():
    async def story(server: NatsServer) -> None:
        up = threading.Event()
        with receiving(lambda _event, tries: 204 if up.is_set() or tries > 9 else 503) as (url, receiver):
            async with event_log(server) as log, serving(server, webhook_url=url) as (_, chassis):
                wanted = [key(number) for number in range(20)]
                for number in range(20):
                    log.emit(A, wanted[number])
                    log.emit(B, wanted[number])
                await until(lambda: metric(chassis, "retried_total", "webhook") >= 4)
                assert receiver.taken == []
                assert len(receiver.tries) == 2  # nothing overtakes the first of its call
                up.set()
                await until(lambda: len(receiver.taken) == 40)
                assert receiver.of(A) == receiver.of(B) == as_json(*wanted)

    with run_nats() as server:
        asyncio.run(story(server))


def test_a_receiver_that_is_not_there_at_all_gets_everything_once_it_is():
    async def story(server: NatsServer) -> None:
        with receiving() as (url, _):
            port = int(url.split(":")[2].split("/")[0])
        async with event_log(server) as log, serving(server, webhook_url=url) as (_, chassis):
            await emit(log, A, STARTED, key(1), ENDED)
            await until(lambda: metric(chassis, "retried_total", "webhook") >= 2)
            with receiving(port=port) as (_, receiver):
                await until(lambda: len(receiver.taken) == 3)
                assert [fact["type"] for fact in receiver.of(A)] == ["call.started", "key.pressed", "call.ended"]

    with run_nats() as server:
        asyncio.run(story(server))


def test_what_is_refused_for_good_is_given_up_with_one_line_and_blocks_nobody(caplog):
    async def story(server: NatsServer) -> None:
        def answer(event: dict, _tries: int) -> int:
            return 422 if event["fact"].get("digit") == "3" else 200

        with receiving(answer) as (url, receiver):
            async with event_log(server) as log, serving(server, webhook_url=url) as (_, chassis):
                await emit(log, A, *map(key, range(6)))
                await emit(log, B, key(1))
                await until(lambda: len(receiver.taken) == 6)
                assert receiver.of(A) == as_json(*(key(number) for number in (0, 1, 2, 4, 5)))
                assert max(receiver.tries.values()) == 1
                assert metric(chassis, "given_up_total", "webhook") == 1

    with run_nats() as server:
        asyncio.run(story(server))
    assert sum(record.message == "event given up" for record in caplog.records) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_receiver_that_is_being_deployed_behind_its_proxy_loses_nothing(status):
    async def story(server: NatsServer) -> None:
        with receiving(lambda _event, tries: 200 if tries > 1 else status) as (url, receiver):
            async with event_log(server) as log, serving(server, webhook_url=url) as (_, chassis):
                await emit(log, A, STARTED, key(1))
                await emit(log, B, key(2))
                await until(lambda: len(receiver.taken) == 3)
                assert receiver.of(A)[-1:] == as_json(key(1))
                assert metric(chassis, "given_up_total", "webhook") == 0

    with run_nats() as server:
        asyncio.run(story(server))


def test_a_refusal_is_believed_an_hour_after_the_first_one_and_the_next_event_goes_on():
    """The sink's clock is wound on by the receiver."""

    async def story(server: NatsServer) -> None:
        seconds = [time.time()]

        class Wound:
            monotonic = staticmethod(time.monotonic)
            wall = staticmethod(lambda: seconds[0])

        def answer(event: dict, _tries: int) -> int:
            if event["fact"].get("digit") != "1":
                return 200
            seconds[0] += 1_801
            return 404

        with receiving(answer) as (url, receiver):
            async with event_log(server) as log, serving(server, clock=Wound(), webhook_url=url) as (_, chassis):
                await emit(log, A, key(1), key(2))
                await until(lambda: len(receiver.taken) == 1)
                assert max(receiver.tries.values()) == 3
                assert receiver.of(A) == as_json(key(2))
                assert metric(chassis, "given_up_total", "webhook") == 1

    with run_nats() as server:
        asyncio.run(story(server))


def test_what_the_bus_and_the_readers_count_is_shown(tmp_path):
    async def story(server: NatsServer) -> None:
        async with serving(server, file=str(tmp_path / "events.jsonl")) as (service, chassis):
            service._bus.media.counts["slow_consumer"] += 3
            assert chassis.registry.get_sample_value("trunkline_events_bus_media_total", {"what": "slow_consumer"}) == 3
            page = chassis.page()
            assert "slow_consumer" in page
            assert "skipped, no events" in page

    with run_nats() as server:
        asyncio.run(story(server))


def test_one_call_that_fails_does_not_hold_up_the_others():
    async def story(server: NatsServer) -> None:
        with receiving(lambda event, _tries: 500 if event["call"] == A else 200) as (url, receiver):
            async with event_log(server) as log, serving(server, webhook_url=url):
                await emit(log, A, *map(key, range(5)))
                await emit(log, B, *map(key, range(5)))
                await until(lambda: len(receiver.of(B)) == 5)
                assert receiver.of(A) == []

    with run_nats() as server:
        asyncio.run(story(server))


def test_posts_are_bounded_however_many_calls_there_are():
    async def story(server: NatsServer) -> None:
        full = threading.Event()

        def slowly(_event: dict, _tries: int) -> int:
            if receiver.busy == 3:
                full.set()
            full.wait(PATIENCE_S)
            time.sleep(0.02)
            return 200

        with receiving(slowly) as (url, receiver):
            async with event_log(server) as log, serving(server, webhook_url=url, webhook_concurrency=3):
                for number in range(30):
                    log.emit(CallId(f"call-{number}"), STARTED)
                await until(lambda: len(receiver.taken) == 30)
                assert receiver.busiest == 3

    with run_nats() as server:
        asyncio.run(story(server))


def test_a_redirect_is_not_followed_and_nothing_is_lost():
    async def story(server: NatsServer) -> None:
        with receiving(lambda _event, tries: 307 if tries == 1 else 200) as (url, receiver):
            async with event_log(server) as log, serving(server, webhook_url=url) as (_, chassis):
                await emit(log, A, STARTED)
                await until(lambda: len(receiver.taken) == 1)
                assert metric(chassis, "retried_total", "webhook") == 1

    with run_nats() as server:
        asyncio.run(story(server))


def test_a_receiver_that_never_answers_delays_the_file_by_nothing(tmp_path):
    async def story(server: NatsServer) -> None:
        path = tmp_path / "events.jsonl"
        hang = threading.Event()

        def never(_event: dict, _tries: int) -> int:
            hang.wait(2 * PATIENCE_S)
            return 200

        with receiving(never) as (url, receiver):
            try:
                settings = {"file": str(path), "webhook_url": url, "webhook_timeout_s": 0.3}
                async with event_log(server) as log, serving(server, **settings) as (_, chassis):
                    await emit(log, A, *map(key, range(50)))
                    await until(lambda: len(lines(path)) == 50)
                    await until(lambda: metric(chassis, "retried_total", "webhook") >= 1)
                    assert receiver.taken == []
            finally:
                hang.set()

    with run_nats() as server:
        asyncio.run(story(server))


def test_a_restarted_service_sends_the_webhook_only_what_is_left():
    async def story(server: NatsServer) -> None:
        up = threading.Event()
        up.set()
        with receiving(lambda _event, _tries: 200 if up.is_set() else 500) as (url, receiver):
            async with event_log(server) as log:
                async with serving(server, webhook_url=url):
                    await emit(log, A, *map(key, range(3)))
                    await until(lambda: len(receiver.taken) == 3)
                    up.clear()
                    await emit(log, A, *map(key, range(3, 6)))
                    await until(lambda: len(receiver.tries) == 4)
                up.set()
                await emit(log, A, *map(key, range(6, 9)))
                async with serving(server, webhook_url=url):
                    await until(lambda: len(receiver.taken) == 9)
            assert receiver.of(A) == as_json(*map(key, range(9)))

    with run_nats() as server:
        asyncio.run(story(server))


def test_the_file_goes_on_after_a_server_restart(tmp_path):
    async def story(server: NatsServer) -> None:
        path = tmp_path / "events.jsonl"
        async with event_log(server) as log, serving(server, file=str(path)):
            await emit(log, A, *map(key, range(5)))
            await until(lambda: len(lines(path)) == 5)
            server.kill()
            for number in range(5, 10):
                log.emit(A, key(number))
            server.start()
            await until(lambda: len(lines(path)) == 10)
            assert facts(path, A) == as_json(*map(key, range(10)))

    with run_nats() as server:
        asyncio.run(story(server))


def test_a_full_disk_is_told_once_and_waited_for(tmp_path, caplog):
    """A limit on the size of files stands in for the disk."""

    async def story(server: NatsServer) -> None:
        path = tmp_path / "events.jsonl"
        async with event_log(server) as log, serving(server, file=str(path)) as (_, chassis):
            await emit(log, A, STARTED)
            await until(lambda: len(lines(path)) == 1)
            ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            try:
                # The server needs no disk of this process; ours is full after a few more bytes.
                resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, limits[1]))
                await emit(log, A, key(1), ENDED)
                await until(lambda: metric(chassis, "retried_total", "file") >= 2)
                assert "cannot be written" in chassis.problems()["file"]
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
                signal.signal(signal.SIGXFSZ, ignored)
            await until(lambda: "file" not in chassis.problems())
            assert [fact["type"] for fact in facts(path, A)] == ["call.started", "key.pressed", "call.ended"]

    with run_nats() as server:
        asyncio.run(story(server))
    assert sum("file sink stuck" in record.message for record in caplog.records) == 1


def test_a_wrong_setting_ends_the_start_with_a_line_that_names_it():
    done = subprocess.run(
        [sys.executable, "-m", "trunkline.events"],
        env={
            **os.environ,
            "TRUNKLINE_EVENTS_WEBHOOK_URL": "ftp://me:hunter2@h/x",
            "TRUNKLINE_NATS_URL": "nats://127.0.0.1:1",
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 2
    assert "TRUNKLINE_EVENTS_WEBHOOK_URL" in done.stderr
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_in_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()

    async def story() -> None:
        with pytest.raises(SettingsError, match="TRUNKLINE_EVENTS_FILE"):
            await build(EventsSettings(file=str(tmp_path / "file" / "x")), Chassis("events", BaseSettings()))

    asyncio.run(story())


def test_a_process_killed_again_and_again_writes_every_line_once_and_in_order(tmp_path):
    path = tmp_path / "events.jsonl"

    def process(server: NatsServer) -> "subprocess.Popen[bytes]":
        environ = {**os.environ, "TRUNKLINE_NATS_URL": server.url, "TRUNKLINE_EVENTS_FILE": str(path)}
        return subprocess.Popen([sys.executable, "-m", "trunkline.events"], env=environ, stderr=subprocess.DEVNULL)

    def more_lines_than(count: int) -> bool:
        return len(lines(path)) > count

    async def story(server: NatsServer) -> None:
        async with event_log(server) as log:
            for round_number in range(3):
                child = process(server)
                try:
                    before = round_number * 200
                    for number in range(before, before + 200):
                        log.emit(A, key(number))
                    await until(partial(more_lines_than, before))
                finally:
                    child.send_signal(signal.SIGKILL if round_number < 2 else signal.SIGCONT)
                    if round_number < 2:
                        child.wait()
            try:
                await until(lambda: len(lines(path)) >= 600)
            finally:
                child.terminate()
                code = child.wait()
            assert code == 0
            assert facts(path, A) == as_json(*map(key, range(600)))

    with run_nats() as server:
        asyncio.run(story(server))
