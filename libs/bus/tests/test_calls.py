"""The bucket of live calls and the writing behind one's back, on a real nats-server that comes and goes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

import pytest

from trunkline.bus import Bus, BusUnavailable, CallStore, CallWriter, Outdated, Stored, calls
from trunkline.bus.calls import LARGEST_BYTES, MAX_BYTES
from trunkline.testing.nats_server import NatsServer, run_nats
from trunkline.testing.patience import PATIENCE_S, until

pytestmark = pytest.mark.integration

KEY = "call-a.brain"
LIMITS = {name: getattr(calls, name) for name in ("REQUEST_TIMEOUT_S", "FIRST_TIMEOUT_S", "_LEADER_TIMEOUT_S")}


@contextlib.contextmanager
def limited(limits: Mapping[str, float]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, limit_s in limits.items():
            patch.setattr(calls, name, limit_s)
        yield


@pytest.fixture(autouse=True)
def patient() -> Iterator[None]:
    """Have no answer come too late, unless a test is about that: the product waits for half a second."""
    with limited(dict.fromkeys(LIMITS, 600.0)):
        yield


@contextlib.asynccontextmanager
async def bus_on(server: NatsServer) -> AsyncIterator[Bus]:
    bus = await Bus.connect(server.url, name="test", on_lost=lambda _reason: None)
    try:
        yield bus
    finally:
        await bus.close()


def on_a_server(story: Callable[[NatsServer, Bus], Awaitable[None]], *, jetstream: bool = True) -> None:
    async def tell() -> None:
        async with asyncio.timeout(2 * PATIENCE_S), bus_on(server) as bus:
            await story(server, bus)

    with run_nats(jetstream=jetstream) as server:
        asyncio.run(tell())


@contextlib.contextmanager
def hanging(server: NatsServer) -> Iterator[None]:
    server.freeze()
    try:
        with limited(LIMITS):
            yield
    finally:
        server.thaw()


def forbidden() -> None:
    pytest.fail("nobody else has written")


def test_a_key_is_made_once_and_then_written_by_revision():
    async def story(_: NatsServer, bus: Bus) -> None:
        store = CallStore(bus)
        assert await store.get(KEY) is None
        first = await store.put(KEY, b"1", 0)
        with pytest.raises(Outdated):
            await store.put(KEY, b"other", 0)
        second = await store.put(KEY, b"2", first)
        with pytest.raises(Outdated):
            await store.put(KEY, b"other", first)
        with pytest.raises(Outdated):
            await store.put(KEY, b"2", first)  # the same bytes, but not because an answer was lost
        assert await CallStore(bus).get(KEY) == Stored(b"2", second)

    on_a_server(story)


def test_the_bucket_is_one_that_other_tools_understand():
    async def story(_: NatsServer, bus: Bus) -> None:
        revision = await CallStore(bus).put(KEY, b"1", 0)
        config = (await bus.control.jetstream().stream_info("KV_CALLS")).config
        assert config.subjects == ["$KV.CALLS.>"]
        assert (config.max_msgs_per_subject, config.max_age, config.max_bytes) == (1, 6 * 3600, MAX_BYTES)
        bucket = await bus.control.jetstream().key_value("CALLS")
        entry = await bucket.get(KEY)
        assert (entry.value, entry.revision) == (b"1", revision)

    on_a_server(story)


@pytest.mark.parametrize("by_other_tool", [False, True])
def test_a_key_that_was_deleted_holds_nothing_and_can_be_made_again(by_other_tool):
    async def story(_: NatsServer, bus: Bus) -> None:
        store = CallStore(bus)
        await store.delete(KEY)  # there is no bucket yet
        first = await store.put(KEY, b"1", 0)
        if by_other_tool:
            await (await bus.control.jetstream().key_value("CALLS")).delete(KEY)
        else:
            await store.delete(KEY)
        assert await store.get(KEY) is None
        assert [key async for key, _ in store.all(".brain")] == []
        with pytest.raises(Outdated):
            await store.put(KEY, b"2", first)
        again = await store.put(KEY, b"3", 0)
        assert await store.get(KEY) == Stored(b"3", again)

    on_a_server(story)


def test_of_many_who_write_at_once_one_wins():
    async def story(server: NatsServer, one: Bus) -> None:
        async with bus_on(server) as other:
            stores = [CallStore(bus) for bus in (one, other) * 5]
            writes = (store.put(KEY, str(number).encode(), 0) for number, store in enumerate(stores))
            outcomes = await asyncio.gather(*writes, return_exceptions=True)
            assert sum(isinstance(outcome, int) for outcome in outcomes) == 1
            assert sum(isinstance(outcome, Outdated) for outcome in outcomes) == 9

    on_a_server(story)


def test_all_keys_of_a_kind_are_found():
    async def story(_: NatsServer, bus: Bus) -> None:
        store = CallStore(bus)
        assert [key async for key, _ in store.all(".edge")] == []
        for number in range(5):
            await store.put(f"call-{number}.edge", str(number).encode(), 0)
            await store.put(f"call-{number}.brain", b"", 0)
        found = {key: stored async for key, stored in store.all(".edge")}
        assert {key: stored.data for key, stored in found.items()} == {
            f"call-{number}.edge": str(number).encode() for number in range(5)
        }
        await store.put("call-0.edge", b"new", found["call-0.edge"].revision)

    on_a_server(story)


@pytest.mark.parametrize("key", ["", "a b", "a..b", ".edge", "a.>", "*", "call.é"])
def test_what_is_no_key_is_refused(key):
    async def story(_: NatsServer, bus: Bus) -> None:
        with pytest.raises(ValueError, match="cannot be a key"):
            await CallStore(bus).put(key, b"", 0)
        with pytest.raises(ValueError, match="cannot be a key"):
            await CallStore(bus).get(key)

    on_a_server(story)


def test_a_key_holds_half_a_mebibyte_and_no_more():
    async def story(_: NatsServer, bus: Bus) -> None:
        store = CallStore(bus)
        revision = await store.put(KEY, b"x" * LARGEST_BYTES, 0)
        with pytest.raises(ValueError, match="more than a key"):
            await store.put(KEY, b"x" * (LARGEST_BYTES + 1), revision)
        writer = CallWriter(store, KEY, revision, forbidden)
        writer.put(b"x" * (LARGEST_BYTES + 1))
        assert (writer.failures, writer.pending) == (1, False)

    on_a_server(story)


def test_where_jetstream_is_away_that_is_known_soon():
    async def story(_: NatsServer, bus: Bus) -> None:
        store = CallStore(bus)
        for attempt in (store.get(KEY), store.put(KEY, b"1", 0), store.delete(KEY), anext(store.all(".edge"))):
            with pytest.raises(BusUnavailable):
                await attempt

    on_a_server(story, jetstream=False)


def test_a_server_that_hangs_holds_nobody_up_and_a_lost_answer_is_not_taken_for_somebody_else():
    async def story(server: NatsServer, bus: Bus) -> None:
        store = CallStore(bus)
        first = await store.put(KEY, b"1", 0)
        with hanging(server):
            with pytest.raises(BusUnavailable):
                await store.put(KEY, b"2", first)
            with pytest.raises(BusUnavailable):
                await store.get(KEY)
        second = await store.put(KEY, b"2", first)
        assert await store.get(KEY) == Stored(b"2", second)
        with hanging(server), pytest.raises(BusUnavailable):
            await store.put(KEY, b"3", second)
        assert await store.put(KEY, b"4", second) > second + 1  # over our own b"3", which was stored after all
        with hanging(server), pytest.raises(BusUnavailable):
            await CallStore(bus).put("another", b"", 0)
        with pytest.raises(Outdated):
            await store.put(KEY, b"5", second)

    on_a_server(story)


def test_a_writer_stores_the_newest_and_leaves_out_what_was_overtaken():
    async def story(_: NatsServer, bus: Bus) -> None:
        store = CallStore(bus)
        writer = CallWriter(store, KEY, 0, forbidden)
        assert await writer.flush(0)
        for number in range(1_000):
            writer.put(str(number).encode())
        assert writer.pending
        assert await writer.flush(PATIENCE_S)
        assert not writer.pending
        assert writer.stored <= 2
        writer.put(b"last")
        assert await writer.flush(PATIENCE_S)
        assert await store.get(KEY) == Stored(b"last", writer.revision)
        await writer.aclose()
        writer.put(b"after the end")
        assert not writer.pending

    on_a_server(story)


def test_a_writer_keeps_what_it_has_while_jetstream_is_away():
    async def story(server: NatsServer, bus: Bus) -> None:
        store = CallStore(bus)
        writer = CallWriter(store, KEY, 0, forbidden)
        writer.put(b"1")
        assert await writer.flush(PATIENCE_S)
        server.kill()
        with limited(LIMITS):
            writer.put(b"2")
            assert not await writer.flush(0.7)
            writer.put(b"3")
            assert not await writer.flush(0)
            await until(lambda: writer.failures)
        server.start()
        assert await writer.flush(PATIENCE_S)
        assert await store.get(KEY) == Stored(b"3", writer.revision)
        await writer.aclose()

    on_a_server(story)


def test_a_writer_whose_answers_are_lost_goes_on():
    async def story(server: NatsServer, bus: Bus) -> None:
        store = CallStore(bus)
        writer = CallWriter(store, KEY, 0, forbidden)
        writer.put(b"1")
        assert await writer.flush(PATIENCE_S)
        for number in range(2, 5):
            with hanging(server):
                writer.put(str(number).encode())
                assert not await writer.flush(0.8)
        assert await writer.flush(PATIENCE_S)
        assert await store.get(KEY) == Stored(b"4", writer.revision)
        await writer.aclose()

    on_a_server(story)


def test_a_writer_that_was_overtaken_stops_for_good_and_says_so_once():
    async def story(_: NatsServer, bus: Bus) -> None:
        told: list[str] = []
        writer = CallWriter(CallStore(bus), KEY, 0, lambda: told.append("outdated"))
        writer.put(b"1")
        assert await writer.flush(PATIENCE_S)
        other = CallStore(bus)
        theirs = await other.put(KEY, b"theirs", writer.revision)
        writer.put(b"2")
        assert not await writer.flush(3)
        assert writer.outdated
        writer.put(b"3")
        assert not await writer.flush(1)
        assert told == ["outdated"]
        assert await other.get(KEY) == Stored(b"theirs", theirs)
        await writer.aclose()

    on_a_server(story)


def test_a_key_that_has_vanished_is_made_anew():
    async def story(_: NatsServer, bus: Bus) -> None:
        store = CallStore(bus)
        writer = CallWriter(store, KEY, await store.put(KEY, b"1", 0), forbidden)
        await bus.control.jetstream().delete_stream("KV_CALLS")
        writer.put(b"2")
        assert await writer.flush(PATIENCE_S)
        assert await store.get(KEY) == Stored(b"2", writer.revision)
        await writer.aclose()

    on_a_server(story)


def test_a_writer_can_be_stopped_while_jetstream_is_away():
    async def story(server: NatsServer, bus: Bus) -> None:
        writer = CallWriter(CallStore(bus), KEY, 0, forbidden)
        server.kill()
        writer.put(b"1")
        flush = asyncio.create_task(writer.flush(PATIENCE_S))
        await asyncio.sleep(0.1)
        await writer.aclose()
        assert not await flush
        assert writer.pending

    on_a_server(story)


def test_more_replicas_than_servers_are_refused_with_a_reason():
    async def story(_: NatsServer, bus: Bus) -> None:
        with pytest.raises(BusUnavailable, match="replicas"):
            await CallStore(bus, replicas=3).put(KEY, b"1", 0)

    on_a_server(story)
