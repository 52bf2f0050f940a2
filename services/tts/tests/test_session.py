"""A call's speech over a real NATS server: what the edge hears when the brain speaks and interrupts."""

import asyncio
import json
from collections.abc import AsyncGenerator

import numpy as np
import pytest

from trunkline.audio.levels import rms_dbfs, voiced_spans
from trunkline.proto import subjects
from trunkline.proto.events import StageSettled
from trunkline.proto.frame import Codec
from trunkline.proto.messages import Claimed, Refused, Released
from trunkline.testing.patience import PATIENCE_S, until
from trunkline.tts import line
from trunkline.tts.provider import TtsCapabilities

pytestmark = pytest.mark.integration

BRAIN = 3
"""Epoch of the brain that speaks where none is named."""
LONG = "I would like to tell you about everything that is on our menu today. " * 14


class ScriptedVoice:
    """Does what the sentence says: `fail`, `stall` (one second, then nothing for ever), `nothing`, or one second."""

    sample_rate_hz = 16_000

    def __init__(self):
        self.closed_early = 0
        self.closed = False

    async def speak(self, text) -> AsyncGenerator[bytes, None]:
        text = "".join([piece async for piece in text])
        if text == "nothing":
            return
        yield np.full(16_000, 5_000, np.int16).tobytes()
        if text == "fail":
            raise RuntimeError("out of breath")
        if text == "stall":
            try:
                await asyncio.Event().wait()
            finally:
                self.closed_early += 1

    async def aclose(self):
        self.closed = True


class ScriptedProvider:
    name = "scripted"
    capabilities = TtsCapabilities()

    def __init__(self):
        self.voices = []

    def load(self):
        return lambda _environ: self

    def check(self, tts):
        pass

    async def warm(self, tts):
        pass

    async def open(self, tts):  # noqa: ARG002
        self.voices.append(ScriptedVoice())
        return self.voices[-1]

    async def aclose(self):
        pass


def pcm_of(chunks):
    return b"".join(chunk.payload for chunk in chunks)


def test_a_call_is_claimed_speaks_is_interrupted_and_speaks_again(nats_url, a_call):
    async def story():
        async with a_call(nats_url) as call:
            assert isinstance(await call.claim(), Claimed)
            await call.say(1, "Hello, this is Sophie.")
            await call.say(2, "How can I help you today?")
            first, second = await call.until_last(1), await call.until_last(2)

            for utterance in range(3, 43):
                await call.say(utterance, LONG)
            cut = [await call.chunk()]
            await call.interrupt(2)
            await call.say(43, "You will not hear this.", generation=1)
            await call.say(44, "Of course, seven it is.", generation=2)
            while (chunk := await call.chunk()).generation == 1:
                cut.append(chunk)
            answer = [chunk, *await call.until_last(44)]

            for chunks, at_least_s, at_most_s in ((first, 0.8, 3), (second, 0.8, 3), (answer, 0.8, 3)):
                pcm = pcm_of(chunks)
                assert at_least_s < len(pcm) / 16_000 < at_most_s
                assert -30 < rms_dbfs(pcm) < -10
                assert len(chunks[0].payload) == 640
                assert [len(chunk.payload) for chunk in chunks[1:-1]] == [2_560] * (len(chunks) - 2)
                assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
            assert voiced_spans(pcm_of(first), 8_000)[0].start_ms < 60
            assert 240 <= voiced_spans(pcm_of(second), 8_000)[0].start_ms <= 320

            whole = cut[-1].utterance - 3  # so many long ones; none, unless the bus stood still
            assert sum(chunk.last for chunk in cut) == whole < 39
            assert not cut[-1].last
            after = call.all[len(first) + len(second) + len(cut) :]
            assert {chunk.generation for chunk in after} == {2}
            assert [chunk.seq for chunk in call.all] == list(range(len(call.all)))
            assert {(chunk.codec, chunk.sample_rate_hz, chunk.epoch) for chunk in call.all} == {(Codec.PCM16, 8_000, 2)}

            assert call.counted("sentences_total", provider="local", outcome="spoken") == 3 + whole
            assert call.counted("sentences_total", provider="local", outcome="cut") == 1
            assert call.counted("dropped_total", reason="interrupted") == 39 - whole
            assert call.counted("dropped_total", reason="stale-generation") == 1

            assert await call.release() == Released(known=True)
            assert call.service.worker.calls == 0

    asyncio.run(story())


def test_audio_that_the_edge_has_missed_is_sent_again_and_only_what_is_asked_for(nats_url, a_call, monkeypatch):
    monkeypatch.setattr(line, "KEPT_S", PATIENCE_S)

    async def story():
        async with a_call(nats_url) as call:
            await call.claim()
            await call.say(1, "Hello, this is Sophie.")
            spoken = await call.until_last(1)
            await call.missed(4, epoch=1)
            await call.missed(len(spoken) - 3)
            again = await call.until_last(1)
            assert again == spoken[-3:]
            await call.missed(len(spoken))
            await call.say(2, "Hello.")
            assert (await call.until_last(2))[0].seq == len(spoken)
            assert await call.release() == Released(known=True)

    asyncio.run(story())


def test_the_bench_agent_gets_two_seconds_of_tone_per_sentence(nats_url, a_call):
    async def story():
        async with a_call(nats_url) as call:
            await call.claim("bench")
            for utterance in (1, 2, 3):
                await call.say(utterance, "Twelve words.")
                assert len(pcm_of(await call.until_last(utterance))) == 2 * 16_000

    asyncio.run(story())


def test_a_sentence_that_breaks_off_or_is_empty_ends_and_the_next_is_heard(jetstream_url, a_call):
    async def story():
        scripted = ScriptedProvider()
        async with a_call(jetstream_url, scripted) as call:
            await call.claim("scripted")
            for utterance, text in enumerate(("fail", "nothing", " \x00 ", "one second"), start=1):
                await call.say(utterance, text)
            failed, nothing, blank, spoken = [await call.until_last(utterance) for utterance in (1, 2, 3, 4)]
            assert len(pcm_of(failed)) == 16_000
            assert pcm_of(nothing) == pcm_of(blank) == b""
            assert len(pcm_of(spoken)) == 16_000
            assert call.counted("sentences_total", provider="scripted", outcome="spoken") == 2
            assert call.counted("sentences_total", provider="scripted", outcome="empty") == 2

    asyncio.run(story())


def test_a_provider_that_falls_silent_is_given_up(jetstream_url, a_call, quick):
    async def story():
        scripted = ScriptedProvider()
        async with a_call(jetstream_url, scripted) as call:
            await call.claim("scripted", timeouts=quick)
            await call.say(1, "stall")
            await call.say(2, "one second")
            await call.until_last(1)
            assert len(pcm_of(await call.until_last(2))) == 16_000
            assert scripted.voices[0].closed_early == 1
            assert call.counted("provider_attempts_total", provider="scripted", outcome="broke-off") == 1

    asyncio.run(story())


def test_an_interrupt_closes_the_provider_in_mid_sentence(nats_url, a_call):
    async def story():
        scripted = ScriptedProvider()
        async with a_call(nats_url, scripted) as call:
            await call.claim("scripted")
            await call.say(1, "stall")
            await call.chunk()
            await call.interrupt(2)
            await call.say(2, "one second", generation=2)
            while (await call.chunk()).utterance == 1:
                pass
            await until(lambda: scripted.voices[0].closed_early == 1)
            assert not any(chunk.last for chunk in call.all if chunk.utterance == 1)

    asyncio.run(story())


def test_more_sentences_than_may_wait_are_refused_and_the_first_are_kept(nats_url, a_call):
    async def story():
        scripted = ScriptedProvider()
        async with a_call(nats_url, scripted, queue_sentences=2) as call:
            await call.claim("scripted")
            await call.say(1, "stall")
            await call.chunk()
            for utterance in (2, 3, 4, 5):
                await call.say(utterance, "one second", generation=2)
            await call.interrupt(2)
            while (chunk := await call.chunk()).utterance == 1:
                pass
            assert chunk.utterance == 2
            await call.until_last(2)
            await call.until_last(3)
            assert call.counted("dropped_total", reason="full") == 2

    asyncio.run(story())


def test_rubbish_and_deposed_brains_are_counted_and_harm_nothing(nats_url, a_call):
    async def story():
        scripted = ScriptedProvider()
        async with a_call(nats_url, scripted) as call:
            await call.claim("scripted", generation=4)
            await call.bus.control.publish(subjects.speak(call.call), b"\xff not JSON")
            await call.bus.control.publish(subjects.interrupt(call.call), b'{"type":"say"}')
            await call.say(1, "one second", generation=4, epoch=7)
            await call.say(2, "one second", generation=4, epoch=6)
            await call.interrupt(9, epoch=6)
            await call.say(3, "one second", generation=3, epoch=7)
            await call.say(4, "one second", generation=5, epoch=7)
            await call.until_last(1)
            await call.until_last(4)
            assert call.counted("dropped_total", reason="malformed") == 2
            assert call.counted("dropped_total", reason="stale-epoch") == 2
            assert call.counted("dropped_total", reason="stale-generation") == 1

    asyncio.run(story())


def test_what_a_brain_was_writing_when_it_died_ends_the_moment_another_is_assigned(nats_url, a_call):
    async def story():
        scripted = ScriptedProvider()
        async with a_call(nats_url, scripted) as call:
            await call.claim("scripted")
            await call.say(1, "Let me see whether", goes_on=True)
            await call.say(2, "one second")
            await call.assigned("brain", epoch=BRAIN + 1)
            assert pcm_of(await call.until_last(1))
            assert pcm_of(await call.until_last(2))
            await call.say(3, "of the old one")
            await call.say(4, "of the new one", epoch=BRAIN + 1)
            await call.until_last(4)
            assert call.counted("dropped_total", reason="stale-epoch") == 1

    asyncio.run(story())


def test_a_sentence_meant_for_another_voice_is_let_be(nats_url, a_call):
    async def story():
        scripted = ScriptedProvider()
        async with a_call(nats_url, scripted) as call:
            await call.claim("scripted", epoch=2)
            await call.say(1, "for the one before", voice=1)
            await call.say(2, "for me", voice=2)
            await call.until_last(2)
            assert call.counted("dropped_total", reason="other-voice") == 1

    asyncio.run(story())


def test_a_worker_whose_call_is_somebody_elses_stops_its_provider_and_says_nothing_more(nats_url, a_call):
    async def story():
        scripted = ScriptedProvider()
        async with a_call(nats_url, scripted) as call:
            await call.claim("scripted")
            await call.say(1, "stall")
            await call.chunk()
            await call.assigned("tts", epoch=3)
            await until(lambda: scripted.voices[0].closed and scripted.voices[0].closed_early == 1)
            await call.say(2, "one second")
            await call.bus.flush(PATIENCE_S)
            assert {(chunk.utterance, chunk.last) for chunk in call.all} == {(1, False)}

    asyncio.run(story())


def test_it_rests_when_all_is_said(nats_url, a_call):
    async def story():
        scripted = ScriptedProvider()
        async with a_call(nats_url, scripted) as call:
            await call.claim("scripted")
            ((_, speech),) = call.service.worker.sessions()
            await asyncio.wait_for(speech.rest(), PATIENCE_S)
            await call.say(1, "one second")
            await call.say(2, "stall")
            await call.until_last(1)
            assert (await call.chunk()).utterance == 2
            resting = asyncio.create_task(speech.rest())
            assert not (await asyncio.wait({resting}, timeout=0.1))[0]
            await call.interrupt(2)
            await asyncio.wait_for(resting, PATIENCE_S)

    asyncio.run(story())


@pytest.mark.parametrize(("reason", "goes_on", "stored"), [("edge-lost", False, 1), ("deposed", True, 0)])
def test_only_who_lost_its_edge_stores_what_it_used(jetstream_url, a_call, reason, goes_on, stored):
    async def story():
        scripted = ScriptedProvider()
        async with a_call(jetstream_url, scripted) as call:
            await call.claim("scripted")
            await call.say(1, "one second")
            await call.until_last(1)
            told = await call.uses()
            ((_, speech),) = call.service.worker.sessions()
            await speech.close(reason, goes_on=goes_on)
            settled = [fact for fact in await call.facts() if isinstance(fact, StageSettled)]
            assert settled == [StageSettled(stage="tts", epoch=2, used=(told,))] * stored

    asyncio.run(story())


def test_what_was_spoken_is_in_the_journal(nats_url, a_call, tmp_path):
    async def story():
        async with a_call(nats_url, ScriptedProvider(), journal=str(tmp_path)) as call:
            await call.claim("scripted")
            await call.say(1, "one second")
            chunks = await call.until_last(1)
            (file,) = tmp_path.iterdir()
            noted = [json.loads(line) for line in file.read_text().splitlines()]
            assert {(line["what"], line["who"], line["call"], line["epoch"], line["generation"]) for line in noted} == {
                ("spoke", call.service.worker.worker, call.call, 2, 1)
            }
            assert [line["seq"] for line in noted] == [chunk.seq for chunk in chunks]
            assert sum(line["ms"] for line in noted) == 1_000

    asyncio.run(story())


def test_a_released_call_falls_silent_at_once(nats_url, a_call):
    async def story():
        scripted = ScriptedProvider()
        async with a_call(nats_url, scripted) as call:
            await call.claim("scripted")
            await call.say(1, "stall")
            await call.chunk()
            assert await call.release() == Released(known=True)
            assert scripted.voices[0].closed
            await until(lambda: scripted.voices[0].closed_early == 1)
            await call.say(2, "one second")
            await call.bus.flush(PATIENCE_S)
            assert not any(chunk.utterance == 2 for chunk in call.all)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (
            {"provider": "acme"},
            "agent test: tts.provider: no provider 'acme' here; expected one of bench,",
        ),
        (
            {"provider": "local", "voice": "nobody"},
            "agent test: tts.voice: 'nobody' is not there; expected one of af,",
        ),
    ],
)
def test_an_agent_that_cannot_be_served_is_refused_for_good(nats_url, a_call, settings, reason):
    async def story():
        async with a_call(nats_url) as call:
            reply = await call.claim(**settings)
            assert isinstance(reply, Refused)
            assert reply.reason.startswith(reason)
            assert not reply.retry
            assert call.service.worker.calls == 0

    asyncio.run(story())


def test_the_page_for_people_tells_what_happened(nats_url, a_call):
    async def story():
        async with a_call(nats_url) as call:
            await call.claim("bench")
            await call.say(1, "Hello.")
            await call.until_last(1)
            page = call.chassis.page()
            assert "calls                            1 of 200" in page
            assert "sentences spoken                 1" in page
            assert "first audio, last 1" in page

    asyncio.run(story())
