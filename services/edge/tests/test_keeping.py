"""A call's record while an edge has the call: what is written, how often, and who learns of it."""

import asyncio
import contextlib
import time

import pytest

from services.edge.tests.records import NEW, record_of_a_call
from trunkline.bus import Bus, BusUnavailable, CallStore
from trunkline.edge.comeback import read_record, take_up
from trunkline.edge.keeping import Keeping, concluded
from trunkline.proto.agent import Agent
from trunkline.proto.messages import Used
from trunkline.testing.nats_server import run_nats
from trunkline.testing.patience import PATIENCE_S, until

pytestmark = pytest.mark.integration

UNHURRIED_S = 0.3


@contextlib.asynccontextmanager
async def store_on(server):
    bus = await Bus.connect(server.url, name="test", on_lost=lambda _reason: None)
    try:
        yield CallStore(bus)
    finally:
        await bus.close()


def used(usd):
    return (Used(stage="brain", epoch=1, provider="p", usd=usd),)


@contextlib.asynccontextmanager
async def keeping_on(store, *, unhurried_s=UNHURRIED_S, **changes):
    usurped = []
    keeping = Keeping(store, record_of_a_call(**changes), 0, time.time, lambda: usurped.append(1), unhurried_s)
    try:
        yield keeping, usurped
    finally:
        await keeping.aclose()


async def stored(store, keeping):
    found = await read_record(store, keeping.record.call)
    return None if found is None else found[0]


class TestAChange:
    def test_is_stored_at_once_with_the_time(self, nats):
        async def story():
            async with store_on(nats) as store, keeping_on(store) as (keeping, _):
                before = time.time()
                keeping.change(epochs={"stt": 3})
                assert keeping.record.epochs == {"stt": 3}
                await until(lambda: stored(store, keeping))
                assert await stored(store, keeping) == keeping.record
                assert before <= keeping.record.written_at <= time.time()

        asyncio.run(story())

    def test_in_no_hurry_waits_and_the_newest_is_written(self, nats):
        async def story():
            async with store_on(nats) as store, keeping_on(store) as (keeping, _):
                assert await keeping.settle(PATIENCE_S)
                began = time.monotonic()
                keeping.change(epochs={"stt": 3})
                for step in range(1, 20):
                    keeping.change(eager=False, used=used(step))

                async def newest():
                    found = await stored(store, keeping)
                    assert found.used in ((), used(19))
                    return found.used

                await until(newest)
                assert time.monotonic() - began >= UNHURRIED_S
                _, revision = await read_record(store, keeping.record.call)
                keeping.change(eager=False, used=used(19))
                await asyncio.sleep(UNHURRIED_S)
                assert (await read_record(store, keeping.record.call))[1] == revision

        asyncio.run(story())

    def test_that_waits_goes_along_with_one_that_does_not(self, nats):
        async def story():
            async with store_on(nats) as store, keeping_on(store, unhurried_s=60.0) as (keeping, _):
                assert await keeping.settle(PATIENCE_S)
                keeping.change(eager=False, used=used(5))
                assert await keeping.settle(PATIENCE_S, winding_up="exceeded-max-cost")
                found = await stored(store, keeping)
                assert (found.used, found.winding_up) == (used(5), "exceeded-max-cost")

        asyncio.run(story())


class TestTheEnd:
    def test_is_kept_without_the_agents_texts_and_stays_the_end(self, nats):
        async def story():
            async with store_on(nats) as store, keeping_on(store) as (keeping, _):
                assert await keeping.settle(PATIENCE_S, state="ended", reason="hung-up", used=used(1))
                assert await keeping.settle(PATIENCE_S, state="live", used=used(2))
                return await stored(store, keeping)

        found = asyncio.run(story())
        assert (found.state, found.reason, found.used) == ("ended", "hung-up", used(2))
        assert found.agent == Agent(name="restaurant")

    def test_without_a_bus_is_not_known_and_no_more_than_that_is_waited(self):
        async def story():
            with run_nats() as server:
                async with store_on(server) as store, keeping_on(store) as (keeping, usurped):
                    assert await keeping.settle(PATIENCE_S)
                    server.stop()
                    assert not await asyncio.wait_for(keeping.settle(0.2, state="ended"), PATIENCE_S)
                    assert not keeping.usurped
                    assert usurped == []

        asyncio.run(story())

    def test_is_stored_once_the_bus_is_back(self):
        async def story():
            with run_nats() as server:
                async with store_on(server) as store, keeping_on(store) as (keeping, _):
                    assert await keeping.settle(PATIENCE_S)
                    server.stop()
                    keeping.change(state="ended")
                    server.start()

                    async def ended():
                        with contextlib.suppress(BusUnavailable):
                            return (await stored(store, keeping)).state == "ended"

                    await until(ended)

        asyncio.run(story())


class TestAnotherEdge:
    def test_that_takes_the_call_is_noticed_at_the_next_change(self, nats):
        async def story():
            async with store_on(nats) as store, keeping_on(store) as (keeping, usurped):
                assert await keeping.settle(PATIENCE_S)
                await take_up(store, keeping.record.call, NEW, time.time)
                assert not await keeping.settle(PATIENCE_S, state="ended")
                assert keeping.usurped
                assert usurped == [1]
                keeping.change(used=used(9))
                found = await stored(store, keeping)
                assert (found.edge, found.state, found.used) == (NEW, "live", ())

        asyncio.run(story())

    def test_goes_on_writing_with_what_it_was_given(self, nats):
        async def story():
            async with store_on(nats) as store, keeping_on(store) as (keeping, _):
                assert await keeping.settle(PATIENCE_S)
                taken = await take_up(store, keeping.record.call, NEW, time.time)
                theirs = Keeping(store, taken.record, taken.revision, time.time, lambda: None)
                assert await theirs.settle(PATIENCE_S, edge=NEW, state="live", comebacks=1)
                assert (await stored(store, keeping)).edge == NEW
                await theirs.aclose()

        asyncio.run(story())


def test_what_is_kept_of_a_call_that_is_over_keeps_its_bill():
    record = record_of_a_call(used=used(3), bill_complete=False)
    assert concluded(record).used == used(3)
    assert not concluded(record).bill_complete
