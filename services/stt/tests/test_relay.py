"""One ear after the other: no word is lost, and none is told twice."""

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from trunkline.proto.agent import Stt, Timeouts
from trunkline.proto.ids import Epoch
from trunkline.providers.breaker import BreakerRules
from trunkline.providers.course import RetryRules
from trunkline.providers.errors import Misconfigured, Transient, Unauthorised
from trunkline.providers.health import Health
from trunkline.providers.prices import Prices
from trunkline.providers.usage import Meter
from trunkline.stt.provider import Billed, Failed, Final, Lost, Partial, SttCapabilities, TurnOver
from trunkline.stt.relay import BYTES_PER_S, Lender, Means, Relay
from trunkline.testing.patience import until

pytestmark = pytest.mark.integration  # real time-outs, some tens of milliseconds each

FRAME = b"\x01\x00" * 256  # 32 ms
QUICK = Timeouts(connect_ms=50, first_ms=60, stall_ms=150)
CONTINUOUS = SttCapabilities(interim_results=True, needs_vad_segments=False)
SEGMENTS = SttCapabilities()


class Ear:
    """A provider's stream whose words are the bytes it was given; it fails as it is told."""

    def __init__(self, on_heard, mode):
        self.tell = on_heard
        self.mode = mode
        self.heard = {}
        self.open = None
        self.total = 0
        self.closed = False
        if mode == "lost-at-once":
            on_heard(Lost(Transient("refused", "connect")))

    def begin(self, utterance):
        self.open = utterance
        self.heard[utterance] = 0

    def push(self, pcm, *, voiced):  # noqa: ARG002 - the seam's
        self.total += len(pcm)
        if self.open is None:
            return
        self.heard[self.open] += len(pcm)
        if self.mode == "drops" and self.heard[self.open] >= 3 * len(FRAME):
            self.tell(Lost(Transient("reset", "dropped")))
        elif self.mode in {"works", "deaf-at-end"}:
            self.tell(Partial(self.open, f"{self.heard[self.open]}"))

    def finish(self):
        utterance, self.open = self.open, None
        if utterance is None:
            return
        if self.mode == "works":
            self.tell(Final(utterance, f"{self.heard[utterance]} bytes"))
        elif self.mode == "fails":
            self.tell(Failed(utterance, Transient("no", "server")))

    def give_up(self, utterance):
        pass

    async def aclose(self):
        self.closed = True


class Scene:
    """A relay and everybody around it."""

    def __init__(self, *modes, capabilities=CONTINUOUS, give_up_s=60.0, breaker=None):
        self.health = Health("stt", breaker or BreakerRules(), time.monotonic, CollectorRegistry())
        self.facts, self.told, self.ears = [], [], []
        self.modes = [list(mode) if isinstance(mode, tuple) else [mode] for mode in modes]
        self.capabilities = capabilities
        self.meter = Meter("stt", Epoch(1), Prices(as_of="2025-01-01"))
        rules = RetryRules(tries=2, backoff_s=0.01, give_up_s=give_up_s)
        self.passed_s = 0.0
        means = Means(self.health, rules, self.now, self.meter, self.facts.append)
        self.relay = Relay([self.lender(number) for number in range(len(modes))], means, self.told.append)

    def now(self):
        return time.monotonic() + self.passed_s

    def hear(self, frames, *, in_real_time=True):
        for _ in range(frames):
            self.relay.push(FRAME, voiced=True)
            self.passed_s += in_real_time * len(FRAME) / BYTES_PER_S

    def lender(self, number):
        async def lend(on_heard):
            modes = self.modes[number]
            mode = modes.pop(0) if len(modes) > 1 else modes[0]
            if mode == "unusable":
                raise Misconfigured("stt.model", "is not there")
            ear = Ear(on_heard, mode)
            self.ears.append((number, ear))
            return ear, self.capabilities

        return Lender(Stt(provider=f"p{number}", timeouts=QUICK), lend)

    def speak(self, utterance, frames=5, lead=FRAME * 2, *, in_real_time=True):
        self.relay.push(lead, voiced=True)
        self.relay.begin(utterance, lead)
        self.hear(frames, in_real_time=in_real_time)

    @property
    def finals(self):
        return [(heard.utterance, heard.text) for heard in self.told if isinstance(heard, Final)]


def play(scene, story):
    async def live():
        await scene.relay.start()
        await story()
        await scene.relay.aclose()
        await asyncio.sleep(0)
        return len(asyncio.all_tasks())

    assert asyncio.run(live()) == 1
    assert all(ear.closed for _, ear in scene.ears)


WHOLE = f"{7 * len(FRAME)} bytes"


@pytest.mark.parametrize("capabilities", [CONTINUOUS, SEGMENTS])
@pytest.mark.parametrize("mode", ["drops", "fails", "lost-at-once", "deaf-at-end"])
def test_whatever_goes_wrong_the_next_one_hears_the_whole_utterance(mode, capabilities):
    scene = Scene(mode, "works", capabilities=capabilities)

    async def story():
        scene.speak(1)
        scene.relay.finish()
        await until(lambda: scene.finals)

    play(scene, story)
    heard = f"{5 * len(FRAME)} bytes" if scene.ears[-1][0] == 0 and capabilities is CONTINUOUS else WHOLE
    assert scene.finals == [(1, heard)]
    assert scene.facts[0].provider == "p0"
    assert scene.facts[-1].then == "fallback"


def test_voice_without_words_replaces_the_ear_once():
    scene = Scene("silent", "works")

    async def story():
        scene.speak(1, frames=7)
        await until(lambda: len(scene.ears) == 2)
        scene.relay.finish()
        await until(lambda: scene.finals)

    play(scene, story)
    assert scene.finals == [(1, f"{9 * len(FRAME)} bytes")]
    assert scene.facts[0].kind == "silent"


def test_voice_that_is_heard_again_in_a_burst_says_nothing_about_the_ear():
    scene = Scene("silent", "works")

    async def story():
        scene.speak(1, frames=50, in_real_time=False)
        await asyncio.sleep(0.02)

    play(scene, story)
    assert [number for number, _ in scene.ears] == [0]


def test_two_ears_that_hear_no_words_in_it_are_believed():
    scene = Scene("silent", "silent", "works")

    async def story():
        scene.speak(1, frames=7)
        await until(lambda: len(scene.ears) == 2)
        scene.hear(20)
        await asyncio.sleep(0.02)

    play(scene, story)
    assert [number for number, _ in scene.ears] == [0, 1]


def test_an_ear_lost_between_utterances_is_replaced_before_the_next():
    scene = Scene(("works", "works"))

    async def story():
        scene.speak(1)
        scene.relay.finish()
        scene.ears[0][1].tell(Lost(Transient("idle", "dropped")))
        await until(lambda: len(scene.ears) == 2)
        scene.speak(2)
        scene.relay.finish()
        await until(lambda: len(scene.finals) == 2)

    play(scene, story)
    assert [utterance for utterance, _ in scene.finals] == [1, 2]
    assert [fact.then for fact in scene.facts] == ["retry"]


def test_who_took_over_stays():
    scene = Scene("fails", "works")

    async def story():
        for utterance in (1, 2, 3):
            scene.speak(utterance)
            scene.relay.finish()
            await until(lambda count=utterance: len(scene.finals) == count)

    play(scene, story)
    assert scene.ears[-1][0] == 1
    assert len([number for number, _ in scene.ears if number == 1]) == 1


def test_when_nobody_hears_the_utterance_fails_and_the_next_one_is_tried_again():
    scene = Scene(("fails", "fails", "works"), give_up_s=0.5)

    async def story():
        scene.speak(1)
        scene.relay.finish()
        await until(lambda: scene.finals or any(isinstance(heard, Failed) for heard in scene.told))
        scene.speak(2)
        scene.relay.finish()
        await until(lambda: any(utterance == 2 for utterance, _ in scene.finals))

    play(scene, story)


def test_a_dead_service_is_told_as_failed_and_not_waited_for():
    scene = Scene("lost-at-once", give_up_s=0.3)

    async def story():
        scene.speak(1)
        scene.relay.finish()
        await until(lambda: any(isinstance(heard, Failed) for heard in scene.told))

    play(scene, story)
    assert len(scene.ears) <= 4  # the breaker


def test_a_wrong_key_is_not_tried_twice():
    scene = Scene("works", "works")

    async def story():
        scene.speak(1)
        scene.ears[0][1].tell(Lost(Unauthorised("who?")))
        scene.relay.finish()
        await until(lambda: scene.finals)

    play(scene, story)
    assert [number for number, _ in scene.ears] == [0, 1]


def test_an_ear_that_cannot_be_lent_is_passed_over():
    scene = Scene("unusable", "works")

    async def story():
        scene.speak(1)
        scene.relay.finish()

    play(scene, story)
    assert scene.finals == [(1, f"{5 * len(FRAME)} bytes")]


def test_no_ear_at_all_is_said_at_the_start():
    scene = Scene("unusable", "unusable")
    with pytest.raises(Misconfigured, match=r"stt\.model"):
        asyncio.run(scene.relay.start())


def test_a_turn_that_the_provider_ends_is_passed_on_and_what_it_bills_is_counted():
    scene = Scene("works", capabilities=SttCapabilities(needs_vad_segments=False, usage=True, turn_events=True))

    async def story():
        scene.speak(1)
        tell = scene.ears[0][1].tell
        tell(TurnOver(1))
        for audio_s in (1.0, 2.5, 2.5):
            tell(Billed(audio_s))

    play(scene, story)
    assert TurnOver(1) in scene.told
    (used,) = scene.meter.used()
    assert (used.audio_s, used.estimated) == (2.5, False)


def test_audio_is_counted_for_those_who_do_not_bill_and_twice_when_heard_twice():
    scene = Scene("deaf-at-end", "works", capabilities=SEGMENTS)

    async def story():
        scene.speak(1)
        scene.relay.finish()
        await until(lambda: scene.finals)

    play(scene, story)
    counted = {used.provider: used.audio_s for used in scene.meter.used()}
    assert counted == {"p0": pytest.approx(0.224), "p1": pytest.approx(0.224)}


@settings(max_examples=25)
@given(st.lists(st.sampled_from(["works", "drops", "fails", "lost-at-once", "deaf-at-end"]), min_size=2, max_size=6))
def test_no_utterance_is_ever_told_twice_or_left_without_an_end(modes):
    scene = Scene(tuple(modes), (*modes[1:], "works"), give_up_s=0.4, breaker=BreakerRules(failures=100))

    async def story():
        for utterance in (1, 2):
            scene.speak(utterance, frames=4)
            scene.relay.finish()
            await until(
                lambda u=utterance: any(
                    isinstance(heard, Final | Failed) and heard.utterance == u for heard in scene.told
                )
            )

    play(scene, story)
    ends = [heard.utterance for heard in scene.told if isinstance(heard, Final | Failed)]
    assert ends == [1, 2]


def test_an_ear_that_its_breaker_leaves_alone_is_not_asked_by_new_calls():
    scene = Scene("works", "works", breaker=BreakerRules(failures=1))
    scene.health.began("p0")
    scene.health.failed("p0", Transient("x"))

    async def story():
        scene.speak(1)
        scene.relay.finish()

    play(scene, story)
    assert [number for number, _ in scene.ears] == [1]
