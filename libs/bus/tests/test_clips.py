"""The store of clips, on a real nats-server."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest
from nats.js.object_store import ObjectStore

from trunkline.bus import Bus, BusUnavailable, ClipStore, clips
from trunkline.bus.clips import CALL_TIMEOUT_S, LONGEST_BYTES, MAX_BYTES
from trunkline.testing.nats_server import NatsServer, run_nats
from trunkline.testing.patience import PATIENCE_S

pytestmark = pytest.mark.integration

LONG = bytes(range(250)) * 3_840  # 60 s


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing end because it took too long: what is known at once is known long before that."""
    monkeypatch.setattr(clips, "CALL_TIMEOUT_S", 600.0)


@contextlib.asynccontextmanager
async def bus_on(server: NatsServer) -> AsyncIterator[Bus]:
    bus = await Bus.connect(server.url, name="test", on_lost=lambda _reason: None)
    try:
        yield bus
    finally:
        await bus.close()


def test_what_is_kept_is_found_by_others_and_may_be_replaced() -> None:
    async def story() -> None:
        with run_nats() as server:
            async with bus_on(server) as bus, bus_on(server) as other:
                store = ClipStore(bus)
                assert await store.get("a") is None
                await store.put("a", b"\1\2" * 800)
                assert await ClipStore(other).get("a") == b"\1\2" * 800
                assert await ClipStore(other).get("b") is None
                await asyncio.gather(*(ClipStore(each).put("a", LONG) for each in (bus, other, bus)))
                assert await store.get("a") == LONG
                assert len(LONG) == LONGEST_BYTES
                config = (await bus.control.jetstream().stream_info("OBJ_CLIPS")).config
                assert config.max_bytes == MAX_BYTES
                assert config.max_age == 30 * 24 * 3600

    asyncio.run(story())


@pytest.mark.parametrize("pcm", [b"", b"abc", LONG + b"ab"])
def test_what_is_no_clip_is_not_kept(pcm: bytes) -> None:
    async def story() -> None:
        with run_nats() as server:
            async with bus_on(server) as bus:
                with pytest.raises(ValueError, match="bytes are no clip"):
                    await ClipStore(bus).put("a", pcm)

    asyncio.run(story())


def test_what_others_left_there_or_damaged_is_not_taken_for_a_clip(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        with run_nats() as server:
            async with bus_on(server) as bus:
                store = ClipStore(bus)
                await store.put("good", LONG)
                jetstream = bus.control.jetstream()
                bucket = ObjectStore("CLIPS", "OBJ_CLIPS", jetstream)
                await bucket.put("long", LONG + b"ab")
                await bucket.put("odd", b"abc")
                await bucket.put("empty", b"")
                await bucket.put("torn", b"ab" * 200_000)
                info = await bucket.get_info("torn")
                await jetstream.purge_stream("OBJ_CLIPS", subject=f"$O.CLIPS.C.{info.nuid}", keep=1)
                await bucket.put("forged", b"abcd")
                forged = await bucket.get_info("forged")
                await jetstream.purge_stream("OBJ_CLIPS", subject=f"$O.CLIPS.C.{forged.nuid}")
                await jetstream.publish(f"$O.CLIPS.C.{forged.nuid}", b"abce")
                await jetstream.publish("$O.CLIPS.M.cnViYmlzaA==", b"{no json")
                for key in ("long", "odd", "empty", "torn", "forged", "rubbish"):
                    assert await store.get(key) is None, key
                assert await store.get("good") == LONG

    with caplog.at_level(logging.WARNING):
        asyncio.run(story())
    assert sum("clip damaged" in record.message for record in caplog.records) == 6


def test_where_there_is_no_jetstream_that_is_known_at_once() -> None:
    async def story() -> None:
        with run_nats(jetstream=False) as server:
            async with bus_on(server) as bus:
                async with asyncio.timeout(PATIENCE_S):
                    with pytest.raises(BusUnavailable, match="cannot read a clip"):
                        await ClipStore(bus).get("a")
                    with pytest.raises(BusUnavailable, match="cannot keep a clip"):
                        await ClipStore(bus).put("a", b"ab")

    asyncio.run(story())


def test_a_server_that_is_gone_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        with run_nats() as server:
            async with bus_on(server) as bus:
                store = ClipStore(bus)
                await store.put("a", b"ab")
                server.freeze()
                try:
                    with monkeypatch.context() as impatient:
                        impatient.setattr(clips, "CALL_TIMEOUT_S", CALL_TIMEOUT_S)
                        with pytest.raises(BusUnavailable):
                            await store.get("a")
                finally:
                    server.thaw()
                assert await store.get("a") == b"ab"

    asyncio.run(story())
