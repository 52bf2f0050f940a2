"""What is said during an outage: kept in order, and said when everybody can hear it again."""

import asyncio

import pytest

from trunkline.bus.outbox import Outbox

pytestmark = pytest.mark.unit


class Wire:
    def __init__(self):
        self.sent = []
        self.also = None

    async def send(self, subject, data):
        self.sent.append((subject, data))
        if self.also is not None:
            also, self.also = self.also, None
            also()


def test_what_waits_goes_out_in_order_and_what_is_said_meanwhile_behind_it():
    async def story():
        wire = Wire()
        outbox = Outbox(wire.send, 100)
        outbox.close()
        assert outbox.shut
        assert outbox.hold("one", b"1")
        assert outbox.hold("two", b"2")
        wire.also = lambda: outbox.hold("three", b"3")
        await outbox.empty()
        assert wire.sent == [("one", b"1"), ("two", b"2"), ("three", b"3")]

    asyncio.run(story())


def test_no_more_waits_than_may_and_what_has_gone_makes_room():
    async def story():
        wire = Wire()
        outbox = Outbox(wire.send, 4)
        outbox.close()
        assert outbox.hold("one", b"123")
        assert not outbox.hold("two", b"45")
        await outbox.empty()
        assert outbox.hold("two", b"45")

    asyncio.run(story())
