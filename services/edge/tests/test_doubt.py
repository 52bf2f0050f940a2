"""Facts of an edge that was cut off: its own are told, those of calls that another edge has got are not."""

import asyncio
import contextlib
import time

import pytest

from services.edge.tests.records import record_of_a_call
from trunkline.bus import Bus, CallStore, EventLog, facts_of
from trunkline.edge.doubt import guard
from trunkline.proto import codec
from trunkline.proto.events import KeyPressed
from trunkline.proto.ids import CallId, WorkerId
from trunkline.proto.records import edge_key
from trunkline.testing.nats_server import run_nats
from trunkline.testing.patience import PATIENCE_S, until

pytestmark = pytest.mark.integration

OURS, THEIRS = WorkerId("edge-ours"), WorkerId("edge-theirs")
KEPT, LOST, UNKNOWN = CallId("call-kept"), CallId("call-lost"), CallId("call-unknown")
PRESSED = KeyPressed(digit="1", at=1.0)


async def write_record(store, call, edge):
    await store.put(edge_key(call), codec.encode(record_of_a_call(call=call, edge=edge)), 0)


@contextlib.asynccontextmanager
async def bus_on(server):
    bus = await Bus.connect(server.url, name="test", on_lost=lambda _reason: None)
    try:
        yield bus
    finally:
        await bus.close()


def test_after_an_outage_only_the_facts_of_our_own_calls_are_stored():
    async def story(server):
        async with bus_on(server) as bus:
            lost = []
            store, events = CallStore(bus), EventLog(bus, time.time)
            guard(bus, store, events, OURS, lost.append)
            await write_record(store, KEPT, OURS)
            await write_record(store, LOST, THEIRS)
            events.emit(LOST, PRESSED)  # nothing has broken: nobody looks
            assert await events.flush(PATIENCE_S)
            await asyncio.to_thread(server.kill)
            await until(lambda: not bus.connected)
            for call in (LOST, KEPT, UNKNOWN):
                events.emit(call, PRESSED)
            server.start()
            assert await events.flush(PATIENCE_S)
            assert lost == [LOST]
            for call, times in ((KEPT, 1), (LOST, 1), (UNKNOWN, 1)):
                assert [event.fact for event in await facts_of(bus, call, "key.pressed")] == [PRESSED] * times
            await events.close()

    with run_nats() as server:
        asyncio.run(story(server))
