"""Deepgram's voices, through the SDK against the emulator."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager

import msgspec
import numpy as np
import pytest

from trunkline.proto.agent import Timeouts, Tts
from trunkline.providers.errors import Misconfigured, ProviderError, Throttled
from trunkline.testing.patience import PATIENCE_S, until
from trunkline.testing.providers import Fault, tones
from trunkline.testing.providers.deepgram import DeepgramEmulator
from trunkline.tts.provider import TtsVoice
from trunkline.tts.providers.deepgram import AuraProvider

pytestmark = pytest.mark.integration

HELLO = "Hello, how can I help you today?"
BYE = "Thank you, goodbye."
LONGER = HELLO * 50
MS = 10.0


async def written(*pieces: str, pause_s: float = 0.0) -> AsyncGenerator[str, None]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(pause_s)


async def spoken(voice: TtsVoice, *pieces: str, pause_s: float = 0.0) -> bytes:
    async with aclosing(voice.speak(written(*pieces, pause_s=pause_s))) as sound:
        return b"".join([piece async for piece in sound if isinstance(piece, bytes)])


def as_said(text: str, hz: float = 440) -> bytes:
    return tones(hz, ms_per_character=MS)(text).astype("<i2").tobytes()


@asynccontextmanager
async def speaking(
    fault: Fault | None = None, tts: Tts | None = None, connect_ms: int = 60_000
) -> AsyncIterator[tuple[TtsVoice, DeepgramEmulator]]:
    before = asyncio.all_tasks()
    async with DeepgramEmulator(voice=tones(440, ms_per_character=MS), speak_first_s=0.02) as emulator:
        emulator.pace = 20
        if fault is not None:
            await emulator.inject(fault)
        provider = AuraProvider({"DEEPGRAM_API_KEY": "test-key", "DEEPGRAM_BASE_URL": emulator.url})
        tts = msgspec.structs.replace(tts or Tts(), timeouts=Timeouts(connect_ms=connect_ms))
        provider.check(tts)
        voice = await provider.open(tts)
        try:
            yield voice, emulator
        finally:
            await voice.aclose()
            await until(lambda: not any("aura" in task.get_name() for task in asyncio.all_tasks() - before))
            await provider.aclose()


def run(story: Awaitable[None]) -> None:
    async def told() -> None:
        async with asyncio.timeout(2 * PATIENCE_S):
            await story

    asyncio.run(told())


def test_sentences_are_spoken_one_after_the_other_on_one_connection() -> None:
    async def story() -> None:
        async with speaking() as (voice, emulator):
            assert voice.sample_rate_hz == 8_000
            assert await spoken(voice, HELLO) == as_said(HELLO)
            assert await spoken(voice, BYE) == as_said(BYE)
            assert emulator.texts == [HELLO, BYE]
            assert len(emulator.asked) == 1

    run(story())


def test_a_sentence_goes_out_as_it_is_written() -> None:
    async def story() -> None:
        async with speaking() as (voice, emulator):

            async def as_it_is_heard() -> AsyncGenerator[str, None]:
                yield "Hello, how "
                await until(lambda: emulator.orders == ["Speak"])
                yield "can I "
                yield "help you today?"

            assert b"".join([piece async for piece in voice.speak(as_it_is_heard())]) == as_said(HELLO)
            assert emulator.orders == ["Speak", "Speak", "Speak", "Flush"]

    run(story())


def test_nothing_to_pronounce_is_not_even_sent() -> None:
    async def story() -> None:
        async with speaking() as (voice, emulator):
            assert await spoken(voice, "… ", "!") == b""
            assert emulator.orders == []
            assert await spoken(voice, BYE) == as_said(BYE)

    run(story())


def test_after_a_barge_in_the_next_sentence_is_heard_and_nothing_of_the_last() -> None:
    async def story() -> None:
        async with speaking() as (voice, emulator):
            emulator.pace = 2
            async with aclosing(voice.speak(written(LONGER))) as sound:
                assert await anext(sound)
            await until(voice._opening.result()._clear.is_set)
            emulator.pace = 20
            assert await spoken(voice, BYE) == as_said(BYE)
            assert "Clear" in emulator.orders
            assert emulator.spoken_s < len(as_said(LONGER)) / 16_000 / 2
            assert len(emulator.asked) == 1

    run(story())


def test_whoever_cancels_a_sentence_that_is_being_written_stops_it_too() -> None:
    async def story() -> None:
        async with speaking() as (voice, emulator):
            sound = asyncio.create_task(spoken(voice, "Hello, ", "how ", "are ", "you?", pause_s=PATIENCE_S))
            await until(lambda: emulator.orders)
            sound.cancel()
            await asyncio.wait({sound})
            assert await spoken(voice, BYE) == as_said(BYE)
            assert emulator.texts == [BYE]

    run(story())


def test_a_clear_that_is_not_confirmed_costs_the_connection_and_not_the_next_sentence() -> None:
    async def story() -> None:
        async with speaking() as (voice, emulator):
            emulator.pace = 1
            async with aclosing(voice.speak(written(HELLO * 5))) as sound:
                assert await anext(sound)
                await emulator.inject(Fault.STALL, times=1, after=0)
                await until(lambda: not emulator._left)
            emulator.pace = 20
            assert await spoken(voice, BYE) == as_said(BYE)
            assert len(emulator.asked) == 2

    run(story())


def test_a_connection_closed_between_sentences_is_made_again() -> None:
    async def story() -> None:
        async with speaking() as (voice, emulator):
            assert await spoken(voice, HELLO) == as_said(HELLO)
            emulator.drop_all()
            await until(lambda: voice._opening.result().broken)
            assert await spoken(voice, BYE) == as_said(BYE)
            assert len(emulator.asked) == 2

    run(story())


def test_a_connection_may_take_as_long_as_the_agent_says() -> None:
    async def story() -> None:
        async with speaking(Fault.HANG, connect_ms=50) as (voice, _):
            with pytest.raises(ProviderError, match="within 50 ms") as failure:
                await spoken(voice, HELLO)
            assert failure.value.kind == "connect"

    run(story())


def test_a_connection_that_does_not_come_is_not_waited_for_for_ever() -> None:
    async def story() -> None:
        async with speaking(Fault.HANG) as (voice, emulator):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.6):
                    await spoken(voice, HELLO)
            await emulator.heal()
            assert await spoken(voice, BYE) == as_said(BYE)

    run(story())


def test_too_many_sentences_a_minute_are_too_many() -> None:
    async def story() -> None:
        async with speaking() as (voice, emulator):
            emulator.flushes = 1
            assert await spoken(voice, HELLO) == as_said(HELLO)
            with pytest.raises(Throttled):
                await spoken(voice, BYE)

    run(story())


def test_voice_and_speed_are_asked_for() -> None:
    async def story() -> None:
        async with speaking(tts=Tts(voice="aura-2-orion-en", speed=1.25, options={"mip_opt_out": True})) as (
            voice,
            emulator,
        ):
            assert 0 < len(await spoken(voice, HELLO)) < len(as_said(HELLO))
            asked = dict(emulator.asked[0])
            assert asked.pop("encoding") == "linear16"
            assert asked == {"model": "aura-2-orion-en", "sample_rate": "8000", "speed": "1.25", "mip_opt_out": "true"}
            seen = emulator.seen[0]
            assert seen.headers["authorization"] == "Token test-key"

    run(story())


@pytest.mark.parametrize(
    ("tts", "setting"),
    [
        (Tts(voice="alloy"), "tts.voice"),
        (Tts(voice="aura-2-orion-en", model="aura-2-thalia-en"), "tts.model"),
        (Tts(options={"container": "wav"}), "tts.options.container"),
        (Tts(options={"mip_opt_out": "yes"}), "tts.options.mip_opt_out"),
    ],
)
def test_what_cannot_be_honoured_is_named_before_any_call(tts: Tts, setting: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        AuraProvider({"DEEPGRAM_API_KEY": "x"}).check(tts)
    assert refused.value.setting == setting


def test_a_missing_key_is_named() -> None:
    with pytest.raises(Misconfigured) as refused:
        AuraProvider({}).check(Tts())
    assert refused.value.setting == "DEEPGRAM_API_KEY"


KINDS = {
    Fault.REFUSE: "connect",
    Fault.UNAUTHORISED: "unauthorised",
    Fault.THROTTLED: "throttled",
    Fault.SERVER_ERROR: "server",
    Fault.DROP: "dropped",
    Fault.HALF_CLOSE: "dropped",
    Fault.MALFORMED: "malformed",
}


@pytest.mark.parametrize("fault", KINDS)
def test_a_sentence_that_cannot_be_spoken_says_why_and_the_next_one_may_be(fault: Fault) -> None:
    async def story() -> None:
        async with speaking(fault) as (voice, emulator):
            with pytest.raises(ProviderError) as failed:
                await spoken(voice, HELLO * 4)
            assert failed.value.kind == KINDS[fault]
            assert "test-key" not in str(failed.value)
            if isinstance(failed.value, Throttled):
                assert failed.value.retry_after_s == emulator.retry_after_s
            await emulator.heal()
            assert await spoken(voice, BYE) == as_said(BYE)

    run(story())


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.STALL, Fault.SLOW_LORIS])
def test_a_provider_that_is_silent_is_waited_for_until_somebody_gives_up(fault: Fault) -> None:
    async def story() -> None:
        async with speaking(fault) as (voice, _):
            heard = bytearray()

            async def listen() -> None:
                async with aclosing(voice.speak(written(HELLO * 4))) as sound:
                    async for piece in sound:
                        assert isinstance(piece, bytes)
                        heard.extend(piece)

            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.4):
                    await listen()
            assert as_said(HELLO * 4).startswith(bytes(heard))

    run(story())


def test_a_message_of_an_unknown_type_is_harmless() -> None:
    async def story() -> None:
        async with speaking(Fault.UNKNOWN_TYPE) as (voice, _):
            assert await spoken(voice, HELLO * 4) == as_said(HELLO * 4)

    run(story())


def test_a_voice_that_never_spoke_is_closed_without_a_word() -> None:
    async def story() -> None:
        for fault in (None, Fault.HANG, Fault.REFUSE):
            async with speaking(fault):
                pass

    run(story())


def test_the_emulated_voice_is_the_one_that_is_heard() -> None:
    async def story() -> None:
        async with speaking() as (voice, _):
            samples = np.frombuffer(await spoken(voice, "a" * 100), "<i2")
            loudest = np.argmax(np.abs(np.fft.rfft(samples))) * 8_000 / len(samples)
            assert abs(loudest - 440) < 2

    run(story())
