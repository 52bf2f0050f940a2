"""Deepgram's ears, through the SDK against the emulator."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import numpy as np
import pytest

from trunkline.proto.agent import Stt, Timeouts
from trunkline.proto.ids import UtteranceId
from trunkline.providers.errors import Misconfigured, ProviderError, Throttled
from trunkline.stt.provider import Final, Heard, Lost, OnHeard, Partial, SttProvider, SttStream, TurnOver
from trunkline.stt.providers.deepgram import DeepgramProvider
from trunkline.stt.providers.flux import FluxProvider
from trunkline.testing.patience import PATIENCE_S, until
from trunkline.testing.providers import Fault, Lines
from trunkline.testing.providers.deepgram import DeepgramEmulator

pytestmark = pytest.mark.integration

FRAME = 256
FIRST, SECOND = UtteranceId(1), UtteranceId(2)
LINES = ["A table for two.", "Tomorrow at eight, please."]
PROVIDERS = [DeepgramProvider, FluxProvider]
PATIENT = Timeouts(connect_ms=60_000)
Make = Callable[[dict[str, str]], SttProvider]


class Call:
    """A caller at one stream, sixteen times faster than life."""

    def __init__(self, emulator: DeepgramEmulator) -> None:
        self.emulator = emulator
        self.heard: list[Heard] = []
        self.stream: SttStream | None = None
        self.pace = 0.002

    @property
    def ear(self) -> SttStream:
        assert self.stream is not None
        return self.stream

    async def hear(self, seconds: float, *, voice: bool) -> None:
        for _ in range(round(seconds * 8_000 / FRAME)):
            tone = (6_000 * np.sin(np.arange(FRAME) * 0.3)) if voice else np.zeros(FRAME)
            self.ear.push(tone.astype("<i2").tobytes(), voiced=voice)
            await asyncio.sleep(self.pace)

    async def utter(self, utterance: UtteranceId, *, seconds: float = 1.5, silence_s: float = 0.6) -> None:
        await self.hear(0.1, voice=True)
        self.ear.begin(utterance)
        await self.hear(seconds - 0.1, voice=True)
        await self.hear(silence_s, voice=False)
        self.ear.finish()

    async def listen_until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not done():
                await self.hear(0.032, voice=False)

    def of(self, kind: type[Heard]) -> list[Heard]:
        return [heard for heard in self.heard if isinstance(heard, kind)]

    @property
    def finals(self) -> list[tuple[int, str]]:
        return [(heard.utterance, heard.text) for heard in self.heard if isinstance(heard, Final)]

    @property
    def lost(self) -> list[ProviderError]:
        return [heard.error for heard in self.heard if isinstance(heard, Lost)]


@asynccontextmanager
async def calling(
    make: Make = DeepgramProvider, stt: Stt | None = None, lines: list[str] | None = None, key: str = "test-key"
) -> AsyncIterator[Call]:
    before = asyncio.all_tasks()
    async with DeepgramEmulator(ear=Lines(LINES if lines is None else lines), final_s=0.03) as emulator:
        provider = make({"DEEPGRAM_API_KEY": key, "DEEPGRAM_BASE_URL": emulator.url})
        call = Call(emulator)
        stt = msgspec.structs.replace(stt or Stt(), timeouts=PATIENT)
        provider.check(stt)
        call.stream = await provider.open(stt, call.heard.append)
        try:
            yield call
        finally:
            await asyncio.wait_for(call.stream.aclose(), PATIENCE_S)
            told = len(call.heard)
            await nothing_but(before)
            await provider.aclose()
    assert len(call.heard) == told


async def nothing_but(before: set["asyncio.Task[object]"]) -> None:
    """Return when no task of a stream is left that was not there before."""
    await until(lambda: not any("deepgram" in task.get_name() for task in asyncio.all_tasks() - before))


@pytest.mark.parametrize("make", PROVIDERS)
def test_the_words_of_two_utterances_come_in_order_with_their_ids(make: Make) -> None:
    async def story() -> None:
        async with calling(make) as call:
            await call.hear(0.5, voice=False)
            await call.utter(FIRST)
            await call.listen_until(lambda: len(call.finals) == 1)
            await call.hear(0.5, voice=False)
            await call.utter(SECOND)
            await call.listen_until(lambda: len(call.finals) == 2)
            assert call.finals == [(FIRST, LINES[0]), (SECOND, LINES[1])]
            partials = [heard for heard in call.heard if isinstance(heard, Partial)]
            assert {partial.utterance for partial in partials} == {FIRST, SECOND}
            assert all(LINES[partial.utterance - 1].startswith(partial.text) for partial in partials)
            final = call.of(Final)[0]
            assert isinstance(final, Final)
            assert [word.text for word in final.words] == LINES[0].split()
            assert final.words[0].start_ms < 200
            assert 1_200 < final.words[-1].end_ms < 1_600
            assert final.confidence is not None
            assert final.confidence > 0.9

    asyncio.run(story())


@pytest.mark.parametrize("make", PROVIDERS)
def test_what_is_said_before_there_is_a_connection_is_heard(make: Make) -> None:
    async def story() -> None:
        async with calling(make) as call:
            call.pace, pace = 0.0, call.pace
            await call.utter(FIRST)
            call.pace = pace
            await call.listen_until(lambda: bool(call.finals))
            assert call.finals == [(FIRST, LINES[0])]

    asyncio.run(story())


def test_a_late_final_is_given_to_its_utterance_and_one_that_was_given_up_to_nobody() -> None:
    async def story() -> None:
        async with calling(stt=Stt(options={"endpointing": False})) as call:
            call.emulator.final_s = 0.9
            await call.utter(FIRST)
            call.ear.give_up(FIRST)
            await call.hear(0.3, voice=False)
            await call.utter(SECOND)
            await call.listen_until(lambda: bool(call.finals))
            assert call.finals == [(SECOND, LINES[1])]

    asyncio.run(story())


def test_two_finals_that_are_late_come_one_after_the_other() -> None:
    async def story() -> None:
        async with calling(stt=Stt(options={"endpointing": False})) as call:
            call.emulator.final_s = 1.0
            await call.utter(FIRST)
            assert not call.finals
            await call.hear(0.2, voice=False)
            await call.utter(SECOND)
            await call.listen_until(lambda: len(call.finals) == 2)
            assert call.finals == [(FIRST, LINES[0]), (SECOND, LINES[1])]

    asyncio.run(story())


def test_a_pause_that_covers_the_utterance_needs_no_answer_to_finalize() -> None:
    async def story() -> None:
        async with calling() as call:
            call.emulator.answers_finalize = False
            await call.hear(0.1, voice=True)
            call.ear.begin(FIRST)
            await call.hear(1.4, voice=True)
            await call.listen_until(lambda: call.ear._pause_s > 0)
            call.ear.finish()
            assert call.finals == [(FIRST, LINES[0])]
            assert call.ear._words.awaited is None  # or else Deepgram is asked

    asyncio.run(story())


def test_an_utterance_without_words_has_an_empty_final() -> None:
    async def story(make: Make) -> None:
        async with calling(make, lines=[]) as call:
            await call.utter(FIRST, seconds=0.5)
            await call.listen_until(lambda: bool(call.finals))
            assert call.finals == [(FIRST, "")]

    asyncio.run(story(DeepgramProvider))
    asyncio.run(story(FluxProvider))


def test_the_turn_is_judged_by_flux_and_its_words_wait_for_the_finish() -> None:
    async def story() -> None:
        async with calling(FluxProvider) as call:
            await call.hear(0.1, voice=True)
            call.ear.begin(FIRST)
            await call.hear(1.4, voice=True)
            await call.listen_until(lambda: bool(call.of(TurnOver)))
            assert call.of(TurnOver) == [TurnOver(FIRST)]
            assert not call.finals
            call.ear.finish()
            assert call.finals == [(FIRST, LINES[0])]
            assert "ForceEndTurn" not in call.emulator.orders

    asyncio.run(story())


def test_a_turn_is_ended_by_order_when_the_voice_detector_is_first() -> None:
    async def story() -> None:
        async with calling(FluxProvider) as call:
            call.emulator.turn_silence_s = 60.0
            await call.utter(FIRST)
            await call.listen_until(lambda: bool(call.finals))
            assert call.finals == [(FIRST, LINES[0])]
            assert call.emulator.orders == ["ForceEndTurn"]
            assert not call.of(TurnOver)

    asyncio.run(story())


def test_the_agent_s_settings_are_asked_for() -> None:
    async def story(make: Make, stt: Stt) -> list[tuple[str, str]]:
        async with calling(make, stt) as call:
            await until(lambda: call.emulator.asked)
            return call.emulator.asked[0]

    nova = Stt(model="nova-3-medical", language="de", keyterms=("Bella Vista", "Sophie"), options={"numerals": True})
    asked = asyncio.run(story(DeepgramProvider, nova))
    assert {("model", "nova-3-medical"), ("language", "de"), ("numerals", "true"), ("encoding", "mulaw")} <= set(asked)
    assert [value for name, value in asked if name == "keyterm"] == ["Bella Vista", "Sophie"]
    flux = Stt(keyterms=("Sophie",), options={"eot_threshold": 0.8})
    asked = asyncio.run(story(FluxProvider, flux))
    assert {("model", "flux-general-en"), ("keyterm", "Sophie"), ("eot_threshold", "0.8")} <= set(asked)


@pytest.mark.parametrize(
    ("make", "stt", "setting"),
    [
        (DeepgramProvider, Stt(options={"endpointig": 10}), "stt.options.endpointig"),
        (DeepgramProvider, Stt(options={"endpointing": "soon"}), "stt.options.endpointing"),
        (DeepgramProvider, Stt(options={"smart_format": 1}), "stt.options.smart_format"),
        (DeepgramProvider, Stt(model="flux-general-en"), "stt.model"),
        (DeepgramProvider, Stt(model="nova-2", keyterms=("Sophie",)), "stt.keyterms"),
        (FluxProvider, Stt(model="nova-3"), "stt.model"),
        (FluxProvider, Stt(model="flux-general-en", language="de"), "stt.language"),
        (FluxProvider, Stt(options={"eot_threshold": 2}), "stt.options.eot_threshold"),
    ],
)
def test_what_cannot_be_honoured_is_named_before_any_call(make: Make, stt: Stt, setting: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        make({"DEEPGRAM_API_KEY": "x"}).check(stt)
    assert refused.value.setting == setting


@pytest.mark.parametrize("make", PROVIDERS)
def test_a_missing_key_is_named(make: Make) -> None:
    with pytest.raises(Misconfigured) as refused:
        make({}).check(Stt())
    assert refused.value.setting == "DEEPGRAM_API_KEY"


def test_silence_on_the_line_does_not_end_the_stream() -> None:
    async def story() -> None:
        async with calling() as call:
            await call.hear(0.2, voice=False)
            await until(lambda: "KeepAlive" in call.emulator.orders)
            assert not call.heard

    asyncio.run(story())


def test_a_stream_closed_by_deepgram_is_lost() -> None:
    async def story() -> None:
        async with calling() as call:
            call.emulator.idle_s = 0.2
            await until(lambda: call.heard)
            [error] = call.lost
            assert error.kind == "dropped"
            assert "NET-0001" in str(error)

    asyncio.run(story())


def test_a_peer_that_takes_nothing_any_more_is_lost() -> None:
    async def story() -> None:
        async with calling() as call:
            await call.emulator.inject(Fault.STALL, after=0)
            await call.utter(FIRST)
            async with asyncio.timeout(PATIENCE_S):
                while not call.lost:  # until every buffer on the way is full, and 2 s more
                    call.ear.push(bytes(16_000 * 9), voiced=False)
                    await asyncio.sleep(0.005)
            assert [error.kind for error in call.lost] == ["dropped"]

    asyncio.run(story())


BEFORE = {
    Fault.REFUSE: "connect",
    Fault.UNAUTHORISED: "unauthorised",
    Fault.THROTTLED: "throttled",
    Fault.SERVER_ERROR: "server",
}
AMIDST = {Fault.DROP: "dropped", Fault.HALF_CLOSE: "dropped", Fault.MALFORMED: "malformed"}


async def _opened_on(make: Make, fault: Fault, on_heard: OnHeard, emulator: DeepgramEmulator) -> SttStream:
    await emulator.inject(fault)
    return await make({"DEEPGRAM_API_KEY": "test-key", "DEEPGRAM_BASE_URL": emulator.url}).open(
        Stt(timeouts=PATIENT), on_heard
    )


@pytest.mark.parametrize("make", PROVIDERS)
@pytest.mark.parametrize("fault", [*BEFORE, Fault.HANG])
def test_a_stream_that_cannot_be_had_is_lost_once_and_for_the_right_reason(make: Make, fault: Fault) -> None:
    async def story() -> None:
        before = asyncio.all_tasks()
        async with DeepgramEmulator() as emulator:
            heard: list[Heard] = []
            stream = await _opened_on(make, fault, heard.append, emulator)
            stream.begin(FIRST)
            stream.push(bytes(512), voiced=True)
            if fault is Fault.HANG:
                await asyncio.sleep(0.3)
                assert not heard
            else:
                await until(lambda: heard)
                [lost] = heard
                assert isinstance(lost, Lost)
                assert lost.error.kind == BEFORE[fault]
                assert "test-key" not in str(lost.error)
                if isinstance(lost.error, Throttled):
                    assert lost.error.retry_after_s == emulator.retry_after_s
            stream.finish()
            await asyncio.wait_for(stream.aclose(), PATIENCE_S)
            await nothing_but(before)

    asyncio.run(story())


def test_a_wrong_key_is_not_repeated() -> None:
    async def story() -> None:
        async with calling(key="sk-wrong") as call:
            await until(lambda: call.heard)
            assert call.lost[0].kind == "unauthorised"
            assert "INVALID_AUTH" in str(call.lost[0])
            assert "sk-wrong" not in str(call.lost[0])

    asyncio.run(story())


@pytest.mark.parametrize("make", PROVIDERS)
@pytest.mark.parametrize("fault", [*AMIDST, Fault.STALL, Fault.SLOW_LORIS, Fault.UNKNOWN_TYPE])
def test_a_stream_that_fails_amidst_is_lost_or_silent_but_never_wrong(make: Make, fault: Fault) -> None:
    async def story() -> None:
        async with calling(make) as call:
            await call.emulator.inject(fault, after=2)
            await call.utter(FIRST)
            if fault in AMIDST:
                await call.listen_until(lambda: bool(call.lost))
                assert [error.kind for error in call.lost] == [AMIDST[fault]]
                assert call.heard[-1] == call.of(Lost)[0]
            elif fault is Fault.UNKNOWN_TYPE:
                await call.listen_until(lambda: bool(call.finals))
                assert call.finals == [(FIRST, LINES[0])]
            else:
                await call.hear(0.5, voice=False)
                assert not call.lost
                assert not call.finals
            call.ear.push(bytes(512), voiced=False)
            call.ear.begin(SECOND)
            call.ear.finish()

    asyncio.run(story())


def test_of_audio_that_waits_too_long_for_a_connection_the_oldest_is_dropped_and_times_stay_right() -> None:
    async def story() -> None:
        async with calling() as call:
            call.ear.push(bytes(16_000 * 12), voiced=False)
            await call.utter(FIRST)
            await call.listen_until(lambda: bool(call.finals))
            assert call.finals == [(FIRST, LINES[0])]
            final = call.of(Final)[0]
            assert isinstance(final, Final)
            assert final.words[0].start_ms < 200

    asyncio.run(story())


@pytest.mark.parametrize("make", PROVIDERS)
def test_an_ear_that_takes_over_hears_what_was_missed_at_once(make: Make) -> None:
    def missed(seconds: float) -> bytes:
        tone = (6_000 * np.sin(np.arange(round(seconds * 8_000)) * 0.3)).astype("<i2").tobytes()
        return tone + bytes(16 * 600)

    async def story() -> None:
        async with calling(make) as call:
            call.ear.begin(FIRST)
            call.ear.push(missed(1.2), voiced=True)
            call.ear.finish()
            call.ear.begin(SECOND)
            call.ear.push(missed(2.0), voiced=True)
            await call.hear(0.3, voice=False)
            call.ear.finish()
            await call.listen_until(lambda: len(call.finals) == 2)
            assert call.finals == [(FIRST, LINES[0]), (SECOND, LINES[1])]

    asyncio.run(story())


def test_a_long_utterance_that_is_fixed_in_parts_is_told_whole() -> None:
    async def story() -> None:
        line = "I would like a table for two tomorrow at eight please in the garden"
        async with calling(lines=[line]) as call:
            call.emulator.fix_every_s = 1.0
            await call.utter(FIRST, seconds=4.5)
            await call.listen_until(lambda: bool(call.finals))
            assert call.finals == [(FIRST, line)]

    asyncio.run(story())


def test_whoever_finishes_while_being_told_that_the_turn_is_over_gets_the_words_at_once() -> None:
    async def story() -> None:
        async with DeepgramEmulator(ear=Lines(LINES), final_s=0.03) as emulator:
            heard: list[Heard] = []
            call = Call(emulator)

            def on_heard(told: Heard) -> None:
                heard.append(told)
                if isinstance(told, TurnOver):
                    call.ear.finish()

            provider = FluxProvider({"DEEPGRAM_API_KEY": "test-key", "DEEPGRAM_BASE_URL": emulator.url})
            call.stream = await provider.open(Stt(timeouts=PATIENT), on_heard)
            await call.hear(0.1, voice=True)
            call.ear.begin(FIRST)
            await call.hear(1.4, voice=True)
            await call.listen_until(lambda: isinstance([None, *heard][-1], Final))
            assert heard[-2] == TurnOver(FIRST)
            assert isinstance(heard[-1], Final)
            assert heard[-1].text == LINES[0]
            await call.ear.aclose()

    asyncio.run(story())
