"""OpenAI's voices through the official SDK, against the emulator."""

import asyncio
from contextlib import aclosing

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from trunkline.proto.agent import Timeouts, Tts
from trunkline.providers.errors import Misconfigured, ProviderError, Rejected, Throttled
from trunkline.testing.patience import PATIENCE_S, until
from trunkline.testing.providers.content import tones
from trunkline.testing.providers.openai_audio import OpenAiAudioEmulator
from trunkline.testing.providers.server import Fault
from trunkline.tts.provider import providers

pytestmark = pytest.mark.integration

SENTENCE = "atableforfour"
SECONDS = len(SENTENCE) * 0.06
TTS = Tts(provider="openai", voice="coral", timeouts=Timeouts(connect_ms=60_000))
KEY = "test-key-that-nobody-may-read"


async def as_text(*pieces):
    for piece in pieces:
        yield piece


async def spoken(voice, text=SENTENCE):
    return b"".join([piece async for piece in voice.speak(as_text(text))])


def told(story, *, key=KEY, tts=TTS, settings=None, **emulated):
    """Run `story` with a quick emulator, the provider and a voice."""

    async def run():
        quick = {"speech_first_s": 0, "speech_pace": 0, "voice": tones(500), "key": KEY} | emulated
        async with OpenAiAudioEmulator(**quick) as emulator:
            environ = {"OPENAI_API_KEY": key, "OPENAI_BASE_URL": f"{emulator.url}/v1"} | (settings or {})
            plugins = providers(environ, [])
            voice = await plugins.get("openai").open(tts)
            try:
                await asyncio.wait_for(story(emulator, voice, plugins.get("openai")), 2 * PATIENCE_S)
            finally:
                await voice.aclose()
                await plugins.aclose()

    asyncio.run(run())


def test_a_sentence_is_heard_at_its_length_and_pitch_in_whole_samples():
    async def story(emulator, voice, _):
        pieces = [piece async for piece in voice.speak(as_text("atable", "forfour"))]
        assert all(len(piece) % 2 == 0 for piece in pieces)
        assert len(pieces) > 1
        pcm = np.frombuffer(b"".join(pieces), "<i2")
        assert voice.sample_rate_hz == 24_000
        assert abs(len(pcm) / 24_000 - SECONDS) < 0.01
        assert abs(np.argmax(np.abs(np.fft.rfft(pcm))) * 24_000 / len(pcm) - 500) < 5
        assert [asked.text for asked in emulator.spoken] == [SENTENCE]

    told(story)


def test_the_agents_settings_reach_the_service():
    async def story(emulator, voice, _):
        assert abs(len(await spoken(voice)) / 48_000 - SECONDS / 1.5) < 0.01
        asked = emulator.spoken[0]
        assert (asked.model, asked.voice, asked.speed) == ("tts-1", "onyx", 1.5)
        assert asked.instructions == "Be kind."

    told(story, tts=Tts(model="tts-1", voice="onyx", speed=1.5, options={"instructions": "Be kind."}))


def test_nothing_to_say_asks_nobody():
    async def story(emulator, voice, _):
        assert await spoken(voice, "  ") == b""
        assert emulator.seen == []

    told(story)


def test_a_sentence_closed_early_stops_at_the_service_at_once_and_the_next_is_spoken():
    async def story(emulator, voice, _):
        async with aclosing(voice.speak(as_text("a" * 400))) as pieces:
            assert await anext(pieces)
        await until(lambda: emulator.left == 1)
        assert abs(len(await spoken(voice)) / 48_000 - SECONDS) < 0.01

    told(story, speech_pace=2)


def test_whoever_stops_waiting_for_the_first_sound_stops_the_request():
    async def story(emulator, voice, _):
        waiting = asyncio.ensure_future(spoken(voice))
        await until(lambda: emulator.spoken)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        emulator._speech_first_s = 0
        assert await spoken(voice)

    told(story, speech_first_s=600)


def test_a_warmed_connection_is_used_by_the_sentences_that_follow():
    async def story(emulator, voice, provider):
        await provider.warm(TTS)
        await spoken(voice)
        await spoken(voice)
        assert [seen.method for seen in emulator.seen] == ["GET", "POST", "POST"]
        assert len(emulator._runner.server.connections) == 1

    told(story)


def test_warming_what_does_not_answer_says_nothing():
    async def story(emulator, _, provider):
        await emulator.inject(Fault.REFUSE)
        await provider.warm(TTS)
        await emulator.inject(Fault.SERVER_ERROR)
        await provider.warm(TTS)
        await provider.warm(Tts(provider="openai", endpoint="ollama"))

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
@pytest.mark.parametrize("after", [0, 2])
def test_every_failure_is_of_its_kind_and_the_next_sentence_is_spoken(fault, kind, after):
    async def story(emulator, voice, _):
        await emulator.inject(fault, after=after)
        with pytest.raises(ProviderError) as raised:
            await spoken(voice)
        assert raised.value.kind == kind
        assert KEY not in str(raised.value)
        if isinstance(raised.value, Throttled):
            assert raised.value.retry_after_s == 7
        asked = len(emulator.seen)
        assert asked == (fault is not Fault.REFUSE)
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


def test_what_is_unknown_does_no_harm():
    async def story(emulator, voice, _):
        await emulator.inject(Fault.UNKNOWN_TYPE)
        assert abs(len(await spoken(voice)) / 48_000 - SECONDS) < 0.01

    told(story)


def test_a_refusal_quotes_no_key():
    async def story(_, voice, __):
        with pytest.raises(ProviderError, match="Incorrect API key provided: \\*\\*\\*") as raised:
            await spoken(voice)
        assert "sk-wrong" not in str(raised.value)
        assert raised.value.kind == "unauthorised"

    told(story, key="sk-wrong")


def test_a_request_the_service_does_not_like_is_rejected():
    async def story(_, voice, __):
        with pytest.raises(Rejected, match="HTTP 400"):
            await spoken(voice, "a" * 5_000)

    told(story)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"body": b"<html>", "content_type": "text/html"}, "malformed"),
        ({"body": b"RIFF\xff\xff\xff\xffWAVE", "content_type": "audio/pcm"}, "malformed"),
        ({"body": b"odd", "content_type": "audio/pcm"}, "malformed"),
        ({"body": bytes(300 * 48_000 + 2), "content_type": "audio/pcm"}, "malformed"),
        ({"body": b"", "status": 307, "headers": {"location": "http://127.0.0.1:9/v1/audio/speech"}}, "rejected"),
        ({"body": b"not json", "status": 500}, "server"),
        ({"body": b'{"detail": [{"input": "what was said"}]}', "status": 422}, "rejected"),
        ({"body": b"[" * 100_000, "status": 400, "content_type": "application/json"}, "rejected"),
    ],
)
def test_a_server_out_of_order_is_not_played(answer, kind):
    async def run():
        app = web.Application()

        async def reply(_):
            return web.Response(**answer)

        app.router.add_route("*", "/{path:.*}", reply)
        async with TestServer(app) as server:
            provider = providers({"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": str(server.make_url("/v1"))}, [])
            await provider.get("openai").warm(TTS)
            voice = await provider.get("openai").open(TTS)
            with pytest.raises(ProviderError) as raised:
                await spoken(voice)
            assert raised.value.kind == kind
            assert "what was said" not in str(raised.value)
            await provider.aclose()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("environ", "tts", "setting"),
    [
        ({}, TTS, "OPENAI_API_KEY"),
        ({"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "file:///etc/passwd"}, TTS, "OPENAI_BASE_URL"),
        ({"OPENAI_API_KEY": "k"}, Tts(endpoint="groq"), "tts.endpoint"),
        ({"OPENAI_API_KEY": "k"}, Tts(options={"pace": 1}), "tts.options.pace"),
        ({"OPENAI_API_KEY": "k"}, Tts(options={"instructions": 1}), "tts.options.instructions"),
    ],
)
def test_what_cannot_work_is_said_before_any_call(environ, tts, setting):
    with pytest.raises(Misconfigured) as raised:
        providers(environ, []).get("openai").check(tts)
    assert raised.value.setting == setting


def test_a_compatible_server_is_asked_where_the_operator_says_and_with_its_own_key(monkeypatch):
    for variable in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(variable, "sk-ours")

    async def run(environ, key):
        tts = Tts(endpoint="kokoro", model="kokoro", voice="af_heart", options={"sample_rate_hz": 24_000})
        async with OpenAiAudioEmulator(speech_first_s=0, speech_pace=0, key=key) as emulator:
            plugins = providers({"KOKORO_BASE_URL": f"{emulator.url}/v1", "OPENAI_API_KEY": "sk-ours"} | environ, [])
            voice = await plugins.get("openai-compatible").open(tts)
            assert await spoken(voice)
            assert (emulator.spoken[0].model, emulator.spoken[0].voice) == ("kokoro", "af_heart")
            assert not [seen for seen in emulator.seen if "sk-ours" in str(seen.headers)]
            await plugins.aclose()

    asyncio.run(run({}, "no-key-needed"))
    asyncio.run(run({"KOKORO_API_KEY": "k"}, "k"))


@pytest.mark.parametrize(
    ("tts", "setting"),
    [
        (Tts(model="m", voice="v"), "tts.endpoint"),
        (Tts(endpoint="my-own", model="m", voice="v"), "MY_OWN_BASE_URL"),
        (Tts(endpoint="bad", model="m", voice="v"), "BAD_BASE_URL"),
        (Tts(endpoint="kokoro", voice="v"), "tts.model"),
        (Tts(endpoint="kokoro", model="m"), "tts.voice"),
        (Tts(endpoint="kokoro", model="m", voice="v", options={"sample_rate_hz": 1}), "tts.options.sample_rate_hz"),
    ],
)
def test_a_compatible_server_must_be_described(tts, setting):
    environ = {"KOKORO_BASE_URL": "http://127.0.0.1:1/v1", "BAD_BASE_URL": "kokoro"}
    with pytest.raises(Misconfigured) as raised:
        providers(environ, []).get("openai-compatible").check(tts)
    assert raised.value.setting == setting
