"""The emulator as the official SDK sees it."""

import asyncio
import io
import wave

import numpy as np
import openai
import pytest

from trunkline.testing.providers.content import Lines, tones
from trunkline.testing.providers.openai_audio import OpenAiAudioEmulator
from trunkline.testing.providers.server import Fault

pytestmark = pytest.mark.integration


def client_of(emulator, key="test-key"):
    return openai.AsyncOpenAI(base_url=f"{emulator.url}/v1", api_key=key, max_retries=0)


def recording(*, rate_hz=16_000, loud_s=1.2):
    at = np.arange(int(loud_s * rate_hz)) / rate_hz
    loud = 8_000 * np.sin(2 * np.pi * 300 * at)
    silent = np.zeros(rate_hz // 2)
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(rate_hz)
        wav.writeframes(np.concatenate([silent, loud, silent]).astype("<i2").tobytes())
    return ("call.wav", file.getvalue(), "audio/wav")


def told(story, **settings):
    """Run `story` with a quick emulator and a client."""

    async def run():
        quick = {"speech_first_s": 0, "speech_pace": 0, "transcribe_s": 0} | settings
        async with OpenAiAudioEmulator(**quick) as emulator, client_of(emulator) as client:
            await story(emulator, client)

    asyncio.run(run())


def pitch_hz(pcm, rate_hz):
    spectrum = np.abs(np.fft.rfft(np.frombuffer(pcm, "<i2")))
    return np.argmax(spectrum) * rate_hz / (len(pcm) // 2)


def test_speech_is_raw_pcm_at_24_khz_as_long_as_the_voice_says():
    async def story(emulator, client):
        answer = await client.audio.speech.create(
            model="gpt-4o-mini-tts", input="hellothere", voice="coral", response_format="pcm", instructions="Be kind."
        )
        pcm = answer.content
        assert abs(len(pcm) / 2 / 24_000 - 0.6) < 0.01
        assert abs(pitch_hz(pcm, 24_000) - 500) < 5
        assert emulator.spoken[0]._asdict() == {
            "model": "gpt-4o-mini-tts",
            "text": "hellothere",
            "voice": "coral",
            "speed": 1.0,
            "instructions": "Be kind.",
        }

    told(story, voice=tones(500))


def test_speed_shortens_speech_and_a_wav_file_says_that_its_length_is_unknown():
    async def story(_, client):
        answer = await client.audio.speech.create(
            model="tts-1", input="hellothere", voice="alloy", response_format="wav", speed=2.0
        )
        header, pcm = answer.content[:44], answer.content[44:]
        assert (header[:4], header[4:8], header[36:40]) == (b"RIFF", b"\xff" * 4, b"data")
        assert abs(len(pcm) / 2 / 24_000 - 0.3) < 0.01

    told(story)


def test_requests_are_refused_as_the_vendor_refuses_them():
    async def story(emulator, client):
        with pytest.raises(openai.BadRequestError, match="string too long"):
            await client.audio.speech.create(model="tts-1", input="a" * 5_000, voice="alloy", response_format="pcm")
        with pytest.raises(openai.BadRequestError, match="voice"):
            await client.audio.speech.create(model="tts-1", input="hello", voice="", response_format="pcm")
        with pytest.raises(openai.BadRequestError, match="corrupted"):
            await client.audio.transcriptions.create(model="whisper-1", file=("call.wav", b"no sound"))
        async with client_of(emulator, "sk-wrong") as stranger:
            with pytest.raises(openai.AuthenticationError) as refused:
                await stranger.models.list()
        assert (refused.value.code, refused.value.status_code) == ("invalid_api_key", 401)
        await emulator.inject(Fault.THROTTLED)
        with pytest.raises(openai.RateLimitError) as throttled:
            await client.models.list()
        assert throttled.value.response.headers["retry-after"] == "7"

    told(story)


def test_a_recording_is_heard_at_its_own_rate():
    async def story(emulator, client):
        for rate_hz in (8_000, 16_000, 44_100):
            answer = await client.audio.transcriptions.create(
                model="gpt-4o-mini-transcribe", file=recording(rate_hz=rate_hz), language="en", prompt="Trunkline"
            )
            assert answer.text == "a table for two"
            assert answer.usage.type == "tokens"
            assert emulator.heard[-1].rate_hz == rate_hz
            assert emulator.heard[-1].fields["language"] == ("en",)
            assert emulator.heard[-1].fields["prompt"] == ("Trunkline",)

    told(story, ear=Lines(["a table for two"] * 3))


def test_words_come_with_times_when_they_are_asked_for():
    async def story(_, client):
        answer = await client.audio.transcriptions.create(
            model="whisper-1",
            file=recording(),
            response_format="verbose_json",
            timestamp_granularities=["word"],
        )
        assert [word.word for word in answer.words] == ["a", "table"]
        assert 0.45 < answer.words[0].start < answer.words[0].end <= answer.words[1].start < 1.8
        assert (answer.usage.type, answer.usage.seconds, answer.duration) == ("duration", 2.2, 2.2)

    told(story, ear=Lines(["a table"]))


def test_a_transcript_can_be_streamed_but_not_by_whisper():
    async def story(_, client):
        stream = await client.audio.transcriptions.create(model="gpt-4o-transcribe", file=recording(), stream=True)
        events = [event async for event in stream]
        deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
        assert "".join(deltas) == "a table for two"
        assert (events[-1].type, events[-1].text) == ("transcript.text.done", "a table for two")
        assert events[-1].usage.total_tokens == events[-1].usage.input_tokens + events[-1].usage.output_tokens

    told(story, ear=Lines(["a table for two"]))


@pytest.mark.parametrize("fault", [Fault.UNKNOWN_TYPE, Fault.MALFORMED])
def test_a_streamed_transcript_can_hold_what_nobody_knows_or_nobody_can_read(fault):
    async def story(emulator, client):
        await emulator.inject(fault, times=1)
        stream = await client.audio.transcriptions.create(model="gpt-4o-transcribe", file=recording(), stream=True)
        if fault is Fault.MALFORMED:
            with pytest.raises(ValueError):  # noqa: PT011 - the SDK leaves json's own error
                [event async for event in stream]
        else:
            types = [event.type async for event in stream]
            assert types.count("transcript.text.brand_new") == 1
            assert types[-1] == "transcript.text.done"

    told(story, ear=Lines(["a table for two"]))


def test_models_are_listed():
    async def story(_, client):
        assert "gpt-transcribe" in [model.id async for model in client.models.list()]
        assert (await client.models.retrieve("whisper-1")).id == "whisper-1"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("none-such")

    told(story)
