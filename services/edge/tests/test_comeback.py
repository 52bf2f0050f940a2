"""Taking up a call: who gets it, and where its numbers go on."""

import asyncio
import contextlib
import secrets

import msgspec
import pytest

from services.edge.tests.records import NEW, OLD, record_of_a_call
from trunkline.bus import Bus, BusUnavailable, CallStore, calls
from trunkline.edge.comeback import MARGIN_FRAMES, next_seq, read_record, take_up
from trunkline.proto import codec
from trunkline.proto.frame import FRAME_MS
from trunkline.proto.ids import CallId, Seq
from trunkline.proto.records import edge_key
from trunkline.testing.nats_server import run_nats

pytestmark = pytest.mark.integration


def a_record(**changes):
    return record_of_a_call(**({"epochs": {"stt": 2, "brain": 1, "tts": 1}, "next_seq": Seq(3_000)} | changes))


def wall():
    return 1_070.0


@contextlib.asynccontextmanager
async def store_on(server):
    bus = await Bus.connect(server.url, name="test", on_lost=lambda _reason: None)
    try:
        yield CallStore(bus)
    finally:
        await bus.close()


async def kept(store, record):
    return await store.put(edge_key(record.call), codec.encode(record), 0)


class TestNumbersOfANewLine:
    def test_are_above_all_that_the_old_edge_can_have_used_since_it_wrote(self):
        assert next_seq(a_record(), 1_070.0) >= 3_000 + 10_000 // FRAME_MS + MARGIN_FRAMES

    def test_are_above_what_the_age_of_the_call_allows_when_the_record_was_written_without_its_frames(self):
        stale = a_record(next_seq=Seq(0), written_at=1_600.0)
        assert next_seq(stale, 1_600.0) >= 600_000 // FRAME_MS + MARGIN_FRAMES

    def test_rise_at_every_comeback_even_at_once(self):
        record, numbers = a_record(), []
        for comebacks in range(5):
            record = msgspec.structs.replace(record, comebacks=comebacks)
            numbers.append(next_seq(record, 1_070.0))
            record = msgspec.structs.replace(record, next_seq=numbers[-1], written_at=1_070.0)
        assert numbers == sorted(set(numbers))

    def test_rise_though_the_new_edges_clock_is_behind(self):
        assert next_seq(a_record(), 900.0) >= 3_000 + MARGIN_FRAMES


class TestTakingUpACall:
    def test_makes_it_ours_and_tells_how_it_was_left(self, nats):
        async def story():
            async with store_on(nats) as store:
                left = a_record(state="away", planned=True, reason="edge-stopped", comebacks=2)
                await kept(store, left)
                taken = await take_up(store, left.call, NEW, wall)
                return left, taken, await read_record(store, left.call)

        left, taken, (record, revision) = asyncio.run(story())
        assert taken == (left, revision)
        assert record == msgspec.structs.replace(
            left, state="live", edge=NEW, planned=False, reason="", comebacks=3, written_at=1_070.0
        )

    def test_of_an_edge_that_has_not_noticed_takes_it_away_from_there(self, nats):
        async def story():
            async with store_on(nats) as store:
                live = a_record()
                await kept(store, live)
                return live, await take_up(store, live.call, NEW, wall)

        live, taken = asyncio.run(story())
        assert taken.record == live

    def test_that_is_over_or_unknown_is_nothing(self, nats):
        async def story():
            async with store_on(nats) as store:
                over = a_record(state="ended")
                revision = await kept(store, over)
                assert await take_up(store, over.call, NEW, wall) is None
                assert await take_up(store, CallId("call-of-nobody"), NEW, wall) is None
                assert await read_record(store, over.call) == (over, revision)

        asyncio.run(story())

    def test_gives_it_to_one_edge_after_the_other_each_with_a_revision_of_its_own(self, nats):
        async def story():
            async with store_on(nats) as one, store_on(nats) as other:
                left = a_record(state="away")
                await kept(one, left)
                return await asyncio.gather(
                    take_up(one, left.call, OLD, wall), take_up(other, left.call, NEW, wall)
                ), await read_record(one, left.call)

        taken, (record, revision) = asyncio.run(story())
        assert record.comebacks == 2
        assert sorted(each.record.comebacks for each in taken) == [0, 1]
        assert max(each.revision for each in taken) == revision

    def test_that_this_version_cannot_read_is_not_known(self, nats):
        async def story():
            async with store_on(nats) as store:
                call = CallId(f"call-{secrets.token_hex(4)}")
                await store.put(edge_key(call), b'{"call": 3}', 0)
                await take_up(store, call, NEW, wall)

        with pytest.raises(BusUnavailable, match="cannot be read"):
            asyncio.run(story())

    def test_without_the_bus_says_so(self, monkeypatch):
        async def story():
            with run_nats() as server:
                async with store_on(server) as store:
                    await kept(store, a_record())
                    server.stop()
                    monkeypatch.setattr(calls, "REQUEST_TIMEOUT_S", 0.1)
                    await take_up(store, CallId("call-a"), NEW, wall)

        with pytest.raises(BusUnavailable):
            asyncio.run(story())
