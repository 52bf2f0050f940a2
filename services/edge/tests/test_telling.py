"""What the edge tells a brain: in order, only while there is one, and never more than a brain could still use."""

import asyncio
import contextlib

import pytest
from prometheus_client import CollectorRegistry

from trunkline.bus import Bus
from trunkline.edge.metrics import EdgeMetrics
from trunkline.edge.telling import MOST_UNTOLD, Telling
from trunkline.proto import codec, subjects
from trunkline.proto.ids import CallId
from trunkline.proto.messages import DigitPressed
from trunkline.testing.nats_server import run_nats
from trunkline.testing.patience import PATIENCE_S

pytestmark = pytest.mark.integration

CALL = CallId("call-a")
SUBJECT = subjects.dtmf(CALL)


def pressed(number):
    return DigitPressed(digit="5", at=float(number))


@contextlib.asynccontextmanager
async def telling_on(server, listening):
    """A `Telling` at work, and a queue of what a brain hears of it."""
    bus = await Bus.connect(server.url, name="test", on_lost=lambda _reason: None)
    heard = asyncio.Queue()

    def hear(_subject, data):
        heard.put_nowait(codec.decode_story("dtmf", data).at)

    try:
        await bus.subscribe(SUBJECT, hear)
        telling = Telling(CALL, bus, listening, metrics := EdgeMetrics(CollectorRegistry(), lambda: 0))
        task = asyncio.create_task(telling.run())
        async with asyncio.timeout(PATIENCE_S):
            yield telling, heard, metrics
        task.cancel()
    finally:
        await bus.close()


def test_what_is_told_while_nobody_listens_is_told_to_the_next_in_order():
    async def story(server):
        listening = asyncio.Event()
        async with telling_on(server, listening) as (telling, heard, _):
            listening.set()
            telling.tell(SUBJECT, pressed(1))
            assert await heard.get() == 1.0
            listening.clear()
            telling.tell(SUBJECT, pressed(2))
            telling.tell(SUBJECT, pressed(3))
            await asyncio.sleep(0.05)
            assert heard.empty()
            listening.set()
            assert [await heard.get(), await heard.get()] == [2.0, 3.0]

    with run_nats(jetstream=False) as server:
        asyncio.run(story(server))


def test_the_oldest_is_given_up_when_too_much_waits():
    async def story(server):
        listening = asyncio.Event()
        async with telling_on(server, listening) as (telling, heard, metrics):
            for number in range(MOST_UNTOLD + 2):
                telling.tell(SUBJECT, pressed(number))
            assert metrics.dropped["message_untold"] == 2
            listening.set()
            assert [await heard.get() for _ in range(MOST_UNTOLD)] == [float(at) for at in range(2, MOST_UNTOLD + 2)]

    with run_nats(jetstream=False) as server:
        asyncio.run(story(server))
