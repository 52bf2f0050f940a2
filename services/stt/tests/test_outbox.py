"""What is published, what is not, and when."""

import asyncio
import contextlib
from collections import Counter

import pytest

from trunkline.bus import BusUnavailable
from trunkline.stt.outbox import HOLD_S, LAPSE_S, MOST_WAITING, Outbox

pytestmark = pytest.mark.unit


class Bus:
    """Takes the place of the bus."""

    def __init__(self):
        self.published = []
        self.away = False

    async def publish(self, _subject, message):
        if self.away:
            raise BusUnavailable("away")
        self.published.append(message)


class Post:
    def __init__(self):
        self.at = 100.0
        self.bus, self.counts = Bus(), Counter()
        self.outbox = Outbox(self.bus, lambda: self.at, self.counts)


def in_loop(story):
    async def run():
        post = Post()
        running = asyncio.create_task(post.outbox.run())
        await asyncio.sleep(0)
        await story(post)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    asyncio.run(run())


def test_messages_leave_in_order_and_those_nobody_stands_by_do_not():
    async def story(post):
        for message in (1, 2, 3):
            post.outbox.put("s", message, lambda message=message: message != 2)
        await post.outbox.flush()
        assert post.bus.published == [1, 3]
        assert post.counts == {"messages_void": 1}

    in_loop(story)


def test_after_a_standstill_the_news_are_read_before_anything_is_told():
    async def story(post):
        deposed = False
        post.at += LAPSE_S + 0.1
        post.outbox.put("s", "of an old epoch", lambda: not deposed)
        for _ in range(5):
            await asyncio.sleep(0)
        assert post.bus.published == []
        deposed = True
        post.at += HOLD_S
        post.outbox.put("s", "what was used")
        await post.outbox.flush()
        assert post.bus.published == ["what was used"]
        assert post.counts == {"lapses": 1, "messages_void": 1}

    in_loop(story)


def test_while_the_bus_is_away_messages_are_counted_and_given_up():
    async def story(post):
        post.bus.away = True
        post.outbox.put("s", 1)
        await post.outbox.flush()
        assert post.counts == {"messages_unpublished": 1}

    in_loop(story)


def test_what_waits_is_bounded():
    async def story(post):
        for message in range(MOST_WAITING + 3):
            post.outbox.put("s", message)
        assert post.counts == {"messages_too_many": 3}
        await post.outbox.flush()
        assert len(post.bus.published) == MOST_WAITING

    in_loop(story)
