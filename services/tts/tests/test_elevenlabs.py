"""ElevenLabs' voices, over WebSockets and over HTTP, against the emulator."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager

import msgspec
import numpy as np
import pytest

from trunkline.audio.g711 import mulaw_to_pcm16, pcm16_to_mulaw
from trunkline.proto.agent import Timeouts, Tts
from trunkline.providers.errors import Misconfigured, ProviderError, Rejected, Throttled, Unauthorised
from trunkline.testing.patience import PATIENCE_S, until
from trunkline.testing.providers import Fault, tones
from trunkline.testing.providers.elevenlabs import ElevenLabsEmulator
from trunkline.tts.provider import Billed, Points, TtsVoice
from trunkline.tts.providers.elevenlabs import ElevenLabsProvider
from trunkline.tts.providers.elevenlabs_errors import of_answer, of_close, of_message
from trunkline.tts.providers.elevenlabs_times import Times

pytestmark = pytest.mark.integration

HELLO = "Hello, how can I help you today?"
LONG = (
    "Your table for four is booked for tonight at eight, and we are very much looking forward to seeing you all here."
)
BYE = "Thank you, goodbye."
LONGER = HELLO * 50
MS = 10.0
PATIENT = Tts(timeouts=Timeouts(connect_ms=60_000))
HTTP = Tts(options={"transport": "http"})
CLOSE_S = 9.0
"""Longer than a machine stands still, shorter than the library waits for a server that does not say goodbye."""


async def written(*pieces: str, pause_s: float = 0.0) -> AsyncGenerator[str, None]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(pause_s)


async def told(voice: TtsVoice, *pieces: str, pause_s: float = 0.0) -> list[bytes | Points | Billed]:
    async with aclosing(voice.speak(written(*pieces, pause_s=pause_s))) as things:
        return [thing async for thing in things]


async def spoken(voice: TtsVoice, *pieces: str, pause_s: float = 0.0) -> bytes:
    return b"".join(thing for thing in await told(voice, *pieces, pause_s=pause_s) if isinstance(thing, bytes))


def as_said(*generations: str) -> bytes:
    """Return the sound of a sentence that was spoken in these pieces: the hum begins anew with each."""
    return b"".join(_hum(text) for text in generations)


def _hum(text: str) -> bytes:
    return mulaw_to_pcm16(pcm16_to_mulaw(tones(440, ms_per_character=MS)(text).astype("<i2").tobytes()))


@asynccontextmanager
async def speaking(
    fault: Fault | None = None, tts: Tts = PATIENT, key: str = "test-key", connect_ms: int = 60_000
) -> AsyncIterator[tuple[TtsVoice, ElevenLabsEmulator]]:
    before = asyncio.all_tasks()
    async with ElevenLabsEmulator(voice=tones(440, ms_per_character=MS), first_s=0.02) as emulator:
        emulator.pace = 20
        if fault is not None:
            await emulator.inject(fault)
        provider = ElevenLabsProvider({"ELEVENLABS_API_KEY": key, "ELEVENLABS_BASE_URL": emulator.url})
        provider.check(tts)
        voice = await provider.open(msgspec.structs.replace(tts, timeouts=Timeouts(connect_ms=connect_ms)))
        try:
            yield voice, emulator
        finally:
            async with asyncio.timeout(CLOSE_S):
                await voice.aclose()
            await provider.aclose()
            await until(lambda: not any("elevenlabs" in task.get_name() for task in asyncio.all_tasks() - before))


def run(story: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(2 * PATIENCE_S):
            await story

    asyncio.run(bounded())


def test_each_sentence_has_a_socket_and_the_next_is_opened_ahead() -> None:
    async def story() -> None:
        async with speaking() as (voice, emulator):
            assert voice.sample_rate_hz == 8_000
            await until(lambda: len(emulator.opened) == 1)
            assert await spoken(voice, HELLO) == as_said(HELLO)
            await until(lambda: len(emulator.opened) == 2)
            assert await spoken(voice, BYE) == as_said(BYE)
            assert emulator.texts == [HELLO, BYE]
            await until(lambda: len(emulator.opened) == 3 and emulator.sockets == 1)

    run(story())


def test_a_sentence_is_heard_before_it_is_written_to_its_end() -> None:
    async def story() -> None:
        async with speaking() as (voice, emulator):
            heard_first = asyncio.Event()

            async def slowly() -> AsyncGenerator[str, None]:
                words = LONG.split()
                for at, word in enumerate(words):
                    yield word + (" " if at + 1 < len(words) else "")
                    if at + 3 == len(words):
                        await heard_first.wait()

            sound = bytearray()
            async with aclosing(voice.speak(slowly())) as things:
                async for thing in things:
                    if isinstance(thing, bytes):
                        sound += thing
                        heard_first.set()
            assert sound == as_said(*emulator.texts)
            assert " ".join(text.strip() for text in emulator.texts if text) == LONG
            assert len(emulator.texts) >= 2
            assert emulator.texts[0] == LONG.split(maxsplit=1)[0]
            assert all(frame["text"] == "" or frame["text"].endswith(" ") for frame in emulator.frames)
            assert emulator.frames[-1]["text"] == ""

    run(story())


def test_pieces_end_with_a_space_wherever_they_were_cut() -> None:
    async def story() -> None:
        async with speaking() as (voice, emulator):
            assert await spoken(voice, "Hello, how ", "can I", " help", " ", " you today?") == as_said(*emulator.texts)
            texts = [frame["text"] for frame in emulator.frames]
            assert texts == ["Hello, how ", "can I ", "help ", "you today? ", ""]

    run(story())


def test_a_sentence_that_is_there_is_generated_in_one_go() -> None:
    async def story() -> None:
        async with speaking() as (voice, emulator):
            assert await spoken(voice, LONG) == as_said(LONG)
            assert emulator.texts[0] == LONG

    run(story())


@pytest.mark.parametrize("times_of", ["message", "generation"])
def test_points_rise_with_the_sound_and_end_with_the_sentence(times_of: str) -> None:
    async def story() -> None:
        async with speaking() as (voice, emulator):
            emulator.times_of = times_of
            things = await told(voice, *(f"{word} " for word in LONG.split()))
            points = [point for thing in things if isinstance(thing, Points) for point in thing.points]
            sound = b"".join(thing for thing in things if isinstance(thing, bytes))
            assert points == sorted(points)
            assert len({characters for characters, _ in points}) == len(points) > 15
            assert points[-1][0] == len(LONG)
            for characters, ms in points:
                assert abs(ms - characters * MS) <= 2 * MS
            assert abs(points[-1][1] - len(sound) / 16) <= 2 * MS

    run(story())


def test_nothing_to_pronounce_uses_no_socket_up() -> None:
    async def story() -> None:
        async with speaking() as (voice, emulator):
            assert await spoken(voice, "… ", "!") == b""
            assert await spoken(voice, BYE) == as_said(BYE)
            assert emulator.texts == [BYE]
            assert len(emulator.opened) <= 2

    run(story())


def test_after_a_barge_in_the_next_sentence_is_heard_and_nothing_of_the_last() -> None:
    async def story() -> None:
        async with speaking() as (voice, emulator):
            emulator.pace = 2
            async with aclosing(voice.speak(written(LONGER))) as things:
                async for thing in things:
                    if isinstance(thing, bytes):
                        break
            await until(lambda: len(emulator.opened) == 2 and emulator.sockets == 1)
            emulator.pace = 20
            assert await spoken(voice, BYE) == as_said(BYE)
            assert emulator.spoken_s < len(as_said(LONGER)) / 16_000 / 2

    run(story())


def test_whoever_cancels_a_sentence_that_is_being_written_stops_it_too() -> None:
    async def story() -> None:
        async with speaking() as (voice, emulator):
            sound = asyncio.create_task(spoken(voice, "Hello, ", "how ", "are ", "you?", pause_s=PATIENCE_S))
            await until(lambda: emulator.frames)
            sound.cancel()
            await asyncio.wait({sound})
            assert await spoken(voice, BYE) == as_said(BYE)
            assert emulator.texts == ["Hello,", BYE]

    run(story())


def test_a_spare_socket_that_died_is_replaced_without_anybody_noticing() -> None:
    async def story() -> None:
        async with speaking() as (voice, emulator):
            await until(voice._spare._opening.done)
            emulator.drop_all()
            await until(lambda: not voice._spare._opening.result().alive)
            assert await spoken(voice, BYE) == as_said(BYE)

    run(story())


def test_text_that_breaks_off_breaks_the_sentence_off() -> None:
    async def torn() -> AsyncGenerator[str, None]:
        yield "Hello, "
        raise LookupError("no more")

    async def story() -> None:
        async with speaking() as (voice, _):
            with pytest.raises(LookupError):
                async with aclosing(voice.speak(torn())) as things:
                    assert [thing async for thing in things] == []
            assert await spoken(voice, BYE) == as_said(BYE)

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


def test_a_warm_socket_is_the_one_the_next_call_uses() -> None:
    async def story() -> None:
        async with ElevenLabsEmulator(voice=tones(440, ms_per_character=MS), first_s=0) as emulator:
            provider = ElevenLabsProvider({"ELEVENLABS_API_KEY": "test-key", "ELEVENLABS_BASE_URL": emulator.url})
            await provider.warm(PATIENT)
            await provider.warm(PATIENT)
            await provider.warm(Tts(speed=9 / 5))
            await until(lambda: emulator.sockets == 1)
            voice = await provider.open(PATIENT)
            await asyncio.sleep(0.05)
            assert len(emulator.opened) == 1
            assert await spoken(voice, BYE) == as_said(BYE)
            await voice.aclose()
            await provider.warm(Tts(voice="other"))
            await until(lambda: emulator.sockets == 1)
            await provider.aclose()
            await until(lambda: not emulator.sockets)

    run(story())


def test_what_an_agent_asks_for_is_asked_for() -> None:
    options = {"stability": 0.4, "use_speaker_boost": False, "seed": 7, "apply_text_normalization": "off"}
    tts = Tts(
        voice="abc123",
        model="eleven_multilingual_v2",
        language="de-DE",
        speed=1.1,
        options={**options, "chunk_length_schedule": "60, 200"},
    )

    async def story() -> None:
        async with speaking(tts=tts) as (voice, emulator):
            assert 0 < len(await spoken(voice, HELLO)) < len(as_said(HELLO))
            seen = emulator.seen[0]
            assert seen.path == "/v1/text-to-speech/abc123/stream-input"
            assert seen.headers["xi-api-key"] == "test-key"
            assert seen.query == {
                "model_id": "eleven_multilingual_v2",
                "output_format": "ulaw_8000",
                "inactivity_timeout": "180",
                "sync_alignment": "true",
                "seed": "7",
                "apply_text_normalization": "off",
                "language_code": "de",
            }
            assert emulator.first_messages[0] == {
                "text": " ",
                "voice_settings": {"stability": 0.4, "use_speaker_boost": False, "speed": 1.1},
                "generation_config": {"chunk_length_schedule": [60, 200]},
            }

    run(story())


def test_over_http_a_sentence_is_sent_whole_and_its_price_is_told() -> None:
    async def story() -> None:
        tts = Tts(speed=1.2, language="en", options={"transport": "http", "stability": 0.4, "seed": 1})
        async with speaking(tts=tts) as (voice, emulator):
            things = await told(voice, "Hello, how ", "can I help ", "you today?")
            assert things[0] == Billed(len(HELLO) // 2)
            sound = b"".join(thing for thing in things if isinstance(thing, bytes))
            assert abs(len(sound) - len(as_said(HELLO)) / 1.2) < 10
            assert await spoken(voice, "?!") == b""
            asked = emulator.asked[0]
            assert len(emulator.asked) == 1
            assert asked.query == {"output_format": "ulaw_8000"}
            assert asked.body == {
                "text": HELLO,
                "model_id": "eleven_flash_v2_5",
                "language_code": "en",
                "voice_settings": {"stability": 0.4, "speed": 1.2},
                "seed": 1,
            }

    run(story())


def test_over_http_a_barge_in_leaves_the_voice_ready() -> None:
    async def story() -> None:
        async with speaking(tts=HTTP) as (voice, emulator):
            emulator.pace = 2
            async with aclosing(voice.speak(written(HELLO * 5))) as things:
                async for thing in things:
                    if isinstance(thing, bytes):
                        break
            emulator.pace = 20
            assert await spoken(voice, BYE) == as_said(BYE)

    run(story())


@pytest.mark.parametrize(
    ("tts", "setting"),
    [
        (Tts(voice="../../v1/user"), "tts.voice"),
        (Tts(speed=1.5), "tts.speed"),
        (Tts(language="german"), "tts.language"),
        (Tts(model="eleven_v3"), "tts.model"),
        (Tts(options={"voice_settings": "x"}), "tts.options.voice_settings"),
        (Tts(options={"transport": "pigeon"}), "tts.options.transport"),
        (Tts(options={"stability": 2}), "tts.options.stability"),
        (Tts(options={"style": True}), "tts.options.style"),
        (Tts(options={"seed": -1}), "tts.options.seed"),
        (Tts(options={"use_speaker_boost": "yes"}), "tts.options.use_speaker_boost"),
        (Tts(options={"apply_text_normalization": True}), "tts.options.apply_text_normalization"),
        (Tts(options={"chunk_length_schedule": "20,50"}), "tts.options.chunk_length_schedule"),
        (Tts(options={"chunk_length_schedule": ""}), "tts.options.chunk_length_schedule"),
        (Tts(options={"language_code": "English"}), "tts.options.language_code"),
    ],
)
def test_what_cannot_be_honoured_is_named_before_any_call(tts: Tts, setting: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        ElevenLabsProvider({"ELEVENLABS_API_KEY": "x"}).check(tts)
    assert refused.value.setting == setting


def test_a_missing_key_and_a_bad_address_are_named() -> None:
    with pytest.raises(Misconfigured) as refused:
        ElevenLabsProvider({}).check(Tts())
    assert refused.value.setting == "ELEVENLABS_API_KEY"
    with pytest.raises(Misconfigured) as refused:
        ElevenLabsProvider({"ELEVENLABS_API_KEY": "x", "ELEVENLABS_BASE_URL": "ftp://x"}).check(Tts())
    assert refused.value.setting == "ELEVENLABS_BASE_URL"


def test_a_wrong_key_is_not_repeated() -> None:
    async def story() -> None:
        for tts in (Tts(), HTTP):
            async with speaking(tts=tts, key="wrong-key-of-mine") as (voice, _):
                with pytest.raises(Unauthorised) as refused:
                    await spoken(voice, HELLO)
                assert "wrong-key-of-mine" not in str(refused.value)

    run(story())


def test_an_error_told_in_the_socket_is_understood() -> None:
    async def story() -> None:
        async with speaking(tts=Tts(voice="gone")) as (voice, emulator):
            emulator.voices = frozenset({"abc"})
            with pytest.raises(Rejected) as refused:
                await spoken(voice, HELLO)
            assert "voice_id_does_not_exist" in str(refused.value)

    run(story())


KINDS = {
    Fault.REFUSE: "connect",
    Fault.UNAUTHORISED: "unauthorised",
    Fault.THROTTLED: "throttled",
    Fault.SERVER_ERROR: "server",
    Fault.DROP: "dropped",
    Fault.HALF_CLOSE: "dropped",
    Fault.MALFORMED: "malformed",
}


@pytest.mark.parametrize("tts", [Tts(), HTTP], ids=["websocket", "http"])
@pytest.mark.parametrize("fault", KINDS)
def test_a_sentence_that_cannot_be_spoken_says_why_and_the_next_one_may_be(fault: Fault, tts: Tts) -> None:
    async def story() -> None:
        async with speaking(fault, tts) as (voice, emulator):
            with pytest.raises(ProviderError) as failed:
                await spoken(voice, HELLO * 4)
            assert failed.value.kind == KINDS[fault]
            assert "test-key" not in str(failed.value)
            if isinstance(failed.value, Throttled):
                assert failed.value.retry_after_s == emulator.retry_after_s
            await emulator.heal()
            assert await spoken(voice, BYE) == as_said(BYE)

    run(story())


@pytest.mark.parametrize("tts", [Tts(), HTTP], ids=["websocket", "http"])
@pytest.mark.parametrize("fault", [Fault.HANG, Fault.STALL, Fault.SLOW_LORIS])
def test_a_provider_that_is_silent_is_waited_for_until_somebody_gives_up(fault: Fault, tts: Tts) -> None:
    async def story() -> None:
        async with speaking(fault, tts) as (voice, emulator):
            heard = bytearray()

            async def listen() -> None:
                async with aclosing(voice.speak(written(HELLO * 4))) as things:
                    async for thing in things:
                        heard.extend(thing if isinstance(thing, bytes) else b"")

            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.4):
                    await listen()
            assert as_said(*(emulator.texts or [HELLO * 4])).startswith(bytes(heard))

    run(story())


@pytest.mark.parametrize("tts", [Tts(), HTTP], ids=["websocket", "http"])
def test_a_message_of_an_unknown_type_is_harmless(tts: Tts) -> None:
    async def story() -> None:
        async with speaking(Fault.UNKNOWN_TYPE, tts) as (voice, emulator):
            assert await spoken(voice, HELLO * 4) == as_said(*(emulator.texts or [HELLO * 4]))

    run(story())


def test_a_voice_that_never_spoke_is_closed_without_a_word() -> None:
    async def story() -> None:
        for fault in (None, Fault.HANG, Fault.REFUSE, Fault.STALL):
            async with speaking(fault):
                pass

    run(story())


@pytest.mark.parametrize(
    "message",
    [
        [1],
        {"audio": 5},
        {"audio": "not base64!"},
        {"audio": "AAAA", "alignment": {"chars": "abc"}},
        {"audio": "AAAA", "alignment": {"chars": ["a"], "charStartTimesMs": [10**400]}},
        {"audio": "AAAA", "alignment": {"chars": ["a"], "charStartTimesMs": ["soon"]}},
    ],
)
def test_a_message_of_the_wrong_shape_cannot_be_read(message: object) -> None:
    class Hostile(ElevenLabsEmulator):
        def malformed(self) -> str:
            return json.dumps(message)

    async def story() -> None:
        async with Hostile(first_s=0) as emulator:
            await emulator.inject(Fault.MALFORMED, after=0)
            provider = ElevenLabsProvider({"ELEVENLABS_API_KEY": "test-key", "ELEVENLABS_BASE_URL": emulator.url})
            voice = await provider.open(PATIENT)
            with pytest.raises(ProviderError) as failed:
                await spoken(voice, HELLO)
            assert failed.value.kind == "malformed"
            await voice.aclose()
            await provider.aclose()

    run(story())


def test_the_emulated_voice_is_the_one_that_is_heard() -> None:
    async def story() -> None:
        async with speaking() as (voice, _):
            samples = np.frombuffer(await spoken(voice, "a" * 100), "<i2")
            loudest = np.argmax(np.abs(np.fft.rfft(samples))) * 8_000 / len(samples)
            assert abs(loudest - 440) < 2

    run(story())


def test_characters_are_counted_against_the_sentence_whatever_spaces_come() -> None:
    times = Times()
    times.write("Hi there")
    assert times.push([" ", "H", "i", " "], [0, 10, 20, 30], [10, 10, 10, 10], 0.0) == ((2, 30), (3, 40))
    assert times.push([" ", "there"], [0, 10], [], 40.0) == ((8, 50),)
    assert times.push(["!", "!"], [0, 10], [10, 10], 100.0) == ()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (
            of_answer(401, {"detail": {"status": "quota_exceeded", "message": "secret used up"}}, None, "secret"),
            "throttled",
        ),
        (
            of_answer(401, b'{"detail": {"status": "invalid_api_key", "message": "secret"}}', None, "secret"),
            "unauthorised",
        ),
        (of_answer(422, {"detail": [{"input": "what the agent says"}]}, None, "secret"), "rejected"),
        (of_answer(500, b"[" * 100_000, None, "secret"), "server"),
        (of_message("quota_exceeded", "no more for secret", 1008, "secret"), "throttled"),
        (of_message("input_timeout_exceeded", "too late", 1008, "secret"), "server"),
        (of_message("something_new", "secret", 1008, "secret"), "rejected"),
        (of_message("something_new", "secret", None, "secret"), "server"),
        (of_close(1008, "invalid_api_key", "secret"), "unauthorised"),
        (of_close(1008, "secret is wrong", "secret"), "rejected"),
        (of_close(1011, "", "secret"), "server"),
        (of_close(1000, "", "secret"), "dropped"),
    ],
)
def test_what_elevenlabs_says_is_one_of_our_errors(error: ProviderError, kind: str) -> None:
    assert error.kind == kind
    assert "secret" not in str(error)
    assert "agent" not in str(error)


def test_neither_key_nor_words_are_logged_whatever_the_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def story() -> None:
        for tts in (Tts(), HTTP):
            async with speaking(tts=tts) as (voice, _):
                await spoken(voice, BYE)

    run(story())
    assert not [line for line in caplog.messages if "test-key" in line or "goodbye" in line.lower()]
