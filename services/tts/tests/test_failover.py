"""What the caller hears when providers fail, over a real NATS server: no word twice, and never nothing."""

import asyncio

import pytest

from trunkline.proto.agent import Agent, Timeouts, Tts, TurnTaking
from trunkline.proto.events import ProviderFailed
from trunkline.proto.messages import Claimed, Refused, Released, SpeakingFailed, WordsTimed
from trunkline.testing.patience import until

pytestmark = pytest.mark.integration

SENTENCE = "w1 w2 w3 w4 w5 w6 w7 w8"
ALL = list(range(1, 9))
PATIENT = Timeouts(connect_ms=60_000, first_ms=60_000, stall_ms=60_000)


def agent_with(first, *others, timeouts=PATIENT, **settings):
    """Return an agent whose first provider has these time-outs; the others are given all the time they need."""
    fallbacks = tuple(Tts(provider=other.name, timeouts=PATIENT) for other in others)
    tts = Tts(provider=first.name, timeouts=timeouts, fallbacks=fallbacks)
    return Agent(name="test", tts=tts, **settings)


@pytest.fixture
def two(readable):
    return readable(1, "one", word_times=True), readable(2, "two")


def test_a_provider_that_fails_before_its_first_sound_is_replaced_without_a_trace(jetstream_url, a_call, two):
    one, other = two
    one.faults = [("refuse", 0), ("refuse", 0)]

    async def story():
        async with a_call(jetstream_url, one, other) as call:
            assert isinstance(await call.claim(agent=agent_with(one, other)), Claimed)
            await call.say(1, SENTENCE)
            assert await call.words(1) == [(2, word, 200) for word in ALL]
            assert one.attempts == 2
            await call.say(2, "w9")
            assert await call.words(2) == [(2, 9, 200)]
            assert one.attempts == 2  # suspect for a while
            assert call.told.empty() or not isinstance(call.told.get_nowait(), SpeakingFailed)

    asyncio.run(story())


def test_a_provider_that_hangs_is_left_within_its_time(jetstream_url, a_call, two, quick):
    one, other = two
    one.faults = [("hang", 0)]

    async def story():
        async with a_call(jetstream_url, one, other) as call:
            await call.claim(agent=agent_with(one, other, timeouts=quick))
            await call.say(1, SENTENCE)
            assert await call.words(1) == [(2, word, 200) for word in ALL]
            await until(lambda: one.speaking == 0)
            await call.release()
            assert [fact.text for fact in await call.facts()] == ["silent for 150 ms"]

    asyncio.run(story())


@pytest.mark.parametrize("fault", ["break", "stall"])
def test_the_rest_of_a_sentence_is_spoken_by_the_next_from_the_very_word(jetstream_url, a_call, two, quick, fault):
    one, other = two
    one.faults = [(fault, 3)]

    async def story():
        async with a_call(jetstream_url, one, other) as call:
            await call.claim(agent=agent_with(one, other, timeouts=quick))
            await call.say(1, SENTENCE)
            # Of the fourth word one half was heard: it is not said again.
            assert await call.words(1) == [
                *((1, word, 200) for word in (1, 2, 3)),
                (1, 4, 100),
                *((2, word, 200) for word in (5, 6, 7, 8)),
            ]
            timed = await call.tells()
            assert isinstance(timed, WordsTimed)
            assert timed.points == ((2, 200),)
            assert "".join(other.given) == "w5 w6 w7 w8"

    asyncio.run(story())


def test_without_points_a_word_is_lost_rather_than_said_twice(jetstream_url, a_call, two):
    one, other = two
    other.faults = [("break", 3)]

    async def story():
        async with a_call(jetstream_url, one, other) as call:
            await call.claim(agent=agent_with(other, one))
            await call.say(1, SENTENCE)
            words = await call.words(1)
            said = [word for _, word, _ in words]
            assert said == sorted(set(said))
            assert said[:4] == [1, 2, 3, 4]
            assert said[-1] == 8
            assert [voice for voice, _, _ in words] == sorted((voice for voice, _, _ in words), reverse=True)

    asyncio.run(story())


def test_words_of_the_second_voice_are_timed_behind_those_of_the_first(jetstream_url, a_call, readable):
    one, other = readable(1, "one", word_times=True), readable(2, "two", word_times=True)
    one.faults = [("break", 1)]

    async def story():
        async with a_call(jetstream_url, one, other) as call:
            await call.claim(agent=agent_with(one, other))
            await call.say(1, " w1  w2 w3")
            await call.until_last(1)
            points = [point for _ in range(2) for point in (await call.tells()).points]
            assert points == [(3, 200), (10, 300 + 200)]

    asyncio.run(story())


@pytest.mark.parametrize("with_clip", [True, False])
def test_when_nobody_can_speak_the_apology_stands_in(jetstream_url, a_call, two, with_clip):
    one, other = two
    agent = agent_with(one, other, apology="w99" if with_clip else "w98")

    async def story():
        settings = {"clips_after_ms": 0 if with_clip else 60_000}
        async with a_call(jetstream_url, one, other, **settings) as call:
            await call.claim(agent=agent)
            if with_clip:
                await until(lambda: clips(call) >= len(agent.clips))
            one.faults, other.faults = [("refuse", 0)] * 99, [("refuse", 0)] * 99
            await call.say(1, SENTENCE)
            await call.say(2, "w50")
            assert await call.words(1) == ([(1, 99, 200)] if with_clip else [])
            told = await call.tells()
            assert isinstance(told, SpeakingFailed)
            assert (told.utterance, told.instead) == (1, "apology" if with_clip else "")
            assert call.counted("dropped_total", reason="nobody-speaks") == 1
            await call.say(3, "w51")
            assert await call.words(3) == []  # once in a turn
            assert await call.release() == Released(known=True)
            facts = [fact for fact in await call.facts() if isinstance(fact, ProviderFailed)]
            assert {fact.provider for fact in facts} == {"one", "two"}
            assert facts[-1].then == "apology"

    asyncio.run(story())


def test_a_filler_is_heard_while_the_sentence_is_late_and_the_words_are_timed_behind_it(
    jetstream_url, a_call, readable
):
    one = readable(1, "one", word_times=True)
    agent = agent_with(one, turns=TurnTaking(fillers=("w70", "w71"), filler_again_ms=300))

    async def story():
        async with a_call(jetstream_url, one, clips_after_ms=0) as call:
            await call.claim(agent=agent)
            await until(lambda: clips(call) >= len(agent.clips))
            due = call.chassis.clock.wall() + 0.1
            await call.say(1, "w1 ", goes_on=True, filler_at=due)
            fillers = [(await call.tells()).points for _ in range(2)]
            assert fillers == [((0, 200),), ((0, 400),)]
            await call.say(1, "w2")
            chunks = await call.until_last(1)
            assert chunks[0].synthesised_us >= due * 1e6
            heard_ms = 400
            while (points := (await call.tells()).points) == ((0, heard_ms + 200),):
                heard_ms += 200  # the last one again, where the machine stood still
            assert points == ((2, heard_ms + 200),)
            assert call.read(chunks) == [(1, 70, 200), (1, 71, heard_ms - 200), (1, 1, 200), (1, 2, 200)]

    asyncio.run(story())


def test_a_sentence_in_time_gets_no_filler_nor_does_a_second_one(jetstream_url, a_call, two):
    one, _ = two
    agent = agent_with(one, turns=TurnTaking(fillers=("w70",)))

    async def story():
        async with a_call(jetstream_url, one, clips_after_ms=0) as call:
            await call.claim(agent=agent)
            await until(lambda: clips(call) >= len(agent.clips))
            await call.say(1, "w1", filler_at=call.chassis.clock.wall() + 600)
            assert await call.words(1) == [(1, 1, 200)]
            await call.say(2, "w2 ", goes_on=True, filler_at=1.0)
            await asyncio.sleep(0.05)
            await call.say(2, "w3")
            assert await call.words(2) == [(1, 2, 200), (1, 3, 200)]

    asyncio.run(story())


def test_a_sentence_still_being_written_is_spoken_as_it_comes_where_that_can_be_done(
    jetstream_url, a_call, readable, quick
):
    one, other = readable(1, "one", streams_text=True), readable(2, "two")

    async def story():
        async with a_call(jetstream_url, one, other) as call:
            await call.claim(agent=agent_with(one, other, timeouts=quick))
            await call.say(1, "w1 w2 w", goes_on=True)
            first = await call.chunk()
            await asyncio.sleep(0.3)  # longer than the provider may be silent; but it is we who are late
            await call.say(1, "3 w4", goes_on=True)
            await call.say(1, "")
            assert call.read([first, *await call.until_last(1)]) == [(1, word, 200) for word in (1, 2, 3, 4)]
            assert one.given[0] == "w1 w2"
            assert "".join(one.given) == "w1 w2 w3 w4"

            one.faults = [("break", 1)]
            await call.say(2, "w1 w2 ", goes_on=True)
            await call.say(2, "w3 w4 w5 w6 w7")
            voices = [voice for voice, _, _ in await call.words(2)]
            assert voices == sorted(voices)
            assert set(voices) == {1, 2}

    asyncio.run(story())


def test_a_sentence_nobody_completes_ends_with_what_there_is(jetstream_url, a_call, readable):
    one = readable(1, "one")

    async def story():
        async with a_call(jetstream_url, one, pieces_stall_ms=100) as call:
            await call.claim("one")
            await call.say(1, "w1 w2", goes_on=True)
            assert [word for _, word, _ in await call.words(1)] == [1, 2]
            await call.say(1, "w3")
            await call.say(2, "w4")
            assert [word for _, word, _ in await call.words(2)] == [4]
            assert call.counted("dropped_total", reason="given-up") == 1

    asyncio.run(story())


@pytest.mark.parametrize("fault", ["", "hang", "stall"])
def test_an_interrupt_stops_whatever_is_under_way(jetstream_url, a_call, readable, fault):
    one, other = readable(1, "one", streams_text=True), readable(2, "two")
    one.faults = [(fault, 1)] if fault else []

    async def story():
        async with a_call(jetstream_url, one, other) as call:
            await call.claim(agent=agent_with(one, other))
            await call.say(1, "w1 w2 w3 ", goes_on=True)
            await until(lambda: one.attempts)
            await call.interrupt(2)
            await call.say(1, "w4 w5")
            await call.say(2, "w6", generation=2)
            while (chunk := await call.chunk()).generation == 1:
                assert not chunk.last
            assert chunk.utterance == 2
            await until(lambda: one.speaking == other.speaking == 0)

    asyncio.run(story())


def test_a_call_is_taken_as_long_as_one_voice_is_there(jetstream_url, a_call, two):
    one, other = two
    one.misconfigured = True

    async def story():
        async with a_call(jetstream_url, one, other) as call:
            assert isinstance(await call.claim(agent=agent_with(one, other)), Claimed)
            await call.say(1, "w1")
            assert await call.words(1) == [(2, 1, 200)]
            await call.release()
            other.misconfigured = True
            refused = await call.claim(agent=agent_with(one, other), epoch=3)
            assert isinstance(refused, Refused)
            assert not refused.retry

    asyncio.run(story())


def test_what_was_used_is_told_at_the_latest_when_the_call_is_let_go(jetstream_url, a_call, two):
    one, other = two
    one.faults = [("break", 2)]

    async def story():
        async with a_call(jetstream_url, one, other) as call:
            await call.claim(agent=agent_with(one, other))
            await call.say(1, SENTENCE)
            await call.until_last(1)
            await call.release()
            used = {told.provider: told for told in [await call.uses() for _ in range(2)]}
            assert used["one"].characters == len(SENTENCE)
            assert used["two"].characters == len("w4 w5 w6 w7 w8")
            assert used["one"].estimated
            assert used["one"].epoch == 2

    asyncio.run(story())


def test_health_is_shown(jetstream_url, a_call, two):
    one, other = two
    one.faults = [("refuse", 0)] * 9

    async def story():
        async with a_call(jetstream_url, one, other) as call:
            await call.claim(agent=agent_with(one, other))
            await call.say(1, "w1")
            await call.until_last(1)
            assert call.counted("provider_failures_total", provider="one", kind="connect") == 2
            page = call.chassis.page()
            assert "  one                              closed" in page
            assert "  two                              closed" in page

    asyncio.run(story())


def clips(call):
    return sum(call.counted("clips_total", what=what) for what in ("made", "fetched"))
