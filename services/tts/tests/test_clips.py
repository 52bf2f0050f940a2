"""What is said word for word in any call: made once, kept, found by the next worker, played at once."""

import asyncio

import pytest

from trunkline.bus import ClipStore
from trunkline.proto import codec, subjects
from trunkline.proto.agent import Agent, Tts, TurnTaking
from trunkline.proto.clips import key_of
from trunkline.proto.messages import ClipMade, MakeClip, Ringing
from trunkline.providers import roster
from trunkline.testing.patience import PATIENCE_S, until

pytestmark = pytest.mark.integration

QUIET = TurnTaking(fillers=(), reprompt="", silence_goodbye="")


def agent_of(voice, **lines):
    lines = {"apology": "", "farewell": "", "busy": "", "spent": "", "resumed": "", **lines}
    return Agent(name="test", tts=Tts(provider="one", voice=voice), turns=QUIET, **lines)


async def order(call, tts, text):
    made = await call.bus.request(subjects.MAKE_CLIP, MakeClip(tts=tts, text=text), PATIENCE_S)
    return codec.decode(codec.CLIP_MADE, made)


def test_a_clip_is_made_while_the_call_is_quiet_and_the_next_worker_finds_it(jetstream_url, a_call, readable):
    agent = agent_of("ann", greeting="w1  w2")

    async def story():
        one = readable(1, "one")
        async with a_call(jetstream_url, one, clips_after_ms=0) as call:
            await call.claim(agent=agent)
            await until(lambda: call.counted("clips_total", what="made") == 1)
            stored = ClipStore(call.bus)
            await until(lambda: stored.get(key_of(agent.tts, "w1 w2")))
            assert len(await stored.get(key_of(agent.tts, "w1 w2"))) == 400 * 16

        one = readable(1, "one")
        async with a_call(jetstream_url, one) as call:
            await call.claim(agent=agent)
            await until(lambda: call.counted("clips_total", what="fetched") == 1)
            await call.say(1, "w1 w2")
            assert await call.words(1) == [(1, 1, 200), (1, 2, 200)]
            assert call.counted("clips_total", what="played") == 1
            assert one.attempts == 0
            await call.say(2, "w1 w2 w3")
            await call.until_last(2)
            assert one.attempts == 1

    asyncio.run(story())


def test_nothing_is_made_while_the_call_speaks(jetstream_url, a_call, readable):
    agent = agent_of("ben")

    async def story():
        one = readable(1, "one", streams_text=True)
        async with a_call(jetstream_url, one, clips_after_ms=0) as call:
            await call.claim(agent=agent)
            await call.say(1, "w5 w6 ", goes_on=True)
            await call.chunk()
            ((_, speech),) = call.service.worker.sessions()
            call.service._clips.want(agent.tts, ["w1"], speech._quiet)  # as at the beginning, but surely in its midst
            await asyncio.sleep(0.3)
            assert one.attempts == 1
            await call.say(1, "")
            await until(lambda: one.attempts == 2)

    asyncio.run(story())


def test_nothing_is_made_for_a_call_that_began_to_speak_while_another_s_clip_was_made(jetstream_url, a_call, readable):
    agent = agent_of("hal")

    async def story():
        one = readable(1, "one")
        async with a_call(jetstream_url, one, clips_after_ms=0) as call:
            await call.claim(agent=agent)
            clips, quiet = call.service._clips, asyncio.Event()
            quiet.set()
            async with clips._one_at_a_time:
                clips.want(agent.tts, ["w1"], quiet)
                await until(lambda: clips._one_at_a_time._waiters)
                quiet.clear()
            await asyncio.sleep(0.1)
            assert one.attempts == 0
            quiet.set()
            await until(lambda: one.attempts == 1)

    asyncio.run(story())


def test_a_fallback_makes_what_the_first_voice_cannot_and_voices_do_not_mix(jetstream_url, a_call, readable):
    first = Tts(provider="one", voice="cid", fallbacks=(Tts(provider="two"),))
    agent = Agent(name="test", tts=first, greeting="w1", turns=QUIET)

    async def story():
        one, other = readable(1, "one"), readable(2, "two")
        one.faults = [("refuse", 0)] * 9
        async with a_call(jetstream_url, one, other, clips_after_ms=0) as call:
            await call.claim(agent=agent)
            clips = call.service._clips
            await until(lambda: clips.find_any(first, "w1") is not None)
            assert clips.find(first, "w1") is None
            one.faults = []
            assert await order(call, Tts(provider="two", voice="cid"), "w1") == ClipMade()
            assert await ClipStore(call.bus).get(key_of(first, "w1")) is None

    asyncio.run(story())


def test_an_order_is_answered_when_the_clip_is_there_or_with_the_reason(jetstream_url, a_call, readable, patient):
    tts = Tts(provider="one", voice="dan")

    async def story():
        one = readable(1, "one")
        async with a_call(jetstream_url, one) as call:
            assert await order(call, tts, "w1 w2") == ClipMade()
            assert await order(call, tts, "w1 w2") == ClipMade()
            assert one.attempts == 1
            assert len(await ClipStore(call.bus).get(key_of(tts, "w1 w2"))) == 400 * 16
            for wrong, text, problem in (
                (Tts(provider="acme"), "w1", "tts.provider: no provider 'acme' here"),
                (tts, " ", "0.0 s of sound"),
                (tts, "w1 " * 400, "1200 characters"),
                (tts, "w1 " * 310, "62.0 s of sound"),
            ):
                assert (await order(call, wrong, text)).problem.startswith(problem)
            for provider in ("local", "bench"):
                assert await order(call, Tts(provider=provider, timeouts=patient), "Hello.") == ClipMade()

    asyncio.run(story())


def test_without_a_store_clips_are_made_for_this_worker_alone(nats_url, a_call, readable):
    async def story():
        one = readable(1, "one")
        async with a_call(nats_url, one, clips_after_ms=0) as call:
            await call.claim(agent=agent_of("eve", greeting="w1"))
            await until(lambda: call.counted("clips_total", what="made") == 1)
            await call.say(1, "w1")
            assert await call.words(1) == [(1, 1, 200)]
            assert one.attempts == 1
            assert "cannot read a clip" in (await order(call, Tts(provider="one"), "w1")).problem

    asyncio.run(story())


def test_ringing_makes_the_provider_ready_unless_the_worker_is_full(jetstream_url, a_call, readable, monkeypatch):
    monkeypatch.setattr(roster, "WARMING_S", PATIENCE_S)

    async def story():
        one = readable(1, "one")
        async with a_call(jetstream_url, one, capacity=1) as call:
            agent = agent_of("fay")
            await call.bus.publish(subjects.RINGING, Ringing(agent=agent_of("gus")))
            await until(lambda: one.warmed)
            assert one.warmed[0].voice == "gus"
            unknown = Agent(name="x", tts=Tts(provider="acme"))
            await call.bus.publish(subjects.RINGING, Ringing(agent=unknown))
            await until(lambda: call.service._roster.not_warmed == 1)
            await call.claim(agent=agent)
            await call.bus.publish(subjects.RINGING, Ringing(agent=agent))
            await call.release()
            assert len(one.warmed) == 1

    asyncio.run(story())
