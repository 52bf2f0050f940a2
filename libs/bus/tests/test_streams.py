"""The event log and its readers, against a real nats-server that comes and goes."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

import pytest
from nats.js import api

from trunkline.bus import EventLog, EventReader, ensure_events_stream, event_reader, facts_of, read_envelope, recorded
from trunkline.bus.connection import Bus
from trunkline.bus.errors import BusUnavailable
from trunkline.proto import subjects
from trunkline.proto.errors import BadMessage
from trunkline.proto.events import CallEnded, CallStarted, Fact, KeyPressed
from trunkline.proto.ids import CallId, WorkerId
from trunkline.testing.nats_server import NatsServer, run_nats
from trunkline.testing.patience import PATIENCE_S, until

pytestmark = pytest.mark.integration

CALL = CallId("call-a")
STARTED = CallStarted(agent="demo", carrier="twilio", carrier_call="CA1", edge=WorkerId("edge-1"))
ENDED = CallEnded(reason="caller-hung-up", duration_s=1.0)


def key(number: int) -> KeyPressed:
    return KeyPressed(digit=str(number % 10), at=float(number))


@contextlib.asynccontextmanager
async def bus_on(server: NatsServer) -> AsyncIterator[Bus]:
    bus = await Bus.connect(server.url, name="test", on_lost=lambda _reason: None)
    try:
        yield bus
    finally:
        await bus.close()


async def facts_in_stream(bus: Bus, call: CallId | None = None) -> list[Fact]:
    return [found.event().fact async for found in recorded(bus, call=call)]


async def emit_and_store(bus: Bus, *facts: Fact, call: CallId = CALL) -> None:
    events = EventLog(bus, time.time)
    for fact in facts:
        events.emit(call, fact)
    assert await events.flush(PATIENCE_S)
    await events.close()


async def until_none_is_behind(reader: EventReader) -> None:
    """Acknowledgements are not waited for: the server has taken them a little later."""

    async def none_is_behind() -> bool:
        return await reader.behind() == 0

    await until(none_is_behind)


def test_a_stream_is_made_once_and_left_as_it_is_found() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:
            jetstream = bus.control.jetstream()
            await jetstream.add_stream(api.StreamConfig(name="EVENTS", subjects=["events.>", "more.>"], max_age=60))
            await ensure_events_stream(bus)
            await ensure_events_stream(bus)
            config = (await jetstream.stream_info("EVENTS")).config
            assert config.subjects == ["events.>", "more.>"]
            assert config.max_age == 60

    with run_nats() as server:
        asyncio.run(story(server))


def test_two_processes_make_the_stream_at_the_same_time() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as one, bus_on(server) as two:
            await asyncio.gather(ensure_events_stream(one, max_bytes=2**25), ensure_events_stream(two))
            config = (await one.control.jetstream().stream_info("EVENTS")).config
            assert config.storage == api.StorageType.FILE
            assert config.max_age == 7 * 24 * 3600
            assert config.duplicate_window == 600
            assert config.max_bytes in {2**25, 2**30}

    with run_nats() as server:
        asyncio.run(story(server))


def test_without_jetstream_it_says_so() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:
            with pytest.raises(BusUnavailable, match="no stream EVENTS"):
                await ensure_events_stream(bus)

    with run_nats(jetstream=False) as server:
        asyncio.run(story(server))


def test_facts_are_stored_in_the_order_of_emission_by_whoever_emits_first() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:
            facts: list[Fact] = [STARTED, *map(key, range(50)), ENDED]
            await emit_and_store(bus, *facts)
            assert await facts_in_stream(bus) == facts
            assert await facts_in_stream(bus, CallId("another")) == []

    with run_nats() as server:
        asyncio.run(story(server))


def test_facts_emitted_while_the_server_is_away_arrive_once_and_in_order(caplog: pytest.LogCaptureFixture) -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:
            events = EventLog(bus, time.time)
            events.emit(CALL, STARTED)
            assert await events.flush(PATIENCE_S)
            for number in range(20):  # some are under way when the server dies
                events.emit(CALL, key(number))
                await asyncio.sleep(0)
            server.kill()
            for number in range(20, 40):
                events.emit(CALL, key(number))
            assert not await events.flush(0.3)
            assert events.pending >= 20
            server.start()
            events.emit(CALL, ENDED)
            assert await events.flush(PATIENCE_S)
            assert events.pending == 0
            assert await facts_in_stream(bus) == [STARTED, *map(key, range(40)), ENDED]
            await events.close()

    with run_nats() as server, caplog.at_level(logging.INFO, "trunkline.bus"):
        asyncio.run(story(server))
    # Whether, and how often, an attempt fails depends on the machine; it is told once, and so is its end.
    both = ["facts cannot be stored; keeping them", "facts are stored again"]
    told = [record.message for record in caplog.records if record.message in both]
    assert told == both * (len(told) // 2)


def test_what_happens_in_a_call_is_stored_behind_its_beginning_whoever_gets_through_first() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:
            worker, edge = EventLog(bus, time.time), EventLog(bus, time.time)
            worker.emit(CALL, key(0))
            worker.emit(CALL, key(1))
            assert not await worker.flush(0.3)
            assert worker.calls_waiting() == {CALL}
            edge.emit(CALL, STARTED)
            assert await worker.flush(PATIENCE_S)
            worker.emit(CALL, key(2))
            assert await worker.flush(PATIENCE_S)
            assert await facts_in_stream(bus) == [STARTED, *map(key, range(3))]
            await worker.close()
            await edge.close()

    with run_nats() as server:
        asyncio.run(story(server))


def test_facts_of_a_call_whose_beginning_was_lost_hold_up_no_other_and_are_stored_after_a_while() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:
            await ensure_events_stream(bus)
            events = EventLog(bus, time.time)
            other = CallId("call-b")
            events.emit(CALL, key(0))
            events.emit(CALL, ENDED)
            events.emit(other, STARTED)
            events.emit(other, key(1))
            await until(lambda: events.stored == 2)
            assert await facts_in_stream(bus) == [STARTED, key(1)]
            assert events.pending == 2
            assert await events.flush(PATIENCE_S)
            assert await facts_in_stream(bus, CALL) == [key(0), ENDED]
            assert events.pending == 0
            await events.close()

    with run_nats() as server:
        asyncio.run(story(server))


def test_facts_that_wait_for_a_beginning_are_dropped_with_their_call() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:
            events = EventLog(bus, time.time)
            events.emit(CALL, key(0))
            assert not await events.flush(0.2)
            events.forget(CALL)
            assert events.pending == 0
            assert await events.flush(0.2)
            await events.close()

    with run_nats() as server:
        asyncio.run(story(server))


def test_a_flush_waits_for_what_was_emitted_before_it_and_not_for_what_comes_after() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:
            events = EventLog(bus, time.time)

            async def emit_without_a_pause() -> None:
                while True:
                    while events.pending < 50:
                        events.emit(CallId("busy"), key(0))
                    await asyncio.sleep(0)

            load = asyncio.create_task(emit_without_a_pause())
            await asyncio.sleep(0)
            events.emit(CALL, ENDED)
            assert await events.flush(PATIENCE_S)
            assert events.pending > 0
            assert await facts_in_stream(bus, CALL) == [ENDED]
            assert events.counts == {"stored": events.stored, "dropped": 0}
            load.cancel()
            assert await events.flush(PATIENCE_S)
            assert events.pending == 0
            await events.close()

    with run_nats() as server:
        asyncio.run(story(server))


def test_a_flush_does_not_wait_for_facts_that_were_given_up() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:
            events = EventLog(bus, time.time, limit=1)
            events.emit(CALL, STARTED)
            events.emit(CALL, key(0))
            assert events.dropped == 1
            assert await events.flush(PATIENCE_S)
            assert await facts_in_stream(bus) == [STARTED]
            await events.close()

    with run_nats() as server:
        asyncio.run(story(server))


def test_somebody_who_only_listens_does_not_keep_the_stream_from_being_made() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:

            def ignore(_subject: str, _data: bytes) -> None:
                pass

            await bus.subscribe("events.>", ignore)
            await emit_and_store(bus, STARTED)
            assert await facts_in_stream(bus) == [STARTED]

    with run_nats() as server:
        asyncio.run(story(server))


def test_the_stream_is_made_again_when_somebody_deleted_it() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:
            await emit_and_store(bus, STARTED)
            await bus.control.jetstream().delete_stream("EVENTS")
            await emit_and_store(bus, ENDED)
            assert await facts_in_stream(bus) == [ENDED]

    with run_nats() as server:
        asyncio.run(story(server))


def test_a_full_log_gives_up_the_oldest_facts_but_no_start_and_no_end(caplog: pytest.LogCaptureFixture) -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:
            await ensure_events_stream(bus)
            server.kill()
            events = EventLog(bus, time.time, limit=6)
            calls = [CallId(f"call-{number}") for number in range(4)]
            for call in calls:
                events.emit(call, STARTED)
                events.emit(call, key(1))
                events.emit(call, key(2))
                events.emit(call, ENDED)
            assert events.pending == 8
            assert events.dropped == 8
            server.start()
            assert await events.flush(PATIENCE_S)
            assert await facts_in_stream(bus) == [STARTED, ENDED] * 4
            await events.close()

    with run_nats() as server:
        asyncio.run(story(server))
    assert sum("event log full" in record.message for record in caplog.records) == 1


def test_a_call_id_that_cannot_be_a_subject_harms_nobody() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:
            events = EventLog(bus, time.time)
            events.emit(CallId("a call > all"), STARTED)
            events.emit(CALL, STARTED)
            assert await events.flush(PATIENCE_S)
            assert events.dropped == 1
            assert await facts_in_stream(bus) == [STARTED]
            await events.close()

    with run_nats() as server:
        asyncio.run(story(server))


def test_a_fact_too_large_for_the_server_is_refused_and_the_next_goes_on() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:
            events = EventLog(bus, time.time)
            events.emit(CALL, KeyPressed(digit="1" * 2_000_000, at=0.0))
            events.emit(CALL, ENDED)
            assert await events.flush(PATIENCE_S)
            assert (events.stored, events.dropped) == (1, 1)
            await events.close()

    with run_nats() as server:
        asyncio.run(story(server))


def test_a_reader_continues_where_the_last_one_of_its_name_stopped() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:
            await emit_and_store(bus, *map(key, range(10)))
            first = EventReader(bus, "sink", window=4)
            await first.start()
            for number in range(3):
                (delivery,) = await first.take()
                assert delivery.record.event().fact == key(number)
                await delivery.ack()
            await first.close()

            second = EventReader(bus, "sink", window=4)
            await second.start()
            seen = []
            async for delivery in second:
                seen.append(delivery.record.event().fact)
                await delivery.ack()
                if len(seen) == 7:
                    break
            assert seen == [key(number) for number in range(3, 10)]
            await until_none_is_behind(second)
            await second.close()

    with run_nats() as server:
        asyncio.run(story(server))


def test_what_a_killed_reader_had_in_hand_comes_before_what_is_newer() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as dying, bus_on(server) as heir:
            await emit_and_store(heir, *map(key, range(4)))
            killed = EventReader(dying, "sink", ack_wait_s=3.0)
            await killed.start()
            held = [(await killed.take())[0] for _ in range(4)]
            await held[2].ack()
            await dying.control.flush()
            for task in killed._tasks:  # it dies: no goodbye, nothing given back
                task.cancel()
            await dying.control.close()
            await emit_and_store(heir, *map(key, range(4, 6)))

            reader = EventReader(
                heir, "sink", ack_wait_s=3.0
            )  # what does not come back in three such times is not waited for
            await reader.start()
            seen = [(await reader.take())[0].record.event().fact for _ in range(5)]
            assert seen == [key(number) for number in (0, 1, 3, 4, 5)]
            await reader.close()

    with run_nats() as server:
        asyncio.run(story(server))


def test_a_fact_in_hand_for_long_is_not_delivered_again() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:
            await emit_and_store(bus, key(0), key(1))
            reader = EventReader(bus, "sink", ack_wait_s=0.6)
            await reader.start()
            (first,) = await reader.take()
            (second,) = await reader.take()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.5):
                    await reader.take()
            await first.ack()
            await second.nak()
            (again,) = await reader.take()
            assert again.record == second.record
            await again.term()
            await until_none_is_behind(reader)
            await reader.close()

    with run_nats() as server:
        asyncio.run(story(server))


def test_no_more_than_a_window_is_out_at_a_time() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:
            await emit_and_store(bus, *map(key, range(10)))
            reader = EventReader(bus, "sink", window=3)
            await reader.start()
            out = [(await reader.take())[0] for _ in range(3)]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await reader.take()
            for delivery in out:
                await delivery.ack()
            assert (await reader.take())[0].record.event().fact == key(3)
            await reader.close()

    with run_nats() as server:
        asyncio.run(story(server))


def test_a_reader_goes_on_after_a_server_restart_and_hands_nothing_out_twice() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:
            await emit_and_store(bus, *map(key, range(5)))
            reader = EventReader(bus, "sink", ack_wait_s=2.0)
            await reader.start()
            held = [(await reader.take())[0] for _ in range(3)]
            server.kill()
            await until(lambda: not bus.connected)
            server.start()
            await emit_and_store(bus, *map(key, range(5, 10)))
            async with asyncio.timeout(PATIENCE_S):
                rest = [(await reader.take())[0] for _ in range(7)]
            seen = [delivery.record.event().fact for delivery in (*held, *rest)]
            assert seen == [key(number) for number in range(10)]
            for delivery in (*held, *rest):
                await delivery.ack()
            await until_none_is_behind(reader)
            await reader.close()

    with run_nats() as server:
        asyncio.run(story(server))


def test_a_reader_started_without_a_server_side_waits_and_says_why() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:
            server.kill()
            await until(lambda: not bus.connected)
            reader = EventReader(bus, "sink")
            await reader.start()
            await asyncio.sleep(0.1)
            assert reader.trouble
            server.start()
            await emit_and_store(bus, STARTED)
            async with asyncio.timeout(PATIENCE_S):
                assert (await reader.take())[0].record.kind == "call.started"
            assert reader.trouble is None
            await reader.close()

    with run_nats() as server:
        asyncio.run(story(server))


def test_a_second_reader_of_a_name_stands_by_until_the_first_has_closed() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as one, bus_on(server) as two:
            await emit_and_store(one, *map(key, range(6)))
            old, new = EventReader(one, "sink"), EventReader(two, "sink")
            await old.start()
            taken = [(await old.take())[0] for _ in range(3)]
            await new.start()
            await until(lambda: new.state == "standing by")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.6):
                    await new.take()
            assert new.state == "standing by"
            await taken[0].ack()
            await old.close()
            async with asyncio.timeout(PATIENCE_S):
                seen = [(await new.take())[0].record.event().fact for _ in range(5)]
            assert seen == [key(number) for number in range(1, 6)]
            await new.close()

    with run_nats() as server:
        asyncio.run(story(server))


def test_who_reads_is_seen_to_read_at_every_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or one who stands by would begin as well."""
    monkeypatch.setattr(event_reader, "_EXPIRES_S", 0.5)
    monkeypatch.setattr(event_reader, "_HEARTBEAT_S", 0.2)

    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:
            reader = EventReader(bus, "sink")
            await reader.start()

            async def waiting() -> int:
                return (await bus.control.jetstream().consumer_info(subjects.EVENTS_STREAM, "sink")).num_waiting or 0

            await until(lambda: reader.state == "reading")
            await until(waiting)
            now = asyncio.get_running_loop().time
            began = looked = now()
            while looked < began + 3:
                seen = await waiting()
                stood_still = now() - looked > 0.2  # the machine did: neither could the reader ask
                assert seen or stood_still
                looked = now()
            await reader.close()

    with run_nats() as server:
        asyncio.run(story(server))


def test_what_is_no_event_is_skipped_and_counted() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:
            await ensure_events_stream(bus)
            await bus.control.jetstream().publish("events.odd.call", b"\xff not an event")
            await emit_and_store(bus, STARTED)
            reader = EventReader(bus, "sink")
            await reader.start()
            (delivery,) = await reader.take()
            assert delivery.record.kind == "call.started"
            assert reader.counts["refused"] == 1
            await delivery.ack()
            await until_none_is_behind(reader)
            await reader.close()

    with run_nats() as server:
        asyncio.run(story(server))


def test_a_kind_from_the_future_can_be_passed_on() -> None:
    data = b'{"id":"e1","call":"c1","wall_at":1.5,"fact":{"type":"call.levitated","height_m":3},"sea":"calm"}'
    found = read_envelope(data)
    assert (found.id, found.call, found.kind, found.wall_at, found.data) == ("e1", "c1", "call.levitated", 1.5, data)
    with pytest.raises(BadMessage):
        found.event()


def test_followers_see_what_was_and_what_comes() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:
            await emit_and_store(bus, STARTED)
            seen: list[str] = []

            async def follow() -> None:
                async for found in recorded(bus, follow=True):
                    seen.append(found.kind)
                    if len(seen) == 2:
                        return

            task = asyncio.create_task(follow())
            await asyncio.sleep(0.1)
            await emit_and_store(bus, ENDED)
            async with asyncio.timeout(PATIENCE_S):
                await task
            assert seen == ["call.started", "call.ended"]

    with run_nats() as server:
        asyncio.run(story(server))


def test_looking_at_a_server_without_the_stream_says_so() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:
            with pytest.raises(BusUnavailable, match="EVENTS"):
                await facts_in_stream(bus)

    with run_nats() as server:
        asyncio.run(story(server))


def test_the_facts_of_a_kind_are_read_for_one_call_in_order() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:
            with pytest.raises(BusUnavailable, match="no stream EVENTS"):
                await facts_of(bus, CALL, "key.pressed")
            await emit_and_store(bus, STARTED, key(1), key(2), ENDED)
            await emit_and_store(bus, key(3), call=CallId("call-b"))
            await bus.control.jetstream().publish("events.key-pressed.call-a", b"{no event")
            await emit_and_store(bus, key(4))
            assert [event.fact for event in await facts_of(bus, CALL, "key.pressed")] == [key(1), key(2), key(4)]
            assert await facts_of(bus, CALL, "stage.settled") == []

    with run_nats() as server:
        asyncio.run(story(server))


def test_without_jetstream_facts_cannot_be_read_and_that_is_said() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:
            with pytest.raises(BusUnavailable):
                await facts_of(bus, CALL, "key.pressed")

    with run_nats(jetstream=False) as server:
        asyncio.run(story(server))


def test_a_stream_that_more_servers_should_keep_than_there_are_is_not_made() -> None:
    async def story(server: NatsServer) -> None:
        async with bus_on(server) as bus:
            with pytest.raises(BusUnavailable, match="replicas"):
                await ensure_events_stream(bus, replicas=3)

    with run_nats() as server:
        asyncio.run(story(server))
