"""What a call may last and cost: it ends whatever its brain does, on its first line and on later ones."""

import asyncio
import time

import pytest
from prometheus_client import CollectorRegistry

from services.edge.tests.records import NEW, record_of_a_call
from trunkline.bus import Bus, CallStore, EventLog
from trunkline.edge.allowance import WIND_UP_S, Allowance
from trunkline.edge.books import Books, Carried, Past
from trunkline.edge.facilities import Facilities
from trunkline.edge.metrics import EdgeMetrics
from trunkline.proto.agent import Agent, Limits
from trunkline.proto.ids import Seq
from trunkline.proto.messages import Used, WindUp
from trunkline.runtime.clock import SYSTEM

pytestmark = pytest.mark.integration

MAX_S, MAX_USD = 600, 1.0


class Ahead(asyncio.SelectorEventLoop):
    """A loop whose clock can be put forward."""

    by = 0.0

    def time(self):
        return super().time() + self.by

    async def pass_by(self, seconds):
        self.by += seconds
        for _ in range(3):  # what is due is called before whoever is ready now is ready again
            await asyncio.sleep(0)


class Watched:
    def __init__(self, facilities, loop, *, age_s=0.0, **changes):
        limits = Limits(max_duration_s=MAX_S, max_cost_usd=MAX_USD)
        record = record_of_a_call(
            agent=Agent(name="restaurant", limits=limits), started_at=time.time() - age_s, edge=NEW, **changes
        )
        self.loop, self.asked, self.ended = loop, [], []
        past = Past(record, Seq(0))
        self.books = Books(record, 0, past, facilities, lambda: Carried(0, 0, Seq(0)), pytest.fail)
        self.allowance = Allowance(MAX_S, self.books, self.asked.append, self.ended.append)

    def use(self, usd):
        self.allowance.use(Used(stage="brain", epoch=1, provider="p", usd=usd))


@pytest.fixture
def watched(nats):
    """Return a function that runs `story` with a call of such an age and record, as it begins on a line."""

    def run(story, **record):
        async def told():
            bus = await Bus.connect(nats.url, name="test", on_lost=lambda _reason: None)
            metrics = EdgeMetrics(CollectorRegistry(), lambda: 0)
            events, store = EventLog(bus, time.time), CallStore(bus)
            facilities = Facilities(bus, events, NEW, SYSTEM, None, metrics, None, None, store, None)
            call = Watched(facilities, asyncio.get_running_loop(), **record)
            call.allowance.begin()
            try:
                await story(call)
            finally:
                call.allowance.close()
                await call.books.aclose()
                await events.close()
                await bus.close()

        with asyncio.Runner(loop_factory=Ahead) as runner:
            runner.run(told())

    return run


def test_a_call_that_lasts_too_long_is_over(watched):
    async def story(call):
        await call.loop.pass_by(MAX_S - 1)
        assert not call.ended
        await call.loop.pass_by(1)
        assert call.ended == ["exceeded-max-duration"]

    watched(story)


def test_what_it_lasted_on_other_lines_counts(watched):
    async def story(call):
        await call.loop.pass_by(100)
        assert call.ended == ["exceeded-max-duration"]

    watched(story, age_s=MAX_S - 100)


def test_a_brain_that_does_not_end_a_call_that_costs_too_much_is_not_waited_for(watched):
    async def story(call):
        for usd in (0.9, 1.1, 1.2):
            call.use(usd)
        assert call.asked == [WindUp(reason="exceeded-max-cost")]
        await call.loop.pass_by(WIND_UP_S - 1)
        assert not call.ended
        await call.loop.pass_by(1)
        assert call.ended == ["exceeded-max-cost"]

    watched(story)


def test_a_call_that_was_being_wound_up_goes_on_being_wound_up_on_its_next_line(watched):
    async def story(call):
        call.use(1.3)
        assert not call.asked  # its next brain is told by the recap
        await call.loop.pass_by(WIND_UP_S)
        assert call.ended == ["exceeded-max-cost"]

    watched(story, winding_up="exceeded-max-cost")


def test_what_is_used_after_the_end_is_entered_and_ends_nothing(watched):
    async def story(call):
        call.allowance.close()
        call.use(1.5)
        assert call.books.usd == 1.5
        await call.loop.pass_by(MAX_S)
        assert (call.asked, call.ended) == ([], [])

    watched(story)
