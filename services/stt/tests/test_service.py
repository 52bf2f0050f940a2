"""The service over a real NATS server: calls claimed, heard and let go as an edge does it."""

import asyncio
import contextlib
import itertools

import pytest

from trunkline.audio.g711 import pcm16_to_mulaw
from trunkline.bus import Bus, Heartbeat
from trunkline.proto import codec, subjects
from trunkline.proto.agent import Agent, Stt, TurnTaking
from trunkline.proto.frame import Codec, MediaFrame, pack_media
from trunkline.proto.ids import call_id_of, new_worker_id
from trunkline.proto.messages import (
    Assigned,
    Claim,
    Claimed,
    FinalTranscript,
    Refused,
    Release,
    SpeechStarted,
    SpeechStopped,
    TurnEnded,
)
from trunkline.runtime.clock import SYSTEM
from trunkline.runtime.process import Chassis
from trunkline.runtime.settings import BaseSettings
from trunkline.stt.provider import SttCapabilities, providers
from trunkline.stt.providers.bench import BenchProvider
from trunkline.stt.service import SttService
from trunkline.stt.settings import SttSettings
from trunkline.testing.patience import PATIENCE_S, until

pytestmark = pytest.mark.integration

FRAME_S = 0.032
_numbers = itertools.count()


class Mute(BenchProvider):
    """Never tells a word."""

    capabilities = SttCapabilities()

    async def open(self, stt, on_heard):
        del on_heard
        return await super().open(stt, lambda _: None)


class Edge:
    """As much of an edge as STT can see."""

    def __init__(self, bus):
        self.bus = bus
        self.id = new_worker_id("edge")
        self.heartbeat = Heartbeat(bus, stage="edge", worker=self.id, calls=lambda: 0, capacity=1)

    async def call(self, agent, epoch=1):
        call = call_id_of("test", str(next(_numbers)))
        caller = Caller(self.bus, call, epoch)
        await caller.watch()
        caller.reply = await self.claim(agent, call, epoch)
        return caller

    async def claim(self, agent, call, epoch):
        claim = Claim(call=call, stage="stt", epoch=epoch, edge=self.id, agent=agent)
        return codec.decode(codec.CLAIM_REPLY, await self.bus.request(subjects.claim("stt"), claim, PATIENCE_S))


class Caller:
    def __init__(self, bus, call, epoch):
        self.bus, self.call, self.epoch = bus, call, epoch
        self.told = []
        self.reply = None
        self.began = 0.0

    async def watch(self):
        await self.bus.subscribe(subjects.speech(self.call), self._on_speech)
        await self.bus.flush()

    def _on_speech(self, _subject, data):
        self.told.append(codec.decode(codec.SPEECH, data))

    async def speak(self, pcm, *, first=0, law=Codec.MULAW, fast=False, only_from=0):
        subject = subjects.media(self.reply.worker, self.call)
        self.began = SYSTEM.wall()
        for n, at in enumerate(range(0, len(pcm), 512)):
            seq = first + n
            if seq < only_from:
                continue
            piece = pcm[at : at + 512]
            payload = pcm16_to_mulaw(piece) if law is Codec.MULAW else piece
            captured_at = self.began + (0 if fast else n * FRAME_S)
            frame = MediaFrame(law, 8_000, 0, self.epoch, seq, int(captured_at * 1e6), payload)
            await self.bus.media.publish_frame(subject, pack_media(frame))
            await asyncio.sleep(0 if fast else max(0, captured_at + FRAME_S - SYSTEM.wall()))

    async def turns(self, count):
        await until(lambda: len(self.of(TurnEnded)) >= count)

    def of(self, kind):
        return [message for message in self.told if isinstance(message, kind)]

    async def release(self):
        await self.bus.request(
            subjects.release(self.reply.worker), Release(call=self.call, epoch=self.epoch), PATIENCE_S
        )


class Mutes:
    """An installed provider."""

    name = "mute"

    @staticmethod
    def load():
        return Mute


@contextlib.asynccontextmanager
async def serving(url, **settings):
    chassis = Chassis("stt", BaseSettings(nats_url=url))
    known = providers({}, [Mutes])
    service = SttService(
        chassis,
        await Bus.connect(url, name="stt", on_lost=chassis.fail),
        SttSettings(**{"final_timeout_ms": 60_000} | settings),
        known,
    )
    bus = await Bus.connect(url, name="edge", on_lost=print)
    edge = Edge(bus)
    try:
        await service.start()
        edge.heartbeat.start()
        yield service, edge
    finally:
        await edge.heartbeat.stop()
        await bus.close()
        await service.stop()
    assert chassis.failure is None


def local(grammar):
    return Agent(name="booking", stt=Stt(provider="local", grammar=grammar))


BENCH = Agent(name="bench", stt=Stt(provider="bench"), turns=TurnTaking(endpoint_silence_ms=200))


def test_eight_calls_at_once_are_heard_word_for_word(nats_url, voice, grammar, phrases):
    async def one(edge, phrase):
        caller = await edge.call(local(grammar))
        assert isinstance(caller.reply, Claimed)
        await caller.speak(voice.say(phrase))
        await caller.turns(1)
        await caller.release()
        return caller

    async def run():
        async with serving(nats_url) as (service, edge):
            callers = await asyncio.gather(*(one(edge, phrase) for phrase in phrases[:8]))
            assert service.worker.calls == 0
        heard = [" ".join(final.text for final in caller.of(FinalTranscript)) for caller in callers]
        assert sum(said == got for said, got in zip(phrases, heard, strict=False)) >= 7, heard
        for caller in callers:
            assert isinstance(caller.told[0], SpeechStarted)
            assert isinstance(caller.told[-1], TurnEnded)
            final, ended = caller.of(FinalTranscript)[-1], caller.told[-1]
            assert caller.told[0].onset_at == final.onset_at < final.offset_at == ended.speech_ended_at
            assert ended.speech_ended_at < ended.endpoint_at <= ended.final_at
            # 600 ms of silence, heard in steps of 32 ms.
            assert ended.endpoint_at - ended.speech_ended_at > 0.5

    asyncio.run(run())


def test_a_replay_to_another_worker_names_the_utterances_the_same(nats_url, voice):
    pcm = voice.say("hello i would like to book a table") + voice.say("for two people")

    async def hear(first, turns):
        async with serving(nats_url, warm="") as (_, edge):
            caller = await edge.call(BENCH)
            await caller.speak(pcm, only_from=first, fast=True)
            await caller.turns(turns)
            return caller.of(FinalTranscript)

    async def run():
        whole = await hear(0, 2)
        ids = [final.utterance for final in whole]
        assert [final.utterance for final in await hear(0, 2)] == ids
        taken_over = await hear(whole[0].committed + 1, 1)
        assert [final.utterance for final in taken_over] == ids[1:]

    asyncio.run(run())


def test_bench_says_hello_200_ms_after_the_end_of_speech(nats_url, voice):
    async def run():
        async with serving(nats_url, warm="") as (_, edge):
            caller = await edge.call(BENCH)
            await caller.speak(voice.say("yes"), law=Codec.PCM16)
            await caller.turns(1)
        assert [type(message) for message in caller.told] == [SpeechStarted, SpeechStopped, FinalTranscript, TurnEnded]
        assert caller.told[2].text == "hello"
        ended = caller.told[3]
        assert ended.committed - round((ended.speech_ended_at - caller.began) / FRAME_S) == 200 // 32

    asyncio.run(run())


def test_garbage_and_stale_frames_harm_no_neighbour(nats_url, voice):
    async def run():
        async with serving(nats_url, warm="") as (service, edge):
            good, bad = [await edge.call(BENCH) for _ in range(2)]
            subject = subjects.media(bad.reply.worker, bad.call)

            async def disturb():
                for n in range(100):
                    await edge.bus.media.publish_frame(subject, b"\x01\x09garbage" * n)
                    stale = MediaFrame(Codec.PCM16, 8_000, 0, 0, n, 0, bytes(512))
                    await edge.bus.media.publish_frame(subject, pack_media(stale))
                    await edge.bus.media.publish_frame(subjects.media(bad.reply.worker, "nobody"), b"")

            await asyncio.gather(good.speak(voice.say("yes")), disturb())
            await good.turns(1)
            assert [final.text for final in good.of(FinalTranscript)] == ["hello"]
            assert bad.told == []
            assert service._metrics.frames["malformed"] == 100
            assert service._metrics.frames["fenced"] == 100
            assert service._metrics.frames["unclaimed"] == 100

    asyncio.run(run())


def test_words_that_do_not_come_in_time_end_the_turn_without_them(nats_url, voice):
    async def run():
        async with serving(nats_url, warm="", final_timeout_ms=300) as (service, edge):
            agent = Agent(name="mute", stt=Stt(provider="mute"), turns=TurnTaking(endpoint_silence_ms=200))
            caller = await edge.call(agent)
            await caller.speak(voice.say("yes"), fast=True)
            await caller.turns(1)
            assert [type(message) for message in caller.told] == [SpeechStarted, SpeechStopped, TurnEnded]
            assert service._metrics.counts["finals_missing"] == 1

    asyncio.run(run())


@pytest.mark.parametrize(
    ("stt", "reason"),
    [
        (Stt(provider="depgram"), "stt.provider: no provider 'depgram' here"),
        (Stt(grammar="public <a> = yes;"), "stt.grammar: must begin with '#JSGF V1.0;'"),
    ],
)
def test_a_call_that_cannot_be_served_is_refused_for_good_and_leaves_no_trace(nats_url, stt, reason, monkeypatch):
    monkeypatch.setattr("trunkline.stt.providers.local._CHECK_S", PATIENCE_S)

    async def run():
        async with serving(nats_url, capacity=1) as (service, edge):
            for _ in range(3):
                caller = await edge.call(Agent(name="typo", stt=stt))
                assert isinstance(caller.reply, Refused)
                assert not caller.reply.retry
                assert reason in caller.reply.reason
            assert service._shared.detector.free == 2
            assert isinstance((await edge.call(BENCH)).reply, Claimed)

    asyncio.run(run())


def test_a_call_claimed_again_is_heard_in_its_new_epoch_only(nats_url, voice):
    async def run():
        async with serving(nats_url, warm="", capacity=2) as (service, edge):
            caller = await edge.call(BENCH)
            assert isinstance(await edge.claim(BENCH, caller.call, 2), Claimed)
            await caller.speak(voice.say("yes"), fast=True)
            caller.epoch = 2
            await caller.speak(voice.say("yes"), fast=True)
            await caller.turns(1)
            assert {message.epoch for message in caller.told} == {2}
            assert service._metrics.frames["fenced"] == len(voice.say("yes")) // 512
            assert service.worker.calls == 1

    asyncio.run(run())


def test_a_call_that_is_somebody_elses_by_now_is_let_go_and_its_frames_are_counted_only(nats_url, voice):
    async def run():
        async with serving(nats_url, warm="") as (service, edge):
            caller = await edge.call(BENCH)
            await edge.bus.publish(
                subjects.assigned(caller.call), Assigned(stage="stt", epoch=2, worker=new_worker_id("stt"))
            )
            await until(lambda: not service.worker.calls)
            pcm = voice.say("yes")
            await caller.speak(pcm, fast=True)
            await until(lambda: service._metrics.frames["unclaimed"] == len(pcm) // 512)
            assert caller.told == []

    asyncio.run(run())
