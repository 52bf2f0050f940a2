"""Another worker takes over, at any moment: real speech, heard word for word as if nothing had happened.

What the edge does is done here without it: it keeps the frames, learns what is committed, and sends what is not to the
next worker in one burst.
"""

import asyncio
import contextlib

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from trunkline.audio.g711 import pcm16_to_mulaw
from trunkline.proto.agent import Agent, Stt, TurnTaking
from trunkline.proto.frame import Codec, Flag, MediaFrame, pack_media
from trunkline.proto.messages import Claim, FinalTranscript, SpeechStarted, TurnEnded
from trunkline.providers.breaker import BreakerRules
from trunkline.providers.health import Health
from trunkline.providers.prices import Prices
from trunkline.runtime.clock import SYSTEM
from trunkline.runtime.journal import Journal
from trunkline.stt.cadence import Cadence
from trunkline.stt.metrics import SttMetrics
from trunkline.stt.providers.bench import BenchProvider
from trunkline.stt.providers.local import LocalProvider
from trunkline.stt.relay import Lender
from trunkline.stt.session import CallHearing, Surroundings
from trunkline.stt.settings import SttSettings
from trunkline.stt.vad import VoiceDetector

pytestmark = pytest.mark.integration

RING_FRAMES = 156


class Told:
    """Takes the place of outbox and event log."""

    def __init__(self):
        self.messages = []

    def put(self, _subject, message, _stands=None):
        self.messages.append(message)

    async def flush(self, timeout_s=0.0):
        pass

    def of(self, kind):
        return [message for message in self.messages if isinstance(message, kind)]

    @property
    def committed(self):
        return max((message.committed for message in self.of(TurnEnded)), default=-1)

    @property
    def words(self):
        return [(final.utterance, final.text) for final in self.of(FinalTranscript)]


class Worker:
    """One that hears the call in `epoch`, among other calls or alone."""

    def __init__(self, epoch, provider, stt, turns):
        self.epoch, self.provider, self.stt = epoch, provider, stt
        self.told = Told()
        detector, metrics = VoiceDetector(1), SttMetrics(CollectorRegistry())
        self.cadence = Cadence(detector, SYSTEM, metrics)
        shared = Surroundings(
            detector,
            self.cadence,
            self.told,
            SYSTEM,
            metrics,
            SttSettings(final_timeout_ms=60_000),
            self.told,
            Health("stt", BreakerRules(), SYSTEM.monotonic, CollectorRegistry()),
            Prices(as_of="2025-01-01"),
            Journal(),
        )
        agent = Agent(name="a", stt=stt, turns=turns)
        self.hearing = CallHearing(Claim(call="c", stage="stt", epoch=epoch, edge="edge-a", agent=agent), shared)

    async def begin(self):
        async def lend(on_heard):
            return await self.provider.open(self.stt, on_heard), self.provider.capabilities

        await self.hearing.listen([Lender(self.stt, lend)])
        return self

    async def hear(self, pcm, first, upto, flags=Flag.NONE):
        for seq in range(first, upto):
            payload = pcm16_to_mulaw(pcm[seq * 512 : seq * 512 + 512])
            frame = MediaFrame(Codec.MULAW, 8_000, int(flags), self.epoch, seq, seq * 32_000, payload)
            self.hearing.on_frame(pack_media(frame))
            if seq % RING_FRAMES == 0:
                await self.catch_up()
        await self.catch_up()

    async def catch_up(self):
        while self.hearing._intake.ready:
            await self.cadence.beat()

    async def die(self):
        """Be gone: what is told from now on is heard by nobody."""
        told = list(self.told.messages)
        await self.hearing.close("killed", goes_on=True)
        self.told.messages = told


class Scene:
    def __init__(self, provider, stt, turns):
        self.provider, self.stt, self.turns = provider, stt, turns

    async def undisturbed(self, pcm):
        worker = await Worker(1, self.provider, self.stt, self.turns).begin()
        await worker.hear(pcm, 0, len(pcm) // 512)
        await worker.hearing.rest()
        await worker.hearing.close("done", goes_on=False)
        return worker.told

    async def with_a_kill(self, pcm, at):
        """Return what was told by the worker killed at frame `at`, and by its successor."""
        first = await Worker(1, self.provider, self.stt, self.turns).begin()
        for seq in range(0, at, 16):
            await first.hear(pcm, seq, min(seq + 16, at))
        await first.die()
        second = await Worker(2, self.provider, self.stt, self.turns).begin()
        await second.hear(pcm, max(first.told.committed + 1, at - RING_FRAMES), at, Flag.REPLAY)
        await second.hear(pcm, at, len(pcm) // 512)
        await second.hearing.rest()
        await second.hearing.close("done", goes_on=False)
        assert {message.epoch for message in second.told.of(SpeechStarted)} <= {2}
        return first.told, second.told


@contextlib.asynccontextmanager
async def hearing(provider, stt, turns=TurnTaking()):  # noqa: B008 - a frozen value
    await provider.warm_up()
    try:
        yield Scene(provider, stt, turns)
    finally:
        await provider.aclose()


def on_a_line(pcm, noise):
    """Return `pcm` as it sounds with some hiss, `noise` of 32768."""
    hiss = np.random.default_rng(noise).standard_normal(len(pcm) // 2) * noise
    return (np.frombuffer(pcm, "<i2") + hiss).clip(-32_768, 32_767).astype("<i2").tobytes()


def test_wherever_a_worker_is_killed_every_word_is_heard_once(voice, grammar):
    pcm = voice.say("friday evening at seven thirty") + voice.say("for two people")

    async def story():
        async with hearing(LocalProvider({}), Stt(provider="local", grammar=grammar)) as scene:
            expected = (await scene.undisturbed(pcm)).words
            assert [text for _, text in expected] == ["friday evening at seven thirty", "for two people"]
            frames = len(pcm) // 512
            for at in range(frames // 11, frames, frames // 11)[:10]:
                first, second = await scene.with_a_kill(pcm, at)
                assert first.words + second.words == expected, f"killed at frame {at} of {frames}"

    asyncio.run(story())


@pytest.mark.parametrize("noise", [0, 30, 150, 400])
@pytest.mark.parametrize("silence_ms", [200, 600])
def test_a_successor_names_utterances_as_the_one_before_would_have(voice, phrases, noise, silence_ms):
    pcm = on_a_line(b"".join(voice.say(phrase) for phrase in phrases[:4]), noise)

    async def story():
        stt = Stt(provider="bench")
        async with hearing(BenchProvider({}), stt, TurnTaking(endpoint_silence_ms=silence_ms)) as scene:
            whole = await scene.undisturbed(pcm)
            onsets = [(started.utterance, started.onset_at) for started in whole.of(SpeechStarted)]
            assert len(onsets) >= 4
            for ended in whole.of(TurnEnded):
                worker = await Worker(2, scene.provider, stt, scene.turns).begin()
                await worker.hear(pcm, ended.committed + 1, len(pcm) // 512, Flag.REPLAY)
                again = [(started.utterance, started.onset_at) for started in worker.told.of(SpeechStarted)]
                assert again == [onset for onset in onsets if onset[0] > ended.utterance]
                await worker.hearing.close("done", goes_on=False)

    asyncio.run(story())


def test_an_utterance_that_ended_long_ago_ends_at_once_when_it_is_heard_again(voice):
    said = voice.say("yes please")
    pcm = said + bytes(32_000)

    async def story():
        async with hearing(BenchProvider({}), Stt(provider="bench")) as scene:
            worker = await Worker(2, scene.provider, scene.stt, scene.turns).begin()
            await worker.hear(pcm, 0, len(pcm) // 512, Flag.REPLAY)
            await worker.hearing.rest()
            (ended,) = worker.told.of(TurnEnded)
            assert ended.committed < len(said) // 512  # counted in what was heard, however fast that came
            await worker.hearing.close("done", goes_on=False)

    asyncio.run(story())
