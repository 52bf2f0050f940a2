"""What the edge says by itself, what it counts, and whom it tells that a call is about to come."""

import asyncio
import itertools

import httpx
import numpy as np
import pytest

from trunkline.bus import ClipStore
from trunkline.proto import codec, subjects
from trunkline.proto.clips import key_of
from trunkline.proto.events import CallBilled
from trunkline.proto.messages import ClipMade, PlayoutFinished, Used, WindUp
from trunkline.testing.patience import PATIENCE_S, until

from .conftest import hears

pytestmark = pytest.mark.integration

_numbers = itertools.count()


def lines():
    """Return an agent's lines that no test before has had clips made of: they are kept on the bus."""
    number = next(_numbers)
    texts = {"greeting": "Hello", "busy": "All busy", "farewell": "Bye"}
    return "\n".join([*(f'{name} = "{text} {number}."' for name, text in texts.items()), "[turns]", "fillers = []"])


def hum(level, ms):
    return np.full(8 * ms, level, "<i2").tobytes()


async def keep(rig, **clips):
    """Put clips of the agent into the store, and wait until the edge has all there can be."""
    agent = rig.edge.exchange.agents.get("restaurant")
    store = ClipStore(rig.bus)
    for name, pcm in clips.items():
        await store.put(key_of(agent.tts, getattr(agent, name)), pcm)
    await until(lambda: len(rig.edge.exchange.clips) == len(clips))


def levels(recording):
    """Return the tones of the agent's side in the order they were heard, with their length, ms."""
    right = recording.right.astype(int)
    out = []
    for sample in right[np.abs(right) > 300]:
        level = round(int(sample), -2)
        if out and abs(out[-1][0] - level) < 300:
            out[-1][1] += 1
        else:
            out.append([level, 1])
    return [(level, samples // 8) for level, samples in out if samples > 80]


class TestAGreetingAtHand:
    def test_is_heard_at_once_whoever_is_still_looked_for_and_the_brain_goes_on_from_it(self, edge_rig):
        async def story():
            async with edge_rig(lines=lines()) as rig:
                await keep(rig, greeting=hum(8_000, 600))
                rig.voice.may_open.clear()
                rig.mind.greeting, seen = 0, []
                placed = asyncio.create_task(rig.good_call(observe=seen.append))
                await until(lambda: "mark-returned" in [event.what for event in seen])
                assert rig.voice.claims
                assert not rig.mind.claims
                rig.voice.may_open.set()
                call, recording = await placed
                assert levels(recording)[0][1] == pytest.approx(600, abs=40)
                (claim,) = rig.mind.claims
                assert (claim.generation, claim.greeting) == (1, 1)
                finished = PlayoutFinished(generation=1, utterance=1, heard_ms=600)
                await until(lambda: finished in rig.told(call, "playout"))

        asyncio.run(story())

    def test_is_asked_for_where_nobody_has_made_it_and_then_kept(self, edge_rig):
        async def story():
            async with edge_rig(lines=lines()) as rig:
                asked = []

                def asked_for(word):
                    return sum(text.startswith(word) for text in asked)

                store = ClipStore(rig.bus)

                async def make(data):
                    order = codec.decode(codec.MAKE_CLIP, data)
                    asked.append(order.text)
                    if order.text.startswith("Bye"):
                        return ClipMade(problem="no such voice")
                    await store.put(key_of(order.tts, order.text), hum(5_000, 100))
                    return ClipMade()

                await rig.bus.serve(subjects.MAKE_CLIP, make, queue="tts")
                await until(lambda: len(rig.edge.exchange.clips) >= 2 and asked_for("Bye") >= 2)
                assert asked_for("Hello") == asked_for("All") == 1

        asyncio.run(story())

    def test_is_not_played_twice_when_there_is_none(self, edge_rig):
        async def story():
            async with edge_rig(lines=lines()) as rig:
                _, recording = await rig.good_call(1.0, until=hears(400))
                assert rig.mind.claims[0].greeting == 0
                assert len(levels(recording)) == 1

        asyncio.run(story())


class TestALastSentence:
    def test_is_heard_before_a_call_that_nobody_takes_is_ended(self, edge_rig):
        async def story():
            async with edge_rig(lines=lines(), workers=("stt", "brain")) as rig:
                await keep(rig, busy=hum(6_000, 500))
                _, recording = await rig.good_call(PATIENCE_S)
                assert (recording.ended_by, recording.close_reason) == ("application", "no-tts-worker")
                assert levels(recording) == [(pytest.approx(6_000, abs=300), pytest.approx(500, abs=40))]

        asyncio.run(story())

    def test_is_heard_when_the_brain_is_lost_in_place_of_whatever_else_was_to_be_said(self, edge_rig):
        async def story():
            async with edge_rig(lines=lines(), EDGE_RECLAIM_S="0.3") as rig:
                await keep(rig, farewell=hum(6_000, 500))
                rig.voice.tone_ms = 4_000
                dial = rig.dial()
                call = rig.call_of(dial)
                placed = asyncio.create_task(rig.good_call(PATIENCE_S, dial=dial))
                await until(lambda: rig.told(call, "playout"))
                await rig.mind.fall_silent()
                _, recording = await placed
                assert recording.close_reason == "no-brain-worker"
                assert levels(recording)[-1] == (pytest.approx(6_000, abs=300), pytest.approx(500, abs=40))

        asyncio.run(story())


def used(stage, usd, epoch=1):
    return Used(stage=stage, epoch=epoch, provider="acme", model="m", usd=usd)


class TestTheBill:
    def test_is_the_fact_before_the_last_and_has_what_workers_tell_when_they_let_go(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                dial = rig.dial()
                call = rig.call_of(dial)
                placed = asyncio.create_task(
                    rig.good_call(1.0, dial=dial, until=lambda _: len(rig.told(call, "usage")) == 3)
                )
                await until(lambda: call in rig.mind.held)
                for message in (used("brain", 0.25), used("brain", 0.5), used("stt", 0.125)):
                    await rig.bus.publish(subjects.usage(call), message)
                held = rig.voice.held[call]
                close = held.close

                async def close_and_tell(reason, *, goes_on):
                    await rig.bus.publish(subjects.usage(call), used("tts", 1.0))
                    await close(reason, goes_on=goes_on)

                held.close = close_and_tell
                await placed
                await rig.end_of(call)
                billed = rig.facts(call)[-2]
                assert isinstance(billed, CallBilled)
                assert (billed.usd, billed.complete) == (1.625, True)
                assert {item.stage: item.usd for item in billed.items} == {"brain": 0.5, "stt": 0.125, "tts": 1.0}

        asyncio.run(story())

    def test_that_grows_too_high_has_the_brain_end_the_call(self, edge_rig):
        async def story():
            async with edge_rig(limits="max_cost_usd = 1.0") as rig:
                dial = rig.dial()
                call = rig.call_of(dial)
                placed = asyncio.create_task(rig.good_call(1.0, dial=dial, until=lambda _: rig.told(call, "control")))
                await until(lambda: call in rig.mind.held)
                for usd in (0.9, 1.1, 1.2):
                    await rig.bus.publish(subjects.usage(call), used("brain", usd))
                await until(lambda: rig.told(call, "control"))
                await placed
                assert rig.told(call, "control") == [WindUp(reason="exceeded-max-cost")]

        asyncio.run(story())


def test_a_call_that_rings_is_told_to_all_workers_before_it_begins(edge_rig):
    async def story():
        async with edge_rig() as rig:
            rung = []

            def on_ringing(_subject, data):
                rung.append(codec.decode(codec.RINGING, data).agent.name)

            await rig.bus.subscribe(subjects.RINGING, on_ringing)
            await rig.bus.flush()
            async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
                await client.post(f"{rig.http}/twilio/voice-hook", data={"CallSid": "CA1"})
            await until(lambda: rung)
            assert rung == ["restaurant"]
            assert not rig.ears.claims

    asyncio.run(story())
