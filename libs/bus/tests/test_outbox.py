"""What is said during an outage, and shortly before: kept in order, and heard once by everybody."""

import asyncio

import pytest

from trunkline.bus.outbox import REMEMBERED_S, Outbox, Repeats

pytestmark = pytest.mark.unit


class Wire:
    def __init__(self):
        self.sent = []
        self.also = None

    async def send(self, subject, _data, outage):
        self.sent.append((subject, bool(outage)))
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
        assert wire.sent == [("one", False), ("two", False), ("three", False)]

    asyncio.run(story())


def test_what_was_said_just_before_an_outage_is_said_again_first():
    async def story():
        wire = Wire()
        outbox = Outbox(wire.send, 100)
        outbox.said("one", b"1")
        outbox.said("two", b"2")
        outbox.close()
        outbox.hold("three", b"3")
        await outbox.empty()
        assert wire.sent == [("one", True), ("two", True), ("three", False)]

    asyncio.run(story())


def test_two_outages_in_a_row_lose_nothing_and_keep_the_order():
    async def story():
        wire = Wire()
        outbox = Outbox(wire.send, 100)
        outbox.said("one", b"1")
        outbox.close()
        outbox.hold("two", b"2")
        outbox.open_soon()
        outbox.close()
        outbox.hold("three", b"3")
        await outbox.empty()
        assert wire.sent == [("one", True), ("two", False), ("three", False)]
        outbox.close()
        wire.sent.clear()
        await outbox.empty()
        assert wire.sent == [("one", True), ("two", True), ("three", True)]

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


def test_no_more_is_kept_to_be_said_again_than_may():
    async def story():
        wire = Wire()
        outbox = Outbox(wire.send, 4)
        outbox.said("one", b"123")
        outbox.said("two", b"45")
        outbox.close()
        await outbox.empty()
        assert wire.sent == [("two", True)]

    asyncio.run(story())


class TestRepeats:
    def test_what_was_heard_is_no_news_and_what_was_lost_is_once(self):
        repeats = Repeats()
        repeats.heard("call.a.speak", b"1", 0.0)
        assert not repeats.is_news("outage", "call.a.speak", b"1", 1.0)
        assert repeats.is_news("outage", "call.a.speak", b"2", 1.0)
        assert not repeats.is_news("outage-2", "call.a.speak", b"2", 2.0)

    def test_a_message_that_is_rightly_said_twice_is_heard_twice(self):
        repeats = Repeats()
        repeats.heard("call.a.speak", b"no", 0.0)
        assert [repeats.is_news("outage", "call.a.speak", b"no", 1.0) for _ in range(2)] == [False, True]

    def test_of_another_call_it_is_another_message(self):
        repeats = Repeats()
        repeats.heard("call.a.speak", b"no", 0.0)
        assert repeats.is_news("outage", "call.b.speak", b"no", 1.0)

    def test_what_was_heard_long_ago_is_forgotten_but_not_because_of_an_outage(self):
        repeats = Repeats()
        repeats.heard("s", b"old", 1.0)
        repeats.heard("s", b"new", 2 * REMEMBERED_S)
        assert not repeats.is_news("outage", "s", b"old", 2 * REMEMBERED_S)
        repeats.heard("s", b"newer", 4 * REMEMBERED_S)
        assert repeats.is_news("outage-2", "s", b"old", 4 * REMEMBERED_S)
