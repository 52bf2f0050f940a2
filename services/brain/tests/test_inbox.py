import asyncio

import pytest

from trunkline.brain.inbox import Inbox
from trunkline.brain.moves import ThoughtCame, ThoughtEnded

pytestmark = pytest.mark.unit


def drained(inbox):
    async def drain():
        return [await inbox.get() for _ in range(len(inbox))]

    return asyncio.run(drain())


def test_what_the_model_wrote_in_the_meantime_is_one_piece_and_the_order_stays():
    inbox = Inbox()
    for event in (
        ThoughtCame(1, "One"),
        ThoughtCame(1, " two"),
        ThoughtEnded(1, ""),
        ThoughtCame(2, "three"),
        ThoughtCame(3, "four"),
        ThoughtCame(3, " five"),
    ):
        inbox.put(event)
    assert drained(inbox) == [
        ThoughtCame(1, "One two"),
        ThoughtEnded(1, ""),
        ThoughtCame(2, "three"),
        ThoughtCame(3, "four five"),
    ]
    assert not inbox


def test_what_was_taken_in_is_not_added_to():
    async def story():
        inbox = Inbox()
        inbox.put(ThoughtCame(1, "One"))
        first = await inbox.get()
        reader = asyncio.create_task(inbox.get())
        await asyncio.sleep(0)
        assert not reader.done()
        inbox.put(ThoughtCame(1, " two"))
        assert (first, await reader) == (ThoughtCame(1, "One"), ThoughtCame(1, " two"))

    asyncio.run(story())
