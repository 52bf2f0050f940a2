"""The edge and the brain of a call, and providers whose speech can be read.

A `ReadableProvider` says the word ``w7`` as samples of the value 7 (plus 1000 for each provider's own number), so that
what was published tells which words were said, by whom, and for how long.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from trunkline.bus import Bus, EventLog, Heartbeat, clips, event_reader, recorded
from trunkline.proto import codec, subjects
from trunkline.proto.agent import Agent, Timeouts, Tts
from trunkline.proto.events import CallStarted
from trunkline.proto.frame import unpack_audio
from trunkline.proto.ids import new_worker_id
from trunkline.proto.messages import Assigned, Claim, Interrupt, Missed, Release, Say
from trunkline.providers.errors import Misconfigured, Transient
from trunkline.runtime.process import Chassis
from trunkline.runtime.settings import BaseSettings
from trunkline.testing.nats_server import run_nats
from trunkline.testing.patience import PATIENCE_S
from trunkline.tts import voices
from trunkline.tts.provider import Billed, Points, TtsCapabilities, providers
from trunkline.tts.service import TtsService
from trunkline.tts.settings import TtsSettings

BRAIN = 3
WORD_MS = 200
QUICK = Timeouts(connect_ms=200, first_ms=150, stall_ms=150)
PATIENT = Timeouts(connect_ms=60_000, first_ms=60_000, stall_ms=60_000)


def sound_of(word, voice):
    value = voice * 1_000 + (int(word[1:]) if word.startswith("w") and word[1:].isdigit() else 999)
    return np.full(WORD_MS * 8, value, np.int16).tobytes()


def words_in(pcm):
    """Return ``(voice, word, ms)`` of what was said; silence is left out."""
    samples = np.frombuffer(pcm, np.int16)
    runs = [(int(value), len(list(run))) for value, run in itertools.groupby(samples)]
    return [(value // 1_000, value % 1_000, length / 8) for value, length in runs if value]


class ReadableVoice:
    sample_rate_hz = 8_000

    def __init__(self, provider):
        self.provider = provider
        self.closed = False

    async def speak(self, text) -> AsyncGenerator[bytes | Points | Billed, None]:
        provider = self.provider
        fault, words = provider.faults.pop(0) if provider.faults else ("", 0)
        provider.attempts += 1
        provider.speaking += 1
        try:
            if fault == "refuse":
                raise Transient("no", "connect")
            if fault == "hang":
                await asyncio.Event().wait()
            said, sent_ms = "", 0
            async for piece in text:
                provider.given.append(piece)
                for word in piece.split():
                    said = f"{said} {word}".strip()
                    pcm = sound_of(word, provider.number)
                    if fault in {"break", "stall"} and len(said.split()) > words:
                        yield pcm[: len(pcm) // 2]
                        if fault == "stall":
                            await asyncio.Event().wait()
                        raise Transient("gone", "dropped")
                    sent_ms += WORD_MS
                    if provider.capabilities.word_times:
                        yield Points(((len(said), sent_ms),))
                    yield pcm
        finally:
            provider.speaking -= 1

    async def aclose(self):
        self.closed = True


class ReadableProvider:
    """Speaks readably. `faults` are those of the next attempts: ``(what, after how many words)``."""

    def __init__(self, number, name, **capabilities):
        self.number, self.name = number, name
        self.capabilities = TtsCapabilities(**capabilities)
        self.faults = []
        self.given = []
        self.voices = []
        self.warmed = []
        self.attempts = self.speaking = 0
        self.misconfigured = False

    def load(self):
        return lambda _environ: self

    def check(self, tts):
        pass

    async def warm(self, tts):
        self.warmed.append(tts)

    async def open(self, tts):  # noqa: ARG002
        if self.misconfigured:
            raise Misconfigured("tts.voice", "not there")
        self.voices.append(ReadableVoice(self))
        return self.voices[-1]

    async def aclose(self):
        pass


class Call:
    """The edge and the brain of one call, and the one worker that speaks."""

    def __init__(self, bus, chassis, service):
        self.bus, self.chassis, self.service = bus, chassis, service
        self.edge, self.call = new_worker_id("edge"), new_worker_id("call")
        self.heard = asyncio.Queue()
        self.told = asyncio.Queue()
        self.used = asyncio.Queue()
        self.all = []

    async def listen(self):
        def on_told(_subject, data):
            self.told.put_nowait(codec.decode(codec.SPOKEN, data))

        def on_used(_subject, data):
            self.used.put_nowait(codec.decode(codec.USAGE, data))

        await self.bus.media.subscribe(subjects.audio_of(self.edge), self.on_audio)
        await self.bus.media.client.flush()
        await self.bus.subscribe(subjects.spoken(self.call), on_told)
        await self.bus.subscribe(subjects.usage(self.call), on_used)
        await self.bus.flush(PATIENCE_S)

    async def claim(self, provider="local", epoch=2, generation=0, agent=None, **settings):
        settings.setdefault("timeouts", PATIENT)
        agent = agent or Agent(name="test", tts=Tts(provider=provider, **settings))
        claim = Claim(call=self.call, stage="tts", epoch=epoch, edge=self.edge, agent=agent, generation=generation)
        return codec.decode(codec.CLAIM_REPLY, await self.bus.request(subjects.claim("tts"), claim, PATIENCE_S))

    async def release(self, epoch=2):
        reply = await self.bus.request(
            subjects.release(self.service.worker.worker), Release(call=self.call, epoch=epoch), PATIENCE_S
        )
        return codec.decode(codec.RELEASED, reply)

    async def say(self, utterance, text, generation=1, epoch=BRAIN, **more):
        message = Say(epoch=epoch, generation=generation, utterance=utterance, text=text, **more)
        await self.bus.publish(subjects.speak(self.call), message)

    async def interrupt(self, generation, epoch=BRAIN):
        message = Interrupt(epoch=epoch, generation=generation, reason="barge-in")
        await self.bus.publish(subjects.interrupt(self.call), message)

    async def missed(self, seq, epoch=2):
        message = Missed(call=self.call, epoch=epoch, seq=seq)
        await self.bus.publish(subjects.missed(self.service.worker.worker), message)

    async def assigned(self, stage, epoch):
        message = Assigned(stage=stage, epoch=epoch, worker=new_worker_id(stage))
        await self.bus.publish(subjects.assigned(self.call), message)

    def on_audio(self, subject, data):
        assert subject == subjects.audio(self.edge, self.call)
        chunk = unpack_audio(data)
        self.all.append(chunk)
        self.heard.put_nowait(chunk)

    async def chunk(self):
        return await asyncio.wait_for(self.heard.get(), PATIENCE_S)

    async def until_last(self, utterance):
        """Return the chunks of `utterance`, which must not be mixed with others."""
        chunks = []
        while True:
            chunk = await self.chunk()
            assert chunk.utterance == utterance
            chunks.append(chunk)
            if chunk.last:
                return chunks

    async def words(self, utterance):
        """Return the words of `utterance`, see `words_in`."""
        return self.read(await self.until_last(utterance))

    def read(self, chunks):
        """Return the words of `chunks`, see `words_in`."""
        return words_in(b"".join(chunk.payload for chunk in chunks))

    async def tells(self):
        return await asyncio.wait_for(self.told.get(), PATIENCE_S)

    async def uses(self):
        return await asyncio.wait_for(self.used.get(), PATIENCE_S)

    async def facts(self):
        """Return the facts of the call that are stored, behind its beginning."""
        _, *facts = [found.event().fact async for found in recorded(self.bus, call=self.call)]
        return facts

    def counted(self, name, **labels):
        return self.chassis.registry.get_sample_value(f"trunkline_tts_{name}", labels) or 0


@asynccontextmanager
async def call_with(url, *installed, journal="", **settings):
    chassis = Chassis("tts", BaseSettings(nats_url=url, journal=journal))
    service = TtsService(
        chassis,
        await Bus.connect(url, name="tts", on_lost=chassis.fail),
        TtsSettings(**{"give_up_s": PATIENCE_S} | settings),
        providers({}, installed),
    )
    bus = await Bus.connect(url, name="edge", on_lost=chassis.fail)
    call = Call(bus, chassis, service)
    beat = Heartbeat(bus, stage="edge", worker=call.edge, calls=lambda: 1, capacity=1)
    beat.start()
    await call.listen()
    begun = EventLog(bus, time.time)
    begun.emit(call.call, CallStarted(agent="test", carrier="twilio", carrier_call="CA1", edge=call.edge))
    await service.start()
    # nats-py writes a flush's PING ahead of subscriptions it still holds back; a second one comes after them for sure.
    await service.bus.flush(PATIENCE_S)
    try:
        yield call
    finally:
        await service.stop()
        await begun.close()
        await beat.stop()
        await bus.close()
    assert chassis.failure is None


@pytest.fixture
def a_call(monkeypatch):
    """Make a call that a worker with the given providers and settings serves, however long the machine stands still."""
    for where, limit in ((clips, "CALL_TIMEOUT_S"), (event_reader, "API_TIMEOUT_S"), (voices, "OPEN_S")):
        monkeypatch.setattr(where, limit, PATIENCE_S)
    return call_with


@pytest.fixture
def readable():
    """Make a provider whose speech can be read."""
    return ReadableProvider


@pytest.fixture(name="words_in")
def _words_in():
    return words_in


@pytest.fixture
def quick():
    """Time-outs for the impatient."""
    return QUICK


@pytest.fixture
def patient():
    """Time-outs longer than a machine stands still."""
    return PATIENT


@pytest.fixture(scope="module")
def nats_url():
    """A server without JetStream."""
    with run_nats(jetstream=False) as server:
        yield server.url


@pytest.fixture(scope="module")
def jetstream_url():
    """A server with JetStream."""
    with run_nats() as server:
        yield server.url
