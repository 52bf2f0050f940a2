"""Claims, capacity, releases and orphans, on a real nats-server."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from trunkline.bus import Bus, BusTimeout, BusUnavailable, EventLog, Heartbeat, NoWorker, Unservable, Worker, facts_of
from trunkline.bus.edges import HUNG_S, ORPHAN_S
from trunkline.proto import codec, subjects
from trunkline.proto.agent import Agent
from trunkline.proto.events import CallStarted, KeyPressed
from trunkline.proto.ids import CallId, call_id_of, new_worker_id
from trunkline.proto.messages import (
    Alive,
    Assigned,
    Claim,
    Claimed,
    Disowned,
    HangUp,
    Refused,
    Release,
    Released,
)
from trunkline.testing.nats_server import run_nats
from trunkline.testing.patience import PATIENCE_S, until
from trunkline.testing.tcp_proxy import TcpProxy, run_proxy

pytestmark = pytest.mark.integration

EDGE = new_worker_id("edge")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with run_nats() as server:
        yield server.url


class Session:
    def __init__(self, may_close: asyncio.Event | None = None) -> None:
        self.closed: str | None = None
        self.goes_on: bool | None = None
        self.asked_to_rest = asyncio.Event()
        self.rests = asyncio.Event()
        self.closing = asyncio.Event()
        self.may_close = may_close

    async def close(self, reason: str, *, goes_on: bool) -> None:
        self.closing.set()
        if self.may_close is not None:
            await self.may_close.wait()
        self.closed, self.goes_on = reason, goes_on

    async def rest(self) -> None:
        self.asked_to_rest.set()
        await self.rests.wait()

    def forget(self) -> None:
        """It holds nothing."""


def claim_of(call: str, epoch: int = 1, agent: str = "test", **more: float) -> Claim:
    return Claim(call=call_id_of("test", call), stage="stt", epoch=epoch, edge=EDGE, agent=Agent(name=agent), **more)


class Stage:
    """One worker of a stage, and somebody who asks it."""

    def __init__(self, bus: Bus, capacity: int) -> None:
        self.bus = bus
        self.opened: dict[CallId, Session] = {}
        self.slow = asyncio.Event()
        self.may_close = asyncio.Event()
        self.strain: str | None = None
        self.now = 1_000.0
        self.events = EventLog(bus, time.time)
        self.worker = Worker(
            bus,
            stage="stt",
            worker=new_worker_id("stt"),
            capacity=capacity,
            open_call=self.open_call,
            strained=lambda: self.strain,
            wall=lambda: self.now,
        )
        self.worker.guard(self.events)
        self.edge = Heartbeat(bus, stage="edge", worker=EDGE, calls=lambda: 1, capacity=1)

    async def open_call(self, claim: Claim) -> Session:
        if claim.agent.name == "broken":
            raise Unservable("stt.grammar: no such grammar")
        if claim.agent.name == "slow":
            await self.slow.wait()
        self.opened[claim.call] = Session(self.may_close if claim.agent.name == "lingers" else None)
        return self.opened[claim.call]

    async def ask(self, claim: Claim, *, by_name: bool = False) -> Claimed | Refused:
        subject = subjects.claim_of("stt", self.worker.worker) if by_name else subjects.claim("stt")
        return codec.decode(codec.CLAIM_REPLY, await self.bus.request(subject, claim, PATIENCE_S))

    async def release(self, claim: Claim, *, goes_on: bool = False) -> Released:
        message = Release(call=claim.call, epoch=claim.epoch, goes_on=goes_on)
        answer = await self.bus.request(subjects.release(self.worker.worker), message, PATIENCE_S)
        return codec.decode(codec.RELEASED, answer)

    async def has_left(self) -> bool:
        """Whether no claim reaches the worker any more; one that does is refused."""
        try:
            assert isinstance(await self.ask(claim_of("b")), Refused)
        except NoWorker:
            return True
        return False


@asynccontextmanager
async def stage(url: str, capacity: int = 2) -> AsyncIterator[Stage]:
    bus = await Bus.connect(url, name="test", on_lost=lambda _: None)
    one = Stage(bus, capacity)
    await one.worker.start()
    one.edge.start()
    try:
        yield one
    finally:
        await one.worker.stop()
        await one.edge.stop()
        await one.events.close()
        await bus.close()


def run(url: str, story: Callable[[Stage], Awaitable[None]], capacity: int = 2) -> None:
    async def tell() -> None:
        async with asyncio.timeout(2 * PATIENCE_S):
            async with stage(url, capacity) as one:
                await story(one)

    asyncio.run(tell())


def test_a_call_is_claimed_and_let_go(url):
    async def story(one: Stage) -> None:
        claim = claim_of("a")
        reply = await one.ask(claim)
        assert isinstance(reply, Claimed)
        assert reply.free == 1
        assert (await one.release(claim)).known
        assert one.opened[claim.call].closed == "call-ended"
        assert one.opened[claim.call].goes_on is False
        assert not (await one.release(claim)).known

    run(url, story)


def test_a_full_worker_is_no_longer_there_until_a_call_ends(url):
    async def story(one: Stage) -> None:
        first = claim_of("a")
        await one.ask(first)
        with pytest.raises(NoWorker):
            await one.ask(claim_of("b"))
        await one.release(first)
        assert isinstance(await one.ask(claim_of("b")), Claimed)

    run(url, story, capacity=1)


def test_a_draining_worker_takes_nothing_new_and_ends_with_its_last_call(url):
    async def story(one: Stage) -> None:
        claim = claim_of("a")
        await one.ask(claim)
        drain = asyncio.create_task(one.worker.drain())
        await until(one.has_left)
        assert not drain.done()
        await one.release(claim)
        await drain

    run(url, story)


def test_a_claim_that_meets_a_leaving_worker_is_answered(url):
    async def story(one: Stage) -> None:
        for number in range(30):
            asking = asyncio.create_task(one.ask(claim_of(f"a{number}")))
            await asyncio.sleep(0)
            await one.worker._settle_membership()
            one.worker._draining = True
            await one.worker._settle_membership()
            try:
                reply = await asking
                assert isinstance(reply, Claimed | Refused)
                if isinstance(reply, Claimed):
                    await one.release(claim_of(f"a{number}"))
            except NoWorker:
                pass  # it had left already
            one.worker._draining = False
            await one.worker._settle_membership()

    run(url, story)


def test_a_worker_says_why_it_cannot_serve_a_call(url):
    async def story(one: Stage) -> None:
        reply = await one.ask(claim_of("a", agent="broken"))
        assert isinstance(reply, Refused)
        assert "stt.grammar" in reply.reason
        assert not reply.retry
        assert one.worker.calls == 0

    run(url, story)


def test_a_higher_epoch_takes_the_call_over_and_a_lower_one_is_refused(url):
    async def story(one: Stage) -> None:
        await one.ask(claim_of("a", epoch=2))
        first = one.opened[claim_of("a").call]
        assert isinstance(await one.ask(claim_of("a", epoch=1)), Refused)
        assert isinstance(await one.ask(claim_of("a", epoch=3)), Claimed)
        assert first.closed == "claimed-again"
        assert first.goes_on is True
        assert one.worker.calls == 1

    run(url, story)


def test_claims_that_overtake_each_other_leave_the_highest_epoch(url):
    async def story(one: Stage) -> None:
        asked = [asyncio.create_task(one.ask(claim_of("a", epoch, agent="slow"))) for epoch in (1, 2, 3)]
        await one.bus.flush(PATIENCE_S)
        one.slow.set()
        replies = await asyncio.gather(*asked)
        assert isinstance(replies[2], Claimed)
        assert one.worker.calls == 1
        assert not (await one.release(claim_of("a", epoch=2))).known
        assert (await one.release(claim_of("a", epoch=3))).known

    run(url, story)


def test_a_malformed_claim_is_refused_and_harms_nobody(url):
    async def story(one: Stage) -> None:
        data = await one.bus.request(
            subjects.claim("stt"), HangUp(epoch=1, generation=1, reason="no claim"), PATIENCE_S
        )
        reply = codec.decode(codec.CLAIM_REPLY, data)
        assert isinstance(reply, Refused)
        assert isinstance(await one.ask(claim_of("a")), Claimed)

    run(url, story)


def test_a_call_whose_edge_fell_silent_is_let_go(url):
    async def story(one: Stage) -> None:
        claim = claim_of("a")
        await one.ask(claim)
        await asyncio.sleep(2.6)  # longer than an edge may be silent: it is not, it beats
        assert one.worker.calls == 1
        await one.edge.stop()
        await until(lambda: one.opened[claim.call].closed)
        assert one.opened[claim.call].closed == "edge-lost"
        assert one.opened[claim.call].goes_on is False

    run(url, story)


def test_a_worker_whose_line_is_dead_does_not_take_its_edges_for_dead(url):
    async def story(line: TcpProxy) -> None:
        async with stage(line.url) as one, asyncio.timeout(2 * PATIENCE_S):
            await one.edge.stop()  # it is on a line of its own
            edge = await Bus.connect(url, name="test", on_lost=lambda _: None)
            beat = Heartbeat(edge, stage="edge", worker=EDGE, calls=lambda: 1, capacity=1)
            beat.start()
            claim = claim_of("cut-off")
            await one.ask(claim)
            line.drop()
            await asyncio.sleep(ORPHAN_S + 1.5)
            line.heal()
            await until(lambda: one.bus.settled(ORPHAN_S + 1.0))
            assert one.opened[claim.call].closed is None
            assert one.worker.counts["orphans"] == 0
            await beat.stop()
            await edge.close()

    with run_proxy("127.0.0.1", urlsplit(url).port or 0) as line:
        asyncio.run(story(line))


async def until_silent(one: Stage, *claims: Claim) -> None:
    """Return when every one of `claims` has begun to close."""
    await asyncio.gather(*(one.opened[claim.call].closing.wait() for claim in claims))


def test_orphans_are_let_go_all_at_once_however_long_one_takes(url):
    async def story(one: Stage) -> None:
        slow, quick = claim_of("a", agent="lingers"), claim_of("b")
        await one.ask(slow)
        await one.ask(quick)
        await one.edge.stop()
        await until_silent(one, slow, quick)
        assert one.opened[quick.call].closed == "edge-lost"
        assert one.opened[slow.call].closed is None
        one.may_close.set()

    run(url, story)


def test_a_worker_that_stops_lets_all_calls_go_at_once_and_waits_for_the_last(url):
    async def story(one: Stage) -> None:
        slow, quick = claim_of("a", agent="lingers"), claim_of("b")
        await one.ask(slow)
        await one.ask(quick)
        stop = asyncio.create_task(one.worker.stop())
        await until_silent(one, slow, quick)
        assert not stop.done()
        one.may_close.set()
        await stop
        assert one.opened[slow.call].closed == one.opened[quick.call].closed == "worker-stopped"
        assert one.opened[slow.call].goes_on is True

    run(url, story)


def test_a_worker_that_stops_waits_for_a_call_that_was_being_let_go_already(url):
    async def story(one: Stage) -> None:
        slow = claim_of("a", agent="lingers")
        await one.ask(slow)
        release = asyncio.create_task(one.release(slow))
        await until_silent(one, slow)
        stop = asyncio.create_task(one.worker.stop())
        await one.bus.flush(PATIENCE_S)
        assert not stop.done()
        one.may_close.set()
        await stop
        assert one.opened[slow.call].closed == "call-ended"
        assert (await release).known

    run(url, story)


def test_a_drain_does_not_end_while_a_call_is_still_closing(url):
    async def story(one: Stage) -> None:
        slow, quick = claim_of("a", agent="lingers"), claim_of("b")
        await one.ask(slow)
        await one.ask(quick)
        drain = asyncio.create_task(one.worker.drain())
        release = asyncio.create_task(one.release(slow))
        await until_silent(one, slow)
        assert (await one.release(quick)).known
        await one.bus.flush(PATIENCE_S)
        assert not drain.done()
        one.may_close.set()
        await drain
        assert (await release).known

    run(url, story)


def test_two_releases_of_a_call_at_once_are_both_answered_when_it_is_closed(url):
    async def story(one: Stage) -> None:
        slow = claim_of("a", agent="lingers")
        await one.ask(slow)
        releases = [asyncio.create_task(one.release(slow)) for _ in range(2)]
        await until_silent(one, slow)
        await one.bus.flush(PATIENCE_S)
        assert not any(release.done() for release in releases)
        one.may_close.set()
        assert [(await release).known for release in releases] == [True, True]

    run(url, story)


def test_a_call_claimed_again_while_it_closes_is_opened_after_that(url):
    async def story(one: Stage) -> None:
        slow = claim_of("a", agent="lingers")
        await one.ask(slow)
        first = one.opened[slow.call]
        release = asyncio.create_task(one.release(slow))
        await until_silent(one, slow)
        claim = asyncio.create_task(one.ask(claim_of("a", epoch=2)))
        await one.bus.flush(PATIENCE_S)
        assert one.opened[slow.call] is first
        one.may_close.set()
        assert isinstance(await claim, Claimed)
        assert first.closed == "call-ended"
        assert (await release).known
        assert one.worker.calls == 1

    run(url, story)


def test_a_call_that_its_edge_knows_nothing_of_is_let_go(url):
    async def story(one: Stage) -> None:
        told: list[set[tuple[CallId, int]]] = []
        kept, forgotten = claim_of("a"), claim_of("b")

        async def on_holds(data: bytes) -> Disowned:
            told.append(set(codec.decode(codec.HOLDS, data).calls))
            return Disowned(calls=(forgotten.call,))

        await one.bus.serve(subjects.holds(EDGE), on_holds)
        await one.ask(kept)
        await one.ask(forgotten)
        await until(lambda: one.opened[forgotten.call].closed)
        assert {(kept.call, 1), (forgotten.call, 1)} in told
        assert one.opened[forgotten.call].closed == "disowned"
        assert one.opened[forgotten.call].goes_on is True
        assert one.opened[kept.call].closed is None

    run(url, story)


async def digits_told(one: Stage, claim: Claim) -> list[str]:
    return [event.fact.digit for event in await facts_of(one.bus, claim.call, "key.pressed")]


def test_a_worker_that_hung_tells_no_facts_of_a_call_that_somebody_else_has_got(url):
    async def story(one: Stage) -> None:
        kept, lost = claim_of("hung-kept"), claim_of("hung-lost")
        disowned: set[CallId] = set()

        async def on_holds(_: bytes) -> Disowned:
            return Disowned(calls=tuple(disowned))

        await one.ask(kept)
        await one.ask(lost)
        await one.bus.serve(subjects.holds(EDGE), on_holds)
        for call in (kept.call, lost.call):
            one.events.emit(call, CallStarted(agent="a", carrier="twilio", carrier_call="CA1", edge=EDGE))
        one.events.emit(lost.call, KeyPressed(digit="1", at=1.0))
        assert await one.events.flush(PATIENCE_S)
        disowned.add(lost.call)
        time.sleep(2 * HUNG_S)  # noqa: ASYNC251 - the loop is to stand still
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # what was due meanwhile comes first, as it does before what was sent meanwhile
        for call in (kept.call, lost.call):
            one.events.emit(call, KeyPressed(digit="2", at=2.0))
        assert await one.events.flush(PATIENCE_S)
        disowned.clear()
        one.events.emit(lost.call, KeyPressed(digit="3", at=3.0))
        await one.ask(claim_of("hung-lost", epoch=3))
        one.events.emit(lost.call, KeyPressed(digit="4", at=4.0))
        assert await one.events.flush(PATIENCE_S)
        assert await digits_told(one, kept) == ["2"]
        assert await digits_told(one, lost) == ["1", "4"]
        assert one.opened[kept.call].closed is None

    run(url, story)


def test_a_release_says_whether_the_call_goes_on(url):
    async def story(one: Stage) -> None:
        claim = claim_of("a")
        await one.ask(claim)
        assert (await one.release(claim, goes_on=True)).known
        assert one.opened[claim.call].goes_on is True

    run(url, story)


def test_a_worker_can_be_asked_by_name_and_says_when_it_has_no_room(url):
    async def story(one: Stage) -> None:
        assert isinstance(await one.ask(claim_of("a"), by_name=True), Claimed)
        full = await one.ask(claim_of("b"), by_name=True)
        assert isinstance(full, Refused)
        assert (full.reason, full.retry) == ("full", True)
        assert isinstance(await one.ask(claim_of("a", epoch=2), by_name=True), Claimed)

    run(url, story, capacity=1)


def test_as_many_claims_at_once_as_there_is_room_for_are_taken(url):
    async def story(one: Stage) -> None:
        claims = [claim_of(f"a{number}", agent="slow") for number in range(5)]
        asked = [asyncio.create_task(one.ask(claim, by_name=True)) for claim in claims]
        await one.bus.flush(PATIENCE_S)
        one.slow.set()
        replies = await asyncio.gather(*asked)
        assert sum(isinstance(reply, Claimed) for reply in replies) == 2
        assert one.worker.calls == 2

    run(url, story)


def test_a_claim_that_lay_about_is_refused_for_good(url):
    async def story(one: Stage) -> None:
        old = await one.ask(claim_of("a", asked_at=one.now - 5.1))
        assert isinstance(old, Refused)
        assert (old.reason, old.retry) == ("too old", False)
        assert isinstance(await one.ask(claim_of("a", asked_at=one.now - 4.9)), Claimed)
        assert isinstance(await one.ask(claim_of("b", asked_at=0.0)), Claimed)

    run(url, story)


async def next_beat(one: Stage, wanted: Callable[[Alive], bool]) -> Alive:
    """Wait for a heartbeat like that."""
    beats: asyncio.Queue[bytes] = asyncio.Queue()

    def on_beat(_subject: str, data: bytes) -> None:
        beats.put_nowait(data)

    interest = await one.bus.subscribe(subjects.alive("stt", one.worker.worker), on_beat)
    while not wanted(beat := codec.decode(codec.ALIVE, await beats.get())):
        pass
    await interest.unsubscribe()
    return beat


def test_a_strained_worker_takes_nothing_keeps_what_it_has_and_comes_back_when_eased(url):
    async def story(one: Stage) -> None:
        await one.ask(claim_of("a"))
        one.strain = "all providers refuse"
        refused = await one.ask(claim_of("b"), by_name=True)
        assert isinstance(refused, Refused)
        assert (refused.reason, refused.retry) == ("all providers refuse", True)
        beat = await next_beat(one, lambda beat: beat.calls == beat.capacity)
        assert (beat.capacity, beat.draining) == (1, False)
        await until(one.has_left)
        assert one.worker.calls == 1
        one.strain = None
        await next_beat(one, lambda beat: beat.capacity == 2)
        while True:
            with contextlib.suppress(NoWorker):
                assert isinstance(await one.ask(claim_of("b")), Claimed)
                break
            await asyncio.sleep(0.05)

    run(url, story)


def test_a_worker_lets_go_of_a_call_that_somebody_else_has_in_a_higher_epoch(url):
    async def story(one: Stage) -> None:
        kept, lost = claim_of("a", epoch=2), claim_of("b", epoch=2)
        await one.ask(kept)
        await one.ask(lost)
        me, other = one.worker.worker, new_worker_id("stt")
        for stage_, epoch, worker in (("brain", 3, other), ("stt", 3, me), ("stt", 2, other), ("stt", 1, other)):
            assigned = Assigned(stage=stage_, epoch=epoch, worker=worker)
            await one.bus.publish(subjects.assigned(kept.call), assigned)
        await one.bus.publish(subjects.assigned(lost.call), Assigned(stage="stt", epoch=3, worker=other))
        await until_silent(one, lost)
        assert one.opened[lost.call].closed == "deposed"
        assert one.opened[lost.call].goes_on is True
        assert one.opened[kept.call].closed is None
        assert one.worker.counts["deposed"] == 1

    run(url, story)


def test_a_call_that_somebody_else_got_while_it_was_being_opened_is_not_kept(url):
    async def story(one: Stage) -> None:
        slow = claim_of("a", agent="slow")
        asked = asyncio.create_task(one.ask(slow))
        await one.bus.flush(PATIENCE_S)
        assigned = Assigned(stage="stt", epoch=2, worker=new_worker_id("stt"))
        await one.bus.publish(subjects.assigned(slow.call), assigned)
        await one.bus.flush(PATIENCE_S)
        one.slow.set()
        assert isinstance(await asked, Refused)
        await until_silent(one, slow)
        assert one.opened[slow.call].goes_on is True
        assert one.worker.calls == 0

    run(url, story)


def test_a_probe_finds_a_worker_until_it_is_stopped(url):
    async def story(one: Stage) -> None:
        probe = subjects.probe(one.worker.worker)
        with pytest.raises(BusTimeout):
            await one.bus.request(probe, Release(call=claim_of("a").call, epoch=1), timeout_s=0.05)
        await one.worker.stop()
        with pytest.raises(NoWorker):
            await one.bus.request(probe, Release(call=claim_of("a").call, epoch=1), timeout_s=PATIENCE_S)

    run(url, story)


def test_a_server_that_is_not_there_is_an_error_that_names_the_setting():
    async def story() -> None:
        with pytest.raises(BusUnavailable, match=r"127\.0\.0\.1:1 .*TRUNKLINE_NATS_URL"):
            await Bus.connect("nats://user:secret@127.0.0.1:1", name="test", on_lost=lambda _: None, within_s=0.5)

    asyncio.run(story())


def test_audio_that_nobody_hears_is_known_at_once(url):
    async def story(one: Stage) -> None:
        unheard: asyncio.Queue[str] = asyncio.Queue()
        await one.bus.media.watch_unheard(unheard.put_nowait)
        call = call_id_of("test", "a")
        subject = subjects.media(one.worker.worker, call)
        await one.bus.media.publish_frame(subject, b"frame", one.bus.media.reply_to(call))
        assert await unheard.get() == call
        frames: asyncio.Queue[bytes] = asyncio.Queue()
        await one.bus.media.subscribe(subjects.media_of(one.worker.worker), lambda _, data: frames.put_nowait(data))
        await one.bus.media.publish_frame(subject, b"heard", one.bus.media.reply_to(call))
        assert await frames.get() == b"heard"
        assert unheard.empty()

    run(url, story)
