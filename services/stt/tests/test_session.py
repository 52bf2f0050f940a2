"""One call with a scripted detector and provider: what is told, in which order, with which times."""

import asyncio
import gc
import json
import weakref

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from trunkline.proto.agent import Agent, Stt, TurnTaking
from trunkline.proto.events import StageSettled
from trunkline.proto.frame import Codec, MediaFrame, pack_media
from trunkline.proto.messages import Claim, FinalTranscript, PartialTranscript, SpeechStarted, SpeechStopped, TurnEnded
from trunkline.providers.breaker import BreakerRules
from trunkline.providers.errors import Transient
from trunkline.providers.health import Health
from trunkline.providers.prices import Price, Prices
from trunkline.runtime.clock import SYSTEM
from trunkline.runtime.journal import Journal
from trunkline.stt.cadence import Cadence
from trunkline.stt.intake import pcm16_of
from trunkline.stt.metrics import SttMetrics
from trunkline.stt.provider import Failed, Final, Partial, SttCapabilities, TurnOver
from trunkline.stt.relay import Lender
from trunkline.stt.session import CallHearing, Surroundings
from trunkline.stt.settings import SttSettings
from trunkline.stt.vad import VoiceDetector
from trunkline.testing.patience import PATIENCE_S

pytestmark = pytest.mark.unit

T0_US = 1_700_000_000_000_000
TURNS = TurnTaking(endpoint_silence_ms=320)


class Collected:
    """Takes the place of the bus."""

    def __init__(self):
        self.published = []

    @property
    def messages(self):
        """What is told of the caller's speech, but for the note that the words are being found."""
        speech = [message for subject, message in self.published if subject == "call.c.speech"]
        return [message for message in speech if not isinstance(message, SpeechStopped)]

    def put(self, subject, message, stands=lambda: True):
        self.published.append((subject, message))
        self.stands = stands

    async def flush(self):
        pass


class Facts:
    """Takes the place of the event log."""

    def __init__(self):
        self.emitted = []

    def emit(self, call, fact, tenant):
        del call, tenant
        self.emitted.append(fact)

    async def flush(self):
        pass


class Ear:
    """A stream that notes what it is given."""

    def __init__(self):
        self.calls = []
        self.pcm = b""
        self.given_up = asyncio.Event()

    def begin(self, utterance):
        self.calls.append(("begin", utterance))
        self.pcm = b""

    def push(self, pcm, *, voiced):
        assert isinstance(voiced, bool)
        self.pcm += pcm

    def finish(self):
        self.calls.append(("finish", len(self.pcm) // 512))

    def give_up(self, utterance):
        self.calls.append(("give up", utterance))
        self.given_up.set()

    async def aclose(self):
        self.calls.append(("close",))


class Call:
    def __init__(self, capabilities=None, settings=None, journal=""):
        self.metrics = SttMetrics(CollectorRegistry())
        self.detector = VoiceDetector(2)
        self.outbox = Collected()
        self.cadence = Cadence(self.detector, SYSTEM, self.metrics)
        health = Health("stt", BreakerRules(), SYSTEM.monotonic, CollectorRegistry())
        self.facts = Facts()
        prices = Prices(as_of="2025-01-01", price=(Price(provider="acme", model="", audio_minute=6.0),))
        settings = settings or SttSettings()
        shared = Surroundings(
            self.detector,
            self.cadence,
            self.outbox,
            SYSTEM,
            self.metrics,
            settings,
            self.facts,
            health,
            prices,
            Journal(journal, "stt-x"),
        )
        claim = Claim(call="c", stage="stt", epoch=4, edge="edge-a", agent=Agent(name="a", turns=TURNS))
        self.hearing = CallHearing(claim, shared)
        self.ear = Ear()
        self.capabilities = capabilities or SttCapabilities()
        self.seq = 0

    async def begin(self):
        async def lend(on_heard):
            self.tell = on_heard
            return self.ear, self.capabilities

        await self.hearing.listen([Lender(Stt(provider="acme"), lend)])
        return self

    def hear(self, *probabilities):
        """Deliver frames, each judged as told."""
        for probability in probabilities:
            self.frame()
            frame = self.hearing.frame()
            self.hearing.judged(frame, pcm16_of([frame])[0], probability)

    def frame(self, epoch=4, payload=b"\1\0" * 256):
        frame = MediaFrame(Codec.PCM16, 8_000, 0, epoch, self.seq, T0_US + self.seq * 32_000, payload)
        self.hearing.on_frame(pack_media(frame))
        self.seq += epoch == 4

    @property
    def told(self):
        return [type(message) for message in self.outbox.messages]


def in_loop(story):
    async def run():
        call = await Call().begin()
        story(call)
        await call.hearing.close("done", goes_on=False)

    asyncio.run(run())


def test_a_call_that_is_forgotten_is_freed_without_the_collector():
    async def story():
        call = await Call().begin()
        call.hear(*SPEECH)
        call.hearing.on_heard(Final(20, "yes please", 0.5))
        await call.hearing.close("done", goes_on=False)
        known = weakref.ref(call.hearing._intake), weakref.ref(call.hearing._stream)
        call.hearing.forget()
        del call.tell
        assert [one() for one in known] == [None, None]

    gc.disable()
    try:
        asyncio.run(story())
    finally:
        gc.enable()


SPEECH = [0.0] * 20 + [0.9] * 10 + [0.0] * 10


def test_an_utterance_is_told_as_it_begins_and_when_its_words_stand():
    def story(call):
        call.hear(*SPEECH)
        assert call.told == [SpeechStarted]
        call.hearing.on_heard(Final(20, "yes please", 0.5))
        started, final, ended = call.outbox.messages
        # The voice is in frames 20 to 29, from the first sample to the last; a frame tells when its last was captured.
        onset_at, offset_at = (T0_US + 20 * 32_000) / 1e6 - 0.032, (T0_US + 29 * 32_000) / 1e6
        assert isinstance(started, SpeechStarted)
        assert (started.epoch, started.utterance, started.onset_at) == (4, 20, onset_at)
        assert started.judged_at > onset_at
        assert isinstance(final, FinalTranscript)
        assert (final.text, final.onset_at, final.offset_at) == ("yes please", onset_at, offset_at)
        assert final.committed == 39  # whoever takes over begins to hear where the end was judged
        assert final.confidence == 0.5
        assert isinstance(ended, TurnEnded)
        assert ended.speech_ended_at == offset_at
        assert ended.speech_ended_at < ended.endpoint_at <= ended.final_at

    in_loop(story)


def test_once_an_utterance_is_over_the_detector_hears_as_a_successors_would():
    def story(call):
        noise = np.random.default_rng(1).integers(-9_000, 9_000, 256).astype("<i2").tobytes()
        fresh, used = (call.detector.probabilities([call.hearing.row], [noise]) for _ in range(2))
        assert used != pytest.approx(fresh, abs=1e-3)
        call.hear(*SPEECH)
        assert call.detector.probabilities([call.hearing.row], [noise]) == pytest.approx(fresh, abs=1e-6)

    in_loop(story)


def test_the_recogniser_gets_300_ms_before_the_onset_and_the_silence_after():
    def story(call):
        call.hear(*SPEECH)
        assert call.ear.calls == [("begin", 20), ("finish", 9 + 10 + 10)]

    in_loop(story)


def test_what_was_heard_once_is_not_handed_over_again():
    def story(call):
        # 30 s of voice are cut, and go on without a pause.
        call.hear(*[0.9] * 1_000)
        assert call.ear.calls[:3] == [("begin", 0), ("finish", 938), ("begin", 938)]
        assert len(call.ear.pcm) // 512 == 1_000 - 938

    in_loop(story)


def test_a_provider_that_wants_everything_gets_everything():
    async def run():
        call = await Call(SttCapabilities(needs_vad_segments=False)).begin()
        call.hear(*[0.0] * 7)
        assert len(call.ear.pcm) == 7 * 512
        assert call.ear.calls == []

    asyncio.run(run())


def test_sound_without_words_ends_the_turn_without_a_final():
    def story(call):
        call.hear(*SPEECH)
        call.hearing.on_heard(Final(20, ""))
        assert call.told == [SpeechStarted, TurnEnded]

    in_loop(story)


def test_a_provider_that_fails_ends_the_turn_without_a_final_and_is_counted():
    def story(call):
        call.hear(*SPEECH)
        call.hearing.on_heard(Failed(20, Transient("the line to the provider broke")))
        call.hearing.on_heard(Final(20, "too late"))
        assert call.told == [SpeechStarted, TurnEnded]
        assert call.metrics.counts["finals_missing"] == 1
        assert call.metrics.counts["words_late"] == 1

    in_loop(story)


def test_partials_are_told_when_they_say_something_new():
    def story(call):
        call.hear(*SPEECH[:25])
        for text in ("yes", "yes", "", "yes please"):
            call.hearing.on_heard(Partial(20, text))
        assert [m.text for m in call.outbox.messages if isinstance(m, PartialTranscript)] == ["yes", "yes please"]

    in_loop(story)


def test_utterances_are_told_in_the_order_in_which_they_were_spoken():
    def story(call):
        call.hear(*SPEECH, *SPEECH)
        assert call.told == [SpeechStarted, SpeechStarted]
        second = call.outbox.messages[1].utterance
        call.hearing.on_heard(Final(second, "two"))
        assert len(call.told) == 2
        call.hearing.on_heard(Final(20, "one"))
        assert [m.text for m in call.outbox.messages if isinstance(m, FinalTranscript)] == ["one", "two"]
        assert call.told[2:] == [FinalTranscript, TurnEnded, FinalTranscript, TurnEnded]

    in_loop(story)


def test_malformed_frames_are_counted_and_logged_once(caplog):
    def story(call):
        for _ in range(3):
            call.hearing.on_frame(b"not a frame")
        assert call.metrics.frames["malformed"] == 3
        assert [record.message for record in caplog.records] == ["malformed frame; further ones are counted only"]
        call.hear(*SPEECH)
        assert call.told == [SpeechStarted]

    in_loop(story)


def test_frames_of_another_epoch_and_gaps_are_counted():
    def story(call):
        call.frame(epoch=3)
        call.frame()
        call.seq += 5
        call.frame()
        assert call.metrics.frames == {"fenced": 1, "kept": 2, "missing": 5}

    in_loop(story)


def test_a_stream_that_breaks_off_ends_the_utterance():
    def story(call):
        call.hear(*SPEECH[:25])
        call.seq += 1_000
        call.frame()
        assert call.ear.calls[-1][0] == "finish"

    in_loop(story)


def test_an_overfull_backlog_is_dropped_and_the_call_heard_on():
    async def run():
        call = await Call().begin()
        while not call.metrics.frames["broken"]:
            call.frame()
        assert call.hearing.frame().seq == call.seq - 1
        assert call.hearing.frame() is None
        await call.cadence.beat()
        call.hear(*SPEECH)
        assert call.told == [SpeechStarted]
        assert not call.metrics.counts["calls_failed"]

    asyncio.run(run())


def test_words_that_do_not_come_in_time_are_given_up_with_the_provider():
    async def run():
        call = await Call(settings=SttSettings(final_timeout_ms=100)).begin()
        call.hear(*SPEECH)
        await asyncio.wait_for(call.ear.given_up.wait(), PATIENCE_S)
        assert call.ear.calls[-1] == ("give up", 20)
        assert call.told == [SpeechStarted, TurnEnded]
        assert call.metrics.counts["finals_missing"] == 1

    asyncio.run(run())


def test_after_the_close_nothing_is_told():
    def story(call):
        call.hear(*SPEECH)

    async def run():
        call = await Call().begin()
        story(call)
        await call.hearing.close("call-ended", goes_on=False)
        await call.hearing.close("again", goes_on=True)
        call.hearing.on_heard(Final(20, "yes"))
        assert call.told == [SpeechStarted]
        assert call.ear.calls.count(("close",)) == 1

    asyncio.run(run())


def test_the_end_of_the_speech_is_told_before_its_words_are_known():
    def story(call):
        call.hear(*SPEECH)
        (stopped,) = (m for _, m in call.outbox.published if isinstance(m, SpeechStopped))
        call.hearing.on_heard(Final(20, "yes"))
        assert call.outbox.messages[-1].endpoint_at == stopped.endpoint_at

    in_loop(story)


def test_a_turn_whose_words_nobody_could_find_is_told_as_failed():
    def story(call):
        call.hear(*SPEECH, *SPEECH)
        call.hearing.on_heard(Failed(20, Transient("no")))
        call.hearing.on_heard(Final(60, ""))
        assert [m.failed for m in call.outbox.messages if isinstance(m, TurnEnded)] == [True, False]

    in_loop(story)


def test_a_provider_may_judge_that_the_turn_is_over_before_the_silence_does():
    def story(call):
        call.hear(*SPEECH[:32])
        call.hearing.on_heard(TurnOver(20))
        call.hearing.on_heard(TurnOver(20))
        assert [what for what, _ in call.ear.calls] == ["begin", "finish"]

    in_loop(story)


def test_what_was_used_is_told_with_its_price():
    async def run():
        call = await Call(SttCapabilities(needs_vad_segments=False)).begin()
        call.hear(*[0.0] * 100)
        assert not call.outbox.published  # it has not shown yet that it hears
        call.tell(Partial(1, "hm"))
        call.hear(*[0.0] * 300)
        await call.hearing.close("done", goes_on=False)
        used = [m for subject, m in call.outbox.published if subject == "call.c.usage"]
        assert [round(m.audio_s, 2) for m in used] == [5.12, 10.24, 12.8]
        assert used[-1].usd == pytest.approx(12.8 / 60 * 6.0)

    asyncio.run(run())


def test_the_end_of_every_turn_tells_what_need_not_be_heard_again():
    def story(call):
        call.hear(*SPEECH, *SPEECH, *SPEECH)
        first, second, third = [m.utterance for m in call.outbox.messages if isinstance(m, SpeechStarted)]
        call.hearing.on_heard(Final(first, "yes"))
        call.hearing.on_heard(Final(second, ""))
        call.hearing.on_heard(Failed(third, Transient("no")))
        committed = [m.committed for m in call.outbox.messages if isinstance(m, TurnEnded)]
        assert committed[0] == call.outbox.messages[3].committed
        assert first < committed[0] < second < committed[1] < third < committed[2]

    in_loop(story)


def test_it_rests_when_all_that_was_said_is_told():
    async def run():
        call = await Call().begin()
        await call.hearing.rest()
        call.hear(*SPEECH[:25])
        resting = asyncio.create_task(call.hearing.rest())
        await asyncio.sleep(0)
        call.hear(*SPEECH[25:])
        await asyncio.sleep(0)
        assert not resting.done()
        call.hearing.on_heard(Final(20, "yes"))
        await resting
        await call.hearing.close("done", goes_on=False)

    asyncio.run(run())


def test_what_is_not_published_when_somebody_else_hears_the_call_is_theirs_to_tell():
    async def run(*, goes_on):
        call = await Call().begin()
        call.hear(*SPEECH)
        assert call.outbox.stands()
        stands = call.outbox.stands
        await call.hearing.close("deposed", goes_on=goes_on)
        return stands()

    assert asyncio.run(run(goes_on=False))
    assert not asyncio.run(run(goes_on=True))


@pytest.mark.parametrize(("reason", "goes_on", "stored"), [("edge-lost", False, 1), ("handed-over", True, 0)])
def test_only_who_lost_its_edge_stores_what_it_used(reason, goes_on, stored):
    async def run():
        call = await Call(SttCapabilities(needs_vad_segments=False)).begin()
        call.tell(Partial(1, "hm"))
        call.hear(*[0.0] * 200)
        await call.hearing.close(reason, goes_on=goes_on)
        used = [m for subject, m in call.outbox.published if subject == "call.c.usage"]
        assert call.facts.emitted == [StageSettled(stage="stt", epoch=4, used=(used[-1],))] * stored

    asyncio.run(run())


def test_frames_and_words_are_in_the_journal(tmp_path):
    async def run():
        call = await Call(journal=str(tmp_path)).begin()
        call.frame(epoch=3)
        call.hear(*SPEECH)
        call.hearing.on_heard(Final(20, "yes"))
        await call.hearing.close("done", goes_on=False)
        return call.seq

    frames = asyncio.run(run())
    (file,) = tmp_path.iterdir()
    noted = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["epoch"], line["seq"]) for line in noted if line["what"] == "heard"] == [
        (4, seq) for seq in range(frames)
    ]
    (final,) = [line for line in noted if line["what"] == "final"]
    assert (final["epoch"], final["utterance"], final["length"], final["committed"]) == (4, 20, 3, 39)
