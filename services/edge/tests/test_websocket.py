"""What the socket of a line does, whatever is said on it: a real client on the edge's port."""

import asyncio
import contextlib
import json

import pytest
from picows import ws_create_server
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from trunkline.edge.errors import LineClosed
from trunkline.edge.websocket import MAX_MESSAGE_BYTES, WebSocketLine
from trunkline.testing.patience import PATIENCE_S, until

pytestmark = pytest.mark.integration

CONNECTED = json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"})


@contextlib.asynccontextmanager
async def line_of(answer):
    """Yield a client whose line is served by `answer`, in a server of its own."""
    server = await ws_create_server(lambda _request: WebSocketLine(answer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with connect(f"ws://127.0.0.1:{port}/", compression=None, max_queue=4) as socket:
            yield socket
    finally:
        server.close()


async def closed(socket):
    """Return code and reason, once the other side has closed."""
    with pytest.raises(ConnectionClosed):
        await asyncio.wait_for(socket.recv(), PATIENCE_S)
    return socket.close_code, socket.close_reason


def start(dial):
    body = {
        "accountSid": dial.account_sid,
        "streamSid": "MZ1",
        "callSid": dial.call_sid,
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8_000, "channels": 1},
        "customParameters": {"agent": "restaurant"},
    }
    return json.dumps({"event": "start", "sequenceNumber": "1", "streamSid": "MZ1", "start": body})


def test_a_message_in_fragments_is_one_message(edge_rig):
    async def story():
        async with edge_rig() as rig:
            dial = rig.dial()
            text = start(dial)
            async with connect(rig.ws, compression=None) as socket:
                await socket.send([CONNECTED[:9], CONNECTED[9:20], CONNECTED[20:]])
                await socket.send([text[:50], text[50:]])
                await until(lambda: rig.call_of(dial) in rig.edge.exchange.calls)
            assert not rig.metrics.bad

    asyncio.run(story())


def test_fragments_that_come_to_too_much_are_refused(edge_rig):
    async def story():
        async with edge_rig() as rig, connect(rig.ws, compression=None) as socket:
            await socket.send(["x" * 40_000, "x" * (MAX_MESSAGE_BYTES - 40_000), "x"])
            assert (await closed(socket))[0] == 1009
            await until(lambda: rig.metrics.refused == {"oversize-message": 1})

    asyncio.run(story())


def test_text_that_is_no_text_is_refused(edge_rig):
    async def story():
        async with edge_rig() as rig, connect(rig.ws, compression=None) as socket:
            await socket.send(b"\xff\xfe", text=True)
            assert (await closed(socket))[0] == 1007
            await until(lambda: rig.metrics.refused == {"invalid-utf8": 1})

    asyncio.run(story())


def test_what_nobody_takes_is_left_in_the_socket_and_comes_in_order_when_it_is_taken():
    sent = [f"{number:05} {'x' * 8_000}" for number in range(4_000)]  # 32 MB: more than both sockets hold

    async def story():
        may_take, taken = asyncio.Event(), []

        async def answer(line):
            await may_take.wait()
            taken.extend([await line.receive() for _ in sent])

        async def send_all(socket):
            for number, message in enumerate(sent):
                progress[0] = number
                await socket.send(message)

        progress = [0]
        async with line_of(answer) as socket:
            sending = asyncio.create_task(send_all(socket))
            while progress[0] < 200 or progress[0] != await later(progress):
                await asyncio.sleep(0)
            assert not sending.done()
            may_take.set()
            await sending
            await until(lambda: len(taken) == len(sent))
        assert taken == sent

    async def later(progress):
        await asyncio.sleep(0.3)
        return progress[0]

    asyncio.run(story())


def test_who_listens_is_handed_what_waited_first_then_what_comes_and_then_the_end():
    async def story():
        may_listen, taken, ended = asyncio.Event(), [], asyncio.Event()

        async def answer(line):
            await may_listen.wait()
            with pytest.raises(LineClosed) as closed:
                await line.listen(taken.append)
            taken.append(closed.value.code)
            ended.set()

        async with line_of(answer) as socket:
            for number in range(300):  # more than a line keeps unread
                await socket.send(str(number))
            may_listen.set()
            for number in range(300, 400):
                await socket.send(str(number))
            await socket.close(1000)
            await asyncio.wait_for(ended.wait(), PATIENCE_S)
        assert taken == [*map(str, range(400)), 1000]

    asyncio.run(story())


def test_what_a_listener_raises_comes_out_where_it_listens_and_the_line_goes_on():
    async def story():
        refused, after = [], []

        def take(message):
            if message == "b":
                raise ValueError(message)
            refused.append(message)

        async def answer(line):
            with pytest.raises(ValueError, match="b"):
                await line.listen(take)
            after.extend([await line.receive(), await line.receive()])
            await line.close(1000, "enough")

        async with line_of(answer) as socket:
            for message in "abcd":
                await socket.send(message)
            assert await closed(socket) == (1000, "enough")
        assert (refused, after) == (["a"], ["c", "d"])

    asyncio.run(story())


def test_a_sender_waits_for_a_client_that_does_not_read():
    async def story():
        count = [0]

        async def answer(line):
            for number in range(4_000):
                await line.send(f"{number:05} {'x' * 8_000}")
                count[0] = number + 1

        async with line_of(answer) as socket:
            await until(lambda: count[0])
            await asyncio.sleep(0.5)
            assert count[0] < 4_000
            heard = [(await socket.recv())[:5] for _ in range(4_000)]
            assert heard == [f"{number:05}" for number in range(4_000)]

    asyncio.run(story())


def test_a_ping_is_answered(edge_rig):
    async def story():
        async with edge_rig() as rig, connect(rig.ws, compression=None) as socket:
            await asyncio.wait_for(await socket.ping(), PATIENCE_S)

    asyncio.run(story())


def test_another_path_is_not_found(edge_rig):
    async def story():
        async with edge_rig() as rig:
            with pytest.raises(InvalidStatus) as refused:
                await connect(rig.ws + "-else", compression=None)
            assert refused.value.response.status_code == 404

    asyncio.run(story())


def test_a_server_that_stops_closes_what_nobody_else_has_closed(edge_rig):
    async def story():
        async with edge_rig(EDGE_START_TIMEOUT_S="30") as rig, connect(rig.ws, compression=None) as socket:
            await socket.send(CONNECTED)
            stopping = asyncio.create_task(rig.edge.server.stop())
            assert (await closed(socket))[0] == 1012
            await stopping

    asyncio.run(story())
