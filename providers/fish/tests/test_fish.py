"""Fish Audio's voices against its emulator, found as a third party's are: by entry point."""

import asyncio
from contextlib import aclosing

import numpy as np
import pytest

from trunkline.proto.agent import Timeouts, Tts
from trunkline.providers.errors import Misconfigured, ProviderError, Throttled
from trunkline.testing.patience import PATIENCE_S, until
from trunkline.testing.providers.content import tones
from trunkline.testing.providers.fish import FishEmulator
from trunkline.testing.providers.server import Fault
from trunkline.tts.provider import providers

pytestmark = pytest.mark.integration

SENTENCE = "atableforfour"
SECONDS = len(SENTENCE) * 0.06
VOICE = "933563129e564b19a115bedd57b7406a"
TTS = Tts(provider="fish", voice=VOICE, timeouts=Timeouts(connect_ms=60_000))
KEY = "test-key-that-nobody-may-read"


async def as_text(text):
    yield text


async def spoken(voice, text=SENTENCE):
    return b"".join([piece async for piece in voice.speak(as_text(text))])


def told(story, *, key=KEY, tts=TTS, **emulated):
    """Run `story` with a quick emulator, a voice and the provider."""

    async def run():
        quick = {"first_s": 0, "pace": 0, "voice": tones(500), "key": KEY} | emulated
        async with FishEmulator(**quick) as emulator:
            plugins = providers({"FISH_API_KEY": key, "FISH_BASE_URL": emulator.url})
            voice = await plugins.get("fish").open(tts)
            try:
                await asyncio.wait_for(story(emulator, voice, plugins.get("fish")), 2 * PATIENCE_S)
            finally:
                await voice.aclose()
                await plugins.aclose()

    asyncio.run(run())


def test_a_sentence_is_heard_at_its_length_and_pitch_in_whole_samples():
    async def story(emulator, voice, _):
        pieces = [piece async for piece in voice.speak(as_text(SENTENCE))]
        assert all(len(piece) % 2 == 0 for piece in pieces)
        pcm = np.frombuffer(b"".join(pieces), "<i2")
        assert voice.sample_rate_hz == 8_000
        assert abs(len(pcm) / 8_000 - SECONDS) < 0.01
        assert abs(np.argmax(np.abs(np.fft.rfft(pcm))) * 8_000 / len(pcm) - 500) < 5
        assert emulator.models == ["s2.1-pro"]
        asked = emulator.spoken[0]
        assert (asked.text, asked.reference_id, asked.sample_rate, asked.latency, asked.prosody) == (
            SENTENCE,
            VOICE,
            8_000,
            "balanced",
            None,
        )

    told(story)


def test_the_agents_settings_reach_the_service():
    async def story(emulator, voice, _):
        assert abs(len(await spoken(voice)) / 16_000 - SECONDS / 1.5) < 0.01
        asked = emulator.spoken[0]
        assert (asked.reference_id, asked.prosody.speed, asked.latency, asked.chunk_length) == (None, 1.5, "low", 100)
        assert emulator.models == ["s2-pro"]

    told(
        story,
        tts=Tts(model="s2-pro", speed=1.5, options={"latency": "low", "chunk_length": 100}, timeouts=TTS.timeouts),
    )


def test_a_sentence_closed_early_stops_at_the_service_at_once_and_the_next_is_spoken():
    async def story(emulator, voice, _):
        async with aclosing(voice.speak(as_text("a" * 400))) as pieces:
            assert await anext(pieces)
        await until(lambda: emulator.left == 1)
        assert await spoken(voice)

    told(story, pace=3)


def test_a_warmed_connection_is_used_by_the_sentences_that_follow():
    async def story(emulator, voice, provider):
        await provider.warm(TTS)
        await spoken(voice)
        await spoken(voice)
        assert [seen.method for seen in emulator.seen] == ["GET", "POST", "POST"]
        assert len(emulator._runner.server.connections) == 1
        await emulator.inject(Fault.REFUSE)
        await provider.warm(TTS)

    told(story)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.REFUSE, "connect"),
        (Fault.UNAUTHORISED, "unauthorised"),
        (Fault.THROTTLED, "throttled"),
        (Fault.SERVER_ERROR, "server"),
        (Fault.DROP, "dropped"),
        (Fault.HALF_CLOSE, "dropped"),
        (Fault.MALFORMED, "malformed"),
    ],
)
def test_every_failure_is_of_its_kind_and_the_next_sentence_is_spoken(fault, kind):
    async def story(emulator, voice, _):
        await emulator.inject(fault)
        with pytest.raises(ProviderError) as raised:
            await spoken(voice)
        assert raised.value.kind == kind
        assert KEY not in str(raised.value)
        if isinstance(raised.value, Throttled):
            assert raised.value.retry_after_s == 7
        await emulator.heal()
        assert await spoken(voice)

    told(story)


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.STALL, Fault.SLOW_LORIS])
def test_slowness_is_waited_for_and_can_be_closed(fault):
    async def story(emulator, voice, _):
        await emulator.inject(fault)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(spoken(voice), 0.15)
        await emulator.heal()
        assert await spoken(voice)

    told(story)


def test_a_refusal_quotes_no_key():
    async def story(_, voice, __):
        with pytest.raises(ProviderError, match="HTTP 401: Incorrect API key provided: \\*\\*\\*") as raised:
            await spoken(voice)
        assert "sk-wrong" not in str(raised.value)

    told(story, key="sk-wrong")


@pytest.mark.parametrize(
    ("environ", "tts", "setting"),
    [
        ({}, TTS, "FISH_API_KEY"),
        ({"FISH_API_KEY": "k", "FISH_BASE_URL": "ftp://fish"}, TTS, "FISH_BASE_URL"),
        ({"FISH_API_KEY": "k"}, Tts(options={"pace": 1}), "tts.options.pace"),
        ({"FISH_API_KEY": "k"}, Tts(options={"latency": 1}), "tts.options.latency"),
        ({"FISH_API_KEY": "k"}, Tts(endpoint="eu"), "tts.endpoint"),
    ],
)
def test_what_cannot_work_is_said_before_any_call(environ, tts, setting):
    with pytest.raises(Misconfigured) as raised:
        providers(environ).get("fish").check(tts)
    assert raised.value.setting == setting


def test_a_connection_may_take_as_long_as_the_agent_says():
    async def story(_, __, ___):
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as silent:
            address = f"https://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
            plugins = providers({"FISH_API_KEY": KEY, "FISH_BASE_URL": address})
            tts = Tts(provider="fish", voice=VOICE, timeouts=Timeouts(connect_ms=100))
            async with asyncio.timeout(PATIENCE_S):  # the adapter's own is ten minutes
                with pytest.raises(ProviderError, match="no connection") as failure:
                    await spoken(await plugins.get("fish").open(tts))
            assert failure.value.kind == "connect"
            await plugins.aclose()

    told(story)
