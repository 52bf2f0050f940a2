"""What becomes of a process whose connection to NATS breaks, stalls, or is not allowed what it needs."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

import pytest

from trunkline.bus import Bus, BusUnavailable, connection
from trunkline.bus.connection import MAX_UNSENT_BYTES
from trunkline.bus.outage import REFUSED_S
from trunkline.proto.ids import CallId, Epoch
from trunkline.proto.messages import Release
from trunkline.testing.nats_server import NatsServer, run_nats
from trunkline.testing.patience import PATIENCE_S, until

pytestmark = pytest.mark.integration

USER = "authorization {{ users = [ {{ user: u, password: {password}, permissions: {{ {permissions} }} }} ] }}"
NO_SECRETS = 'publish: { deny: ["secret.>"] }, subscribe: { deny: ["secret.>"] }'
MESSAGE = Release(call=CallId("call-a"), epoch=Epoch(1))


def ignore(_subject: str, _data: bytes) -> None:
    pass


@contextlib.asynccontextmanager
async def bus_at(url: str) -> AsyncIterator[tuple[Bus, asyncio.Queue[str]]]:
    lost: asyncio.Queue[str] = asyncio.Queue()
    bus = await Bus.connect(url, name="test", on_lost=lost.put_nowait)
    try:
        async with asyncio.timeout(2 * PATIENCE_S):
            yield bus, lost
    finally:
        await bus.close()


def user(password: str = "p") -> str:  # noqa: S107 - a made-up one
    return USER.format(password=password, permissions=NO_SECRETS)


def test_a_subscription_that_is_not_allowed_ends_the_process_and_names_the_subject(guarded):
    async def story() -> None:
        async with bus_at(guarded(user()).url("u", "p")) as (bus, lost):
            await bus.subscribe("secret.plan", ignore)
            assert "not allow it to subscribe to secret.plan" in await lost.get()

    asyncio.run(story())


def test_a_message_that_is_not_allowed_ends_the_process_and_names_the_subject(guarded):
    async def story() -> None:
        async with bus_at(guarded(user()).url("u", "p")) as (bus, lost):
            await bus.publish("secret.plan", MESSAGE)
            assert "not allow it to publish on secret.plan" in await lost.get()
            await bus.media.publish_frame("secret.sound", b"frame")
            assert "not allow it to publish on secret.sound" in await lost.get()

    asyncio.run(story())


def test_a_user_who_is_revoked_ends_the_process(guarded):
    async def story() -> None:
        server = guarded(user())
        async with bus_at(server.url("u", "p")) as (_, lost):
            server.configure(user("another"))
            server.reload()
            assert "authorization" in await lost.get()

    asyncio.run(story())


def test_a_user_who_is_revoked_during_an_outage_ends_the_process_after_a_while(guarded):
    async def story() -> None:
        server = guarded(user())
        async with bus_at(server.url("u", "p")) as (bus, lost):
            server.kill()
            server.configure(user("another"))
            server.start()
            began = asyncio.get_running_loop().time()
            assert "NATS refuses" in await lost.get()
            assert asyncio.get_running_loop().time() - began > REFUSED_S - 1
            assert not bus.connected

    asyncio.run(story())


def test_more_subscriptions_than_the_server_allows_end_the_process(guarded):
    async def story() -> None:
        async with bus_at(guarded("max_subscriptions: 3").url()) as (bus, lost):
            for number in range(4):
                await bus.subscribe(f"any.{number}", ignore)
            assert "maximum subscriptions exceeded" in await lost.get()

    asyncio.run(story())


@pytest.fixture
def sluggish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nats-py's own way back take so long that a quick one is ours."""
    monkeypatch.setitem(connection._SETTINGS, "reconnect_time_wait", 600)


@pytest.mark.usefixtures("sluggish")
def test_a_reconnect_is_quick_and_counts_as_settled_only_after_a_while():
    async def story(server: NatsServer) -> None:
        async with bus_at(server.url) as (bus, _):
            assert bus.settled(0)
            assert not bus.settled(10 * PATIENCE_S)
            before = bus.up_since
            server.kill()
            await until(lambda: not bus.connected)
            assert not bus.settled(0)
            server.start()
            await until(lambda: bus.settled(0))
            assert bus.up_since is not None
            assert before is not None
            assert bus.up_since > before

    with run_nats(jetstream=False) as server:
        asyncio.run(story(server))


def test_what_is_said_during_an_outage_reaches_those_who_come_back_later_in_order():
    heard: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    def hear(subject: str, data: bytes) -> None:
        heard.put_nowait((subject, data))

    async def story(server: NatsServer) -> None:
        async with bus_at(server.url) as (speaker, _):
            server.kill()
            await until(lambda: not speaker.connected)
            await speaker.publish("said.0", MESSAGE)
            server.start()
            await until(lambda: speaker.connected)
            await speaker.publish("said.1", MESSAGE)
            async with bus_at(server.url) as (listener, _):
                await listener.subscribe("said.*", hear)
                assert [(await heard.get())[0] for _ in range(2)] == ["said.0", "said.1"]
                await speaker.publish("said.2", MESSAGE)
                assert (await heard.get())[0] == "said.2"

    with run_nats(jetstream=False) as server:
        asyncio.run(story(server))


@pytest.mark.usefixtures("sluggish")
def test_when_one_of_several_servers_dies_another_is_found_at_once(guarded):
    async def story() -> None:
        servers = {server.port: server for server in (guarded(""), guarded(""))}
        async with bus_at(",".join(server.url() for server in servers.values())) as (bus, _):
            for _ in range(4):
                stood_on = {client.connected_url.port for client in (bus.control, bus.media.client)}
                victim = servers[stood_on.pop()]
                gone = {None, bus.up_since}
                victim.kill()
                await until(lambda gone=gone: bus.up_since not in gone)
                victim.start()

    asyncio.run(story())


def test_frames_that_came_while_the_process_hung_are_handed_over_whole_and_in_order():
    frames = 2_000

    def publish(url: str) -> None:
        async def story() -> None:
            async with bus_at(url) as (bus, _):
                for number in range(frames):
                    assert await bus.media.publish_frame("media.me.a", number.to_bytes(4, "big") * 85)
                await bus.media.flush()

        asyncio.run(story())

    async def story(server: NatsServer) -> None:
        async with bus_at(server.url) as (bus, _):
            heard: list[int] = []
            await bus.media.subscribe("media.me.*", lambda _, data: heard.append(int.from_bytes(data[:4], "big")))
            await bus.media.flush()
            publisher = threading.Thread(target=publish, args=(server.url,))
            publisher.start()
            publisher.join()  # meanwhile nothing else runs here
            await until(lambda: len(heard) >= frames)
            assert heard == list(range(frames))
            assert not bus.media.counts["slow_consumer"]

    with run_nats(jetstream=False) as server:
        asyncio.run(story(server))


def test_nobody_who_publishes_waits_for_a_server_that_hangs():
    async def story(server: NatsServer) -> None:
        large = Release(call=CallId("call-a"), epoch=Epoch(1), reason="x" * 100_000)
        async with bus_at(server.url) as (bus, _):
            server.freeze()
            try:
                # Whoever waits for it does so until the connection is given up, and is refused for that.
                with pytest.raises(BusUnavailable, match="does not take"):  # noqa: PT012 - again and again
                    while True:
                        await bus.publish("any", large)
                        await asyncio.sleep(0)
                with pytest.raises(BusUnavailable):
                    await bus.request("any", large, timeout_s=PATIENCE_S)
                assert bus.control.pending_data_size <= MAX_UNSENT_BYTES
            finally:
                server.thaw()
            while True:
                with contextlib.suppress(BusUnavailable):
                    await bus.publish("any", large)
                    break
                await asyncio.sleep(0.01)

    with run_nats(jetstream=False) as server:
        asyncio.run(story(server))
