"""Calls that nobody has: when they are ended, by whom, and what they are billed."""

import asyncio
import contextlib
import time

import msgspec
import pytest

from services.edge.tests.records import NEW, OLD, record_of_a_call
from trunkline.bus import Bus, BusUnavailable, CallStore, EventLog, ensure_events_stream, recorded
from trunkline.edge.comeback import read_record
from trunkline.edge.keeping import concluded
from trunkline.edge.reaper import FORGET_S, MOST_A_SWEEP, PATIENCE_S, PERIOD_S, Reaper, Sightings, bill_of, judge
from trunkline.proto import codec, subjects
from trunkline.proto.events import CallBilled, CallEnded, StageSettled
from trunkline.proto.ids import CallId, WorkerId
from trunkline.proto.messages import Used
from trunkline.proto.records import brain_key, edge_key
from trunkline.testing.nats_server import run_nats
from trunkline.testing.patience import until

pytestmark = pytest.mark.integration

EPOCHS = {"stt": 2, "brain": 1, "tts": 1}


def used(stage, epoch=1, usd=0.0):
    return Used(stage=stage, epoch=epoch, provider="p", usd=usd)


def settled(stage, epoch=1, usd=0.0):
    return StageSettled(stage=stage, epoch=epoch, used=(used(stage, epoch, usd),))


class TestWhatIsSeen:
    def test_of_a_record_counts_from_its_newest_revision(self):
        seen = Sightings()
        assert seen.unchanged_s("a.edge", 1, 10.0) == 0.0
        assert seen.unchanged_s("a.edge", 1, 15.0) == 5.0
        assert seen.unchanged_s("a.edge", 2, 20.0) == 0.0
        assert seen.unchanged_s("a.edge", 2, 21.0) == 1.0

    def test_of_an_edge_counts_from_when_it_was_first_found_silent(self):
        seen = Sightings()
        assert seen.silent_s(OLD, alive=False, at=10.0) == 0.0
        assert seen.silent_s(OLD, alive=False, at=20.0) == 10.0
        assert seen.silent_s(OLD, alive=True, at=21.0) == 0.0
        assert seen.silent_s(OLD, alive=False, at=25.0) == 0.0

    def test_is_forgotten_with_the_records_it_is_about(self):
        seen = Sightings()
        seen.unchanged_s("a.edge", 1, 10.0)
        seen.silent_s(OLD, alive=False, at=10.0)
        seen.retain({"b.edge"}, {NEW})
        assert seen.unchanged_s("a.edge", 1, 20.0) == 0.0
        assert seen.silent_s(OLD, alive=False, at=20.0) == 0.0


class TestTheVerdict:
    @pytest.mark.parametrize(
        ("state", "unchanged_s", "silent_s", "verdict"),
        [
            ("live", 900.0, 0.0, None),
            ("live", PATIENCE_S, PATIENCE_S - 1, None),
            ("live", PATIENCE_S - 1, PATIENCE_S, None),
            ("live", PATIENCE_S, PATIENCE_S, "reap"),
            ("away", PATIENCE_S - 1, 900.0, None),
            ("away", PATIENCE_S, 0.0, "reap"),
            ("ended", PATIENCE_S, 0.0, None),
            ("ended", PATIENCE_S, PATIENCE_S, "settle"),
            ("ended", FORGET_S, 0.0, "forget"),
        ],
    )
    def test_is(self, state, unchanged_s, silent_s, verdict):
        assert judge(state, unchanged_s, silent_s) == verdict


class TestTheBill:
    def test_takes_what_the_workers_said_last_in_place_of_what_the_edge_knew(self):
        record = record_of_a_call(used=(used("brain", 1, 0.25), used("stt", 1, 0.5)), epochs=EPOCHS)
        bill = bill_of(record, [settled("brain", 1, 0.75), settled("stt", 2, 1.0), settled("tts")])
        assert bill.usd == 0.5 + 0.75 + 1.0
        assert bill.complete

    def test_is_not_complete_without_a_worker_of_the_newest_epoch(self):
        record = record_of_a_call(used=(used("brain"),), epochs=EPOCHS)
        assert not bill_of(record, [settled("brain"), settled("stt", 1), settled("tts")]).complete

    def test_of_a_call_given_away_is_as_complete_as_its_edge_said(self):
        away = record_of_a_call(state="away", used=(used("brain"),), epochs=EPOCHS)
        assert bill_of(away, []).complete
        assert not bill_of(msgspec.structs.replace(away, bill_complete=False), []).complete

    def test_of_nothing_is_none(self):
        assert bill_of(record_of_a_call(epochs=EPOCHS), []) is None


class Ticking:
    """A clock that goes on when it is told to."""

    def __init__(self):
        self.at = 1_000.0

    def monotonic(self):
        return self.at

    def wall(self):
        return 1_000_000.0 + self.at


class Yard:
    """A bus of its own, an event log, and reapers on it."""

    def __init__(self, server, bus):
        self.server = server
        self.bus = bus
        self.store = CallStore(bus)
        self.events = EventLog(bus, time.time)
        self.clock = Ticking()
        self.living = {NEW}
        self.ours = set()
        self.reaper = self.reaper_of(NEW)

    def reaper_of(self, edge):
        return Reaper(
            self.store,
            self.bus,
            self.events,
            edge,
            alive=self.living.__contains__,
            ours=self.ours.__contains__,
            clock=self.clock,
        )

    async def keep(self, **changes):
        record = record_of_a_call(**changes)
        await self.store.put(edge_key(record.call), codec.encode(record), 0)
        return record

    async def sweep_for(self, seconds, *reapers):
        for _ in range(round(seconds / PERIOD_S) + 1):
            for reaper in reapers or (self.reaper,):
                await reaper.sweep()
            self.clock.at += PERIOD_S

    async def facts(self, call):
        assert await self.events.flush()
        return [found.event().fact async for found in recorded(self.bus, call=call)]

    async def state(self, call):
        found = await read_record(self.store, call)
        return None if found is None else found[0].state


@contextlib.asynccontextmanager
async def yard():
    with run_nats() as server:
        bus = await Bus.connect(server.url, name="test", on_lost=lambda _reason: None)
        await ensure_events_stream(bus)
        scene = Yard(server, bus)
        try:
            yield scene
        finally:
            await scene.events.close()
            await bus.close()


class TestACallWhoseEdgeDied:
    def test_is_ended_and_billed_after_15_s(self):
        async def story():
            async with yard() as scene:
                call = await scene.keep(
                    epochs={"brain": 1, "tts": 1}, used=(used("tts", 1, 0.5),), frames_in=1_875, audio_ms_out=20_000
                )
                await scene.store.put(brain_key(call.call), b"what was said", 0)
                for stage, usd in (("brain", 0.25), ("tts", 0.75)):
                    scene.events.emit(call.call, settled(stage, 1, usd))
                assert await scene.events.flush()
                await scene.sweep_for(PATIENCE_S - PERIOD_S)
                assert await scene.state(call.call) == "live"
                await scene.sweep_for(PERIOD_S)
                found, _ = await read_record(scene.store, call.call)
                assert found == msgspec.structs.replace(concluded(call), edge=NEW, reason="edge-lost")
                assert await scene.store.get(brain_key(call.call)) is None
                return await scene.facts(call.call), scene.reaper.counts

        (*_, bill, end), counts = asyncio.run(story())
        assert isinstance(bill, CallBilled)
        assert (bill.usd, bill.complete) == (1.0, True)
        assert end == CallEnded(reason="edge-lost", duration_s=60.0, frames_in=1_875, audio_ms_out=20_000)
        assert counts["reaped"] == 1

    def test_is_ended_once_however_many_look(self):
        async def story():
            async with yard() as scene:
                call = await scene.keep(used=(used("tts", 1, 0.5),), epochs=EPOCHS)
                reapers = [scene.reaper_of(WorkerId(f"edge-{number}")) for number in range(4)]
                scene.living.update(WorkerId(f"edge-{number}") for number in range(4))
                for _ in range(8):
                    await asyncio.gather(*(reaper.sweep() for reaper in reapers))
                    scene.clock.at += PERIOD_S
                return await scene.facts(call.call)

        facts = asyncio.run(story())
        assert [type(fact) for fact in facts] == [CallBilled, CallEnded]
        assert not facts[0].complete

    def test_goes_on_if_somebody_takes_it_up_in_time(self):
        async def story():
            async with yard() as scene:
                call = await scene.keep()
                await scene.sweep_for(PATIENCE_S - PERIOD_S)
                found, revision = await read_record(scene.store, call.call)
                theirs = msgspec.structs.replace(found, edge=NEW, comebacks=1)
                await scene.store.put(edge_key(call.call), codec.encode(theirs), revision)
                scene.ours.add(call.call)
                await scene.sweep_for(4 * PATIENCE_S)
                assert await scene.state(call.call) == "live"

        asyncio.run(story())

    def test_of_an_edge_that_lives_is_left_alone(self):
        async def story():
            async with yard() as scene:
                scene.living.add(OLD)
                call = await scene.keep()
                await scene.sweep_for(4 * PATIENCE_S)
                assert await scene.state(call.call) == "live"

        asyncio.run(story())


class TestACallThatIsAway:
    def test_is_ended_for_the_reason_its_edge_left(self):
        async def story():
            async with yard() as scene:
                scene.living.add(OLD)
                call = await scene.keep(
                    state="away",
                    reason="phone-call-provider-closed-websocket",
                    used=(used("stt", 2, 0.5),),
                    epochs=EPOCHS,
                )
                await scene.sweep_for(PATIENCE_S)
                return await scene.facts(call.call)

        bill, end = asyncio.run(story())
        assert (bill.usd, bill.complete) == (0.5, True)
        assert end.reason == "phone-call-provider-closed-websocket"


class TestAnEndThatWasNotTold:
    def test_by_an_edge_that_died_at_it_is_told(self):
        async def story():
            async with yard() as scene:
                call = await scene.keep(state="ended", reason="customer-ended-call")
                await scene.sweep_for(PATIENCE_S)
                return await scene.facts(call.call), scene.reaper.counts

        facts, counts = asyncio.run(story())
        assert facts == [CallEnded(reason="customer-ended-call", duration_s=60.0)]
        assert counts["settled"] == 1

    def test_is_not_told_twice(self):
        async def story():
            async with yard() as scene:
                call = await scene.keep(state="ended", reason="customer-ended-call")
                told = CallEnded(reason="customer-ended-call", duration_s=61.0)
                scene.events.emit(call.call, told)
                assert await scene.events.flush()
                await scene.sweep_for(PATIENCE_S)
                assert await scene.facts(call.call) == [told]

        asyncio.run(story())

    async def ended_but_not_told(self, scene, reaper, **changes):
        """Have `reaper` end a call while the facts can be neither read nor stored."""
        await scene.bus.control.jetstream().delete_stream(subjects.EVENTS_STREAM)
        call = (await scene.keep(state="away", reason="gone", **changes)).call
        with pytest.raises(BusUnavailable):
            await scene.sweep_for(2 * PATIENCE_S, reaper)
        assert await scene.state(call) == "ended"
        await ensure_events_stream(scene.bus)
        return call

    def test_by_a_reaper_that_could_not_is_told_as_soon_as_it_can(self):
        async def story():
            async with yard() as scene:
                call = await self.ended_but_not_told(scene, scene.reaper, used=(used("tts", 1, 0.5),), epochs=EPOCHS)
                await scene.reaper.sweep()
                return await scene.facts(call)

        bill, end = asyncio.run(story())
        assert (bill.usd, bill.complete) == (0.5, True)
        assert end.reason == "gone"

    def test_by_a_reaper_that_died_at_it_is_told_by_another(self):
        async def story():
            async with yard() as scene:
                call = await self.ended_but_not_told(scene, scene.reaper_of(OLD), used=(used("tts", 1, 0.5),))
                await scene.sweep_for(PATIENCE_S)
                return await scene.facts(call)

        bill, end = asyncio.run(story())
        assert bill.usd == 0.5
        assert end.reason == "gone"

    def test_by_this_edge_whose_record_says_it_lives_is_told(self):
        async def story():
            async with yard() as scene:
                call = await scene.keep(edge=NEW)
                scene.ours.add(call.call)
                await scene.sweep_for(PATIENCE_S)
                assert await scene.state(call.call) == "live"
                scene.ours.clear()
                await scene.sweep_for(PATIENCE_S)
                assert await scene.state(call.call) == "ended"

        asyncio.run(story())


class TestTheRecordOfACallThatIsOver:
    def test_is_kept_for_a_while_and_then_deleted_with_what_was_said(self):
        async def story():
            async with yard() as scene:
                call = await scene.keep(state="ended", edge=NEW)
                await scene.store.put(brain_key(call.call), b"what was said", 0)
                await scene.sweep_for(FORGET_S - PERIOD_S)
                assert await scene.state(call.call) == "ended"
                await scene.sweep_for(PERIOD_S)
                assert await scene.state(call.call) is None
                assert await scene.store.get(brain_key(call.call)) is None
                assert scene.reaper.counts["forgotten"] == 1

        asyncio.run(story())


class TestAReaper:
    def test_that_was_cut_off_begins_to_count_anew(self):
        async def story():
            async with yard() as scene:
                call = await scene.keep()
                await scene.sweep_for(PATIENCE_S - PERIOD_S)
                scene.server.stop()
                with pytest.raises(BusUnavailable):
                    await scene.reaper.sweep()
                scene.server.start()
                await until(lambda: scene.bus.connected)
                await scene.sweep_for(PATIENCE_S - PERIOD_S)
                assert await scene.state(call.call) == "live"
                await scene.sweep_for(PERIOD_S)
                assert await scene.state(call.call) == "ended"

        asyncio.run(story())

    def test_that_was_held_up_itself_begins_to_count_anew(self):
        async def story():
            async with yard() as scene:
                call = await scene.keep()
                await scene.reaper.sweep()
                scene.clock.at += 60.0
                await scene.sweep_for(PATIENCE_S - PERIOD_S)
                assert await scene.state(call.call) == "live"

        asyncio.run(story())

    def test_ends_no_more_than_100_calls_at_once(self):
        async def story():
            async with yard() as scene:
                calls = [
                    (await scene.keep(call=CallId(f"call-{number}"), state="away")).call
                    for number in range(MOST_A_SWEEP + 20)
                ]
                await scene.sweep_for(PATIENCE_S)
                assert scene.reaper.counts["reaped"] == MOST_A_SWEEP
                await scene.sweep_for(0)
                assert scene.reaper.counts["reaped"] == len(calls)

        asyncio.run(story())

    def test_passes_over_what_it_cannot_read(self):
        async def story():
            async with yard() as scene:
                await scene.store.put("odd.edge", b"{}", 0)
                call = await scene.keep(state="away")
                await scene.sweep_for(PATIENCE_S)
                assert await scene.state(call.call) == "ended"
                assert scene.reaper.counts["unreadable"]

        asyncio.run(story())

    def test_starts_and_stops(self):
        async def story():
            async with yard() as scene:
                scene.reaper.start()
                await asyncio.sleep(0)
                await scene.reaper.stop()

        asyncio.run(story())
