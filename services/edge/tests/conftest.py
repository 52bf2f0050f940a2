"""A real edge on a real nats-server, with small workers that speak the real contract, and callers who are Twilio."""

import asyncio
import contextlib
import logging
from collections import defaultdict

import numpy as np
import pytest

from trunkline.audio.g711 import mulaw_to_pcm16, pcm16_to_mulaw
from trunkline.bus import Bus, Unservable, Worker, calls, clips, ensure_events_stream, event_reader, streams
from trunkline.edge import __main__ as edge_main
from trunkline.edge import exchange, own
from trunkline.edge.settings import EdgeSettings
from trunkline.proto import codec, subjects
from trunkline.proto.events import CallEnded
from trunkline.proto.frame import AudioChunk, Codec, Flag, pack_audio, unpack_media
from trunkline.proto.ids import call_id_of, new_worker_id
from trunkline.proto.messages import Interrupt, Say
from trunkline.runtime.process import Chassis
from trunkline.runtime.settings import BaseSettings, load
from trunkline.testing.nats_server import run_nats
from trunkline.testing.patience import PATIENCE_S, until
from trunkline.testing.twilio import Dial, Uttered, new_call_sid, place

AGENT = """name = "restaurant"
{lines}
[limits]
max_duration_s = {max_duration_s}
{limits}
[[tools]]
name = "slow"
timeout_s = 3.0
"""
CHUNK_MS = 100


class Held:
    """A call, as one of the workers here holds it."""

    def __init__(self, stage, claim):
        self.stage = stage
        self.claim = claim
        self.closed = None
        self.sent = []

    async def close(self, reason, *, goes_on):
        await asyncio.sleep(self.stage.slow_to_close_s)
        self.closed = reason
        self.goes_on = goes_on
        self.stage.closed[self.claim.call] = reason

    async def rest(self):
        await self.stage.resting.wait()

    def forget(self):
        self.sent.clear()


class Stage:
    """One worker of one stage."""

    def __init__(self, name, bus, capacity=50):
        self.name = name
        self.bus = bus
        self.claims = []
        self.held = {}
        self.closed = {}
        self.refusal = None
        self.slow_to_close_s = 0.0
        self.resting, self.may_open = asyncio.Event(), asyncio.Event()
        self.resting.set()
        self.may_open.set()
        self.worker = Worker(bus, stage=name, worker=new_worker_id(name), capacity=capacity, open_call=self.open_call)

    async def open_call(self, claim):
        self.claims.append(claim)
        await self.may_open.wait()
        if self.refusal is not None:
            raise self.refusal
        held = self.held[claim.call] = Held(self, claim)
        await self.opened(held)
        return held

    async def opened(self, held):
        pass

    async def fall_silent(self):
        """Beat no more and take no more calls, as a process that hangs."""
        await self.take_no_more()
        await self.worker._heartbeat.stop()

    async def take_no_more(self):
        """Leave those who are asked for room, as a worker under strain."""
        self.worker._draining = True
        await self.worker._settle_membership()

    async def take_more(self):
        """Come back to them."""
        self.worker._draining = False
        await self.worker._settle_membership()


class Ears(Stage):
    """STT that keeps what it hears."""

    def __init__(self, bus):
        super().__init__("stt", bus)
        self.frames = defaultdict(list)

    async def start(self):
        await self.bus.media.subscribe(subjects.media_of(self.worker.worker), self.on_frame)
        await self.worker.start()

    def on_frame(self, subject, data):
        self.frames[subjects.last_token(subject)].append(unpack_media(data))

    def heard(self, call):
        """Return the caller's samples, PCM16."""
        return b"".join(
            mulaw_to_pcm16(frame.payload) if frame.codec is Codec.MULAW else frame.payload
            for frame in self.frames[call]
        )


def in_order(handle):
    """Return a plain function whose calls are handled by the coroutine function `handle`, one after the other."""
    waiting = asyncio.Queue()

    async def work():
        while True:
            await handle(*await waiting.get())

    working = asyncio.create_task(work())

    def take(*arguments):
        assert not working.done()
        waiting.put_nowait(arguments)

    return take


class Voice(Stage):
    """TTS that says a tone of `tone_ms` for every sentence, in chunks, as fast as it can."""

    def __init__(self, bus):
        super().__init__("tts", bus)
        self.tone_ms = 400
        self.rate_hz = 8000
        self.lost = set()
        self.asked = []
        self.deaf = False

    async def start(self):
        await self.bus.subscribe(subjects.missed(self.worker.worker), in_order(self.on_missed))
        await self.worker.start()

    async def on_missed(self, _subject, data):
        missed = codec.decode(codec.MISSED, data)
        self.asked.append((missed.epoch, missed.seq))
        held = self.held[missed.call]
        for subject, chunk in [] if self.deaf else held.sent[missed.seq :]:
            await self.bus.media.publish_frame(subject, chunk)

    async def opened(self, held):
        async def on_say(_subject, data):
            await self.say(held, codec.decode(codec.SPEAK, data))

        await self.bus.subscribe(subjects.speak(held.claim.call), in_order(on_say))

    async def say(self, held, say, *, epoch=None):
        count = max(1, self.tone_ms // CHUNK_MS)
        for index in range(count):
            payload = np.full(8 * CHUNK_MS, 1_000 * say.utterance, "<i2").tobytes() if self.tone_ms else b""
            chunk = AudioChunk(
                Codec.PCM16,
                self.rate_hz,
                Flag.LAST if index == count - 1 else Flag.NONE,
                held.claim.epoch if epoch is None else epoch,
                len(held.sent) if epoch is None else index,
                1_000_000,
                say.generation,
                say.utterance,
                payload,
            )
            sent = subjects.audio(held.claim.edge, held.claim.call), pack_audio(chunk)
            if epoch is None:
                held.sent.append(sent)
            if chunk.seq not in self.lost:
                await self.bus.media.publish_frame(*sent)


class Mind(Stage):
    """A brain that says `greeting` sentences and then what the test tells it."""

    def __init__(self, bus):
        super().__init__("brain", bus)
        self.greeting = 1
        self.utterances = defaultdict(int)

    async def start(self):
        await self.worker.start()

    async def opened(self, held):
        for _ in range(self.greeting):
            await self.say(held.claim.call, 1)

    async def say(self, call, generation):
        self.utterances[call] += 1
        say = Say(
            epoch=self.held[call].claim.epoch,
            generation=generation,
            utterance=self.utterances[call],
            text="la la la",
        )
        await self.bus.publish(subjects.speak(call), say)

    async def interrupt(self, call, generation, *, epoch=None):
        epoch = self.held[call].claim.epoch if epoch is None else epoch
        await self.bus.publish(
            subjects.interrupt(call), Interrupt(epoch=epoch, generation=generation, reason="barge-in")
        )


PATIENCE_TICKS = round(50 * PATIENCE_S)
"""So much longer than planned nobody stays on the telephone."""


class Speaker:
    """Whoever holds the telephone: says a counted-out 20 ms at a time for `for_s`, then hangs up.

    A machine that stands still for a while makes up for it: the caller's time passes at once, with nothing to hear. So
    who wants to hear something stays `until` it was heard.
    """

    def __init__(self, for_s, digits, until):
        self.ticks = round(for_s * 50)
        self.digits = digits or {}
        self.spoken = 0
        self.heard_ms = 0.0
        self._until = until

    def tick(self, heard):
        self.heard_ms += np.count_nonzero(np.frombuffer(mulaw_to_pcm16(heard.audio), "<i2")) / 8
        self.spoken += 1
        samples = np.full(160, (self.spoken % 200) * 100, "<i2")
        over = self.spoken >= self.ticks and (self._until(self) or self.spoken >= self.ticks + PATIENCE_TICKS)
        return Uttered(pcm16_to_mulaw(samples.tobytes()), self.digits.get(self.spoken, ""), over)


def hears(ms):
    """Stay until so much sound was heard."""
    return lambda speaker: speaker.heard_ms >= ms


class Rig:
    """Everything a story needs."""

    def __init__(self, edge, bus, ears, voice, mind, port):
        self.edge, self.bus, self.ears, self.voice, self.mind, self.port = edge, bus, ears, voice, mind, port
        self.http = f"http://127.0.0.1:{port}"
        self.ws = f"ws://127.0.0.1:{port}/twilio/media-stream"
        self.stories = []
        self.events = []

    @property
    def metrics(self):
        return self.edge.exchange._metrics

    async def watch(self):
        def on_story(subject, data):
            self.stories.append((subject, codec.decode_story(subjects.last_token(subject), data)))

        def on_event(_subject, data):
            self.events.append(codec.decode(codec.EVENT, data))

        await self.bus.subscribe(subjects.STORIES, on_story)
        await self.bus.subscribe(subjects.EVENTS_ALL, on_event)
        await self.bus.flush()

    def dial(self, **changes):
        return Dial(**{"voice_url": f"{self.http}/twilio/voice-hook", "call_sid": new_call_sid()} | changes)

    def call_of(self, dial):
        return call_id_of("twilio", dial.call_sid)

    async def good_call(self, for_s=0.5, digits=None, dial=None, observe=None, until=None):
        """Place a call that lasts until all stages serve it, or `until`; return its id and its recording."""
        dial = dial or self.dial()
        call = self.call_of(dial)
        speaker = Speaker(for_s, digits, until or (lambda _: len(self.told(call, "assigned")) >= 3))
        return call, await place(dial, speaker, observe)

    def told(self, call, topic):
        return [message for subject, message in self.stories if subject == f"call.{call}.{topic}"]

    def facts(self, call):
        return [event.fact for event in self.events if event.call == call]

    async def end_of(self, call):
        """Return the last fact of a call, once it is there."""
        await until(lambda: isinstance([None, *self.facts(call)][-1], CallEnded))
        return self.facts(call)[-1]


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Give what the edge waits for longer than a busy machine stands still, but less than a test's patience."""
    limits = {
        calls: ("FIRST_TIMEOUT_S", "REQUEST_TIMEOUT_S"),
        clips: ("CALL_TIMEOUT_S",),
        event_reader: ("API_TIMEOUT_S",),
        streams: ("API_TIMEOUT_S",),
        exchange: ("_GLANCE_S",),
        own: ("PARTING_SLACK_S",),
    }
    for module, names in limits.items():
        for name in names:
            monkeypatch.setattr(module, name, PATIENCE_S / 3)


@pytest.fixture(scope="session")
def nats():
    with run_nats() as server:
        yield server


@pytest.fixture
def edge_rig(nats, tmp_path):
    """Return a context manager that runs an edge with `environ` on top of the defaults, and its workers."""

    @contextlib.asynccontextmanager
    async def running(*, max_duration_s=60.0, workers=("stt", "tts", "brain"), lines="", limits="", **environ):
        folder = tmp_path / "agents"
        folder.mkdir(exist_ok=True)
        (folder / "restaurant.toml").write_text(AGENT.format(max_duration_s=max_duration_s, lines=lines, limits=limits))
        environ = {
            "TRUNKLINE_NATS_URL": nats.url,
            "TRUNKLINE_AGENTS": str(folder),
            "TRUNKLINE_EDGE_PORT": "0",
            "TRUNKLINE_EDGE_CLAIM_TIMEOUT_MS": "5000",
            "TRUNKLINE_EDGE_REPLAY_MS": "60000",
        } | {f"TRUNKLINE_{name}": value for name, value in environ.items()}
        chassis = Chassis("edge", load(BaseSettings, "TRUNKLINE_", environ))
        settings = load(EdgeSettings, "TRUNKLINE_EDGE_", environ)
        edge = await edge_main.build(settings, chassis, environ)
        bus = await Bus.connect(environ["TRUNKLINE_NATS_URL"], name="test", on_lost=chassis.fail)
        await ensure_events_stream(bus)
        rig = Rig(edge, bus, Ears(bus), Voice(bus), Mind(bus), edge.server.port)
        stages = [stage for stage in (rig.ears, rig.voice, rig.mind) if stage.name in workers]
        for stage in stages:
            await stage.start()
        await edge.start()
        chassis.started = True
        await rig.watch()
        try:
            yield rig
        finally:
            await edge.stop()
            for stage in stages:
                await stage.worker.stop()
            await bus.close()

    return running


@pytest.fixture
def warnings_of(caplog):
    """Return a function that lists the messages logged at warning or above by loggers below `name`."""
    caplog.set_level(logging.WARNING)

    def listed(name="trunkline.edge"):
        return [record.message for record in caplog.records if record.name.startswith(name)]

    return listed


@pytest.fixture
def unservable():
    return Unservable
