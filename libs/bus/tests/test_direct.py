import asyncio
import gc
import weakref

import nats.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError
from nats.js.errors import BadRequestError, NoStreamResponseError

from trunkline.bus import Address, Bus
from trunkline.bus.direct import DirectClient
from trunkline.testing.nats_server import run_nats
from trunkline.testing.patience import PATIENCE_S, until

pytestmark = pytest.mark.unit

AUDIO, OTHER, ODD, PONG, OK = b"7", b"8", b"odd", b"PONG\r\n", b"+OK\r\n"

subjects = st.text("abcdef-0123456789.", min_size=1, max_size=12).map(str.encode)
payloads = st.one_of(st.binary(max_size=40), st.just(b"\r\nMSG media.x 7 3\r\nabc\r\n"))
messages = st.tuples(st.sampled_from([AUDIO, AUDIO, AUDIO, OTHER]), subjects, st.booleans(), payloads)
lines = st.lists(st.one_of(messages, st.sampled_from([PONG, OK])), max_size=30)


def written(line):
    if isinstance(line, bytes):
        return line
    sid, subject, asks, payload = line
    return b"MSG %b %b %b%d\r\n%b\r\n" % (subject, sid, b"_INBOX.a.b " if asks else b"", len(payload), payload)


@given(lines, st.lists(st.integers(1, 60), max_size=60))
def test_every_frame_is_taken_once_and_in_order_however_the_stream_is_cut(said, cuts):
    stream, heard = b"".join(map(written, said)), []

    async def story():
        client = DirectClient()
        client.takers[AUDIO] = lambda subject, data: heard.append((subject.encode(), data))
        rest = stream
        for cut in cuts:
            await client._ps.parse(rest[:cut])
            rest = rest[cut:]
        await client._ps.parse(rest)
        assert not client._ps.buf

    asyncio.run(story())
    assert heard == [(line[1], line[3]) for line in said if not isinstance(line, bytes) and line[0] == AUDIO]


@pytest.mark.parametrize("line", [b"MSG m.a\r\n", b"MSG m.a 7 x\r\n", b"MSG m.a 7\r\n"])
def test_a_line_that_is_none_is_told_as_nats_py_tells_it(line):
    async def story():
        client = DirectClient()
        client.takers[AUDIO] = print
        await client._ps.parse(b"MSG m.a 7 1\r\na\r\n" + line)

    with pytest.raises(ProtocolError):
        asyncio.run(story())


def test_a_taker_that_fails_harms_no_later_frame(caplog):
    heard = []

    def take(_, data):
        if data == b"bad":
            raise ValueError(data)
        heard.append(data)

    async def story():
        client = DirectClient()
        client.takers[AUDIO] = take
        await client._ps.parse(b"MSG m.a 7 1\r\na\r\nMSG m.a 7 3\r\nbad\r\nMSG m.a 7 1\r\nb\r\n")

    asyncio.run(story())
    assert heard == [b"a", b"b"]
    assert "message dropped" in caplog.text


@pytest.mark.integration
def test_gathered_frames_arrive_whole_and_in_order_and_what_nobody_hears_is_told():
    async def story(url):
        lost = asyncio.Queue()
        bus = await Bus.connect(url, name="test", on_lost=lost.put_nowait)
        heard, unheard = [], []
        try:
            async with asyncio.timeout(2 * PATIENCE_S):
                await bus.media.subscribe("media.me.*", lambda subject, data: heard.append((subject, data)))
                await bus.media.watch_unheard(unheard.append)
                await bus.media.flush()
                sent = [(f"media.me.{number % 7}", number.to_bytes(4, "big") * 85) for number in range(2_000)]
                addresses = [Address(f"media.me.{number}") for number in range(7)]
                for number, (_, data) in enumerate(sent):
                    assert bus.media.gather(addresses[number % 7], number, data[:2], data[2:])
                assert bus.media.gather(Address("media.nobody.a", bus.media.reply_to("a-1-")), 2, b"", b"")
                await until(lambda: len(heard) >= len(sent) and unheard)
            assert heard == sent
            assert unheard == ["a-1-2"]
            assert bus.media.counts["sent"] == len(sent) + 1
        finally:
            await bus.close()
        assert not bus.media.gather(addresses[0], 0, b"", b"late")
        assert lost.empty()

    with run_nats(jetstream=False) as server:
        asyncio.run(story(server.url))


def on_a_bus(story, *, jetstream=False):
    """Run `story` with a bus, and the URL of its server."""

    async def run(url):
        bus = await Bus.connect(url, name="test", on_lost=print)
        try:
            async with asyncio.timeout(2 * PATIENCE_S):
                await story(bus, url)
        finally:
            await bus.close()

    with run_nats(jetstream=jetstream) as server:
        asyncio.run(run(server.url))


@pytest.mark.integration
def test_what_is_said_again_comes_in_its_place_among_what_is_said_for_the_first_time():
    async def story(bus, url):
        speaker, heard = DirectClient(), []
        await speaker.connect(url)
        try:
            subscription = await bus.subscribe("said.*", lambda subject, data: heard.append((subject, data)))
            await bus.flush()
            for number in range(50):
                headers = {"Again": "outage"} if number % 3 == 0 else {"Other": "thing"} if number % 3 == 1 else None
                await speaker.publish(f"said.{number}", b"%d" % number, headers=headers)
            await speaker.flush()
            await until(lambda: len(heard) >= 50)
            assert heard == [(f"said.{number}", b"%d" % number) for number in range(50)]
            await subscription.drain()
            await speaker.publish("said.late", b"")
            await speaker.flush()
            await bus.flush()
            assert len(heard) == 50
            assert not bus.control.takers
        finally:
            await speaker.close()

    on_a_bus(story)


@pytest.mark.integration
def test_storing_tells_where_it_is_stored_and_why_it_is_not():
    async def story(bus, _url):
        with pytest.raises(NoStreamResponseError):
            await bus.storing.publish("kept.a", b"1", {}, PATIENCE_S)
        await bus.control.jetstream().add_stream(name="KEPT", subjects=["kept.*"], max_msg_size=100)
        numbers = [bus.storing.publish(f"kept.{n}", b"%d" % n, {"Nats-Msg-Id": str(n)}, PATIENCE_S) for n in range(20)]
        assert sorted(await asyncio.gather(*numbers)) == list(range(1, 21))
        assert await bus.storing.publish("kept.3", b"3", {"Nats-Msg-Id": "3"}, PATIENCE_S) == 4
        stale = {"Nats-Expected-Last-Subject-Sequence": "7"}
        with pytest.raises(BadRequestError) as refused:
            await bus.storing.publish("kept.3", b"3", stale, PATIENCE_S)
        assert refused.value.err_code == 10_071
        with pytest.raises(BadRequestError):
            await bus.storing.publish("kept.big", bytes(200), {}, PATIENCE_S)
        with pytest.raises(nats.errors.TimeoutError):
            await bus.storing.publish("kept.4", b"4", {}, 0.0)
        message = await bus.control.jetstream().get_msg("KEPT", seq=4)
        assert (message.subject, message.data) == ("kept.3", b"3")
        kept = await bus.storing.next_of("KEPT", 4, "kept.*", PATIENCE_S)
        assert (kept.subject, kept.seq, kept.data) == ("kept.3", 4, b"3")
        assert "Nats-Msg-Id" in kept.header_names
        assert await bus.storing.next_of("KEPT", 1_000, "kept.*", PATIENCE_S) is None

    on_a_bus(story, jetstream=True)


@pytest.mark.integration
def test_a_subscription_that_is_over_is_freed_without_the_collector():
    async def story(bus, _url):
        gc.collect()
        gc.disable()
        try:
            remembered = []
            for end in ("drain", "unsubscribe"):

                def on_message(subject, data):
                    raise AssertionError((subject, data))

                subscription = await bus.subscribe("said.*", on_message)
                remembered += [weakref.ref(subscription._inner), weakref.ref(on_message)]
                await getattr(subscription, end)()
                del subscription, on_message
            assert [ref() for ref in remembered] == [None] * 4
        finally:
            gc.enable()

    on_a_bus(story)
