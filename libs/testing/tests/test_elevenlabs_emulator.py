"""The emulated ElevenLabs, asked by its own SDK and over bare sockets."""

import asyncio
import base64
import contextlib
import json
from collections.abc import Awaitable
from typing import Any

import httpx
import numpy as np
import pytest
from elevenlabs.client import AsyncElevenLabs
from elevenlabs.core.api_error import ApiError
from elevenlabs.realtime import AudioFormat, CommitStrategy, RealtimeEvents
from elevenlabs.types import AudioOutput, FinalOutput
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from trunkline.audio.g711 import pcm16_to_mulaw
from trunkline.testing.patience import PATIENCE_S
from trunkline.testing.providers import Fault, Lines, tones
from trunkline.testing.providers.elevenlabs import ElevenLabsEmulator

pytestmark = pytest.mark.integration

VOICE = "EXAVITQu4vr4xnSDxMaL"
HELLO = "Hello there, this is a sentence of more than fifty characters. "


def run(story: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await story

    asyncio.run(bounded())


def emulated(**more: Any) -> ElevenLabsEmulator:
    emulator = ElevenLabsEmulator(voice=tones(440, ms_per_character=10), first_s=0, final_s=0, **more)
    emulator.pace = 0
    return emulator


def speaker(emulator: ElevenLabsEmulator, query: str = "", key: str | None = "test-key") -> connect:
    url = f"ws{emulator.url[4:]}/v1/text-to-speech/{VOICE}/stream-input?model_id=eleven_flash_v2_5&{query}"
    return connect(url, additional_headers={"xi-api-key": key} if key else {})


async def say(socket: ClientConnection, text: str, **more: object) -> None:
    await socket.send(json.dumps({"text": text, **more}))


async def rest(socket: ClientConnection) -> list[dict[str, Any]]:
    try:
        return [json.loads(message) async for message in socket]
    except ConnectionClosed:
        return []


def test_text_is_spoken_once_enough_of_it_is_there() -> None:
    async def story() -> None:
        async with emulated() as emulator, speaker(emulator, "output_format=pcm_8000&sync_alignment=true") as socket:
            await say(socket, " ", generation_config={"chunk_length_schedule": [50]})
            await say(socket, "Too short. ")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(socket.recv(), 0.05)
            await say(socket, HELLO)
            said = AudioOutput.model_validate_json(await socket.recv())
            assert len(base64.b64decode(said.audio)) == 6_400
            assert said.alignment is not None
            assert "".join(said.alignment.chars or []).startswith("Too short. Hello")
            await say(socket, "")
            others = await rest(socket)
            assert FinalOutput.model_validate(others[-1]).is_final
            assert others[-1]["audio"] is None
            assert socket.close_code == 1000
            assert emulator.texts == [f"Too short. {HELLO}"]

    run(story())


def test_a_flush_waits_for_nothing() -> None:
    async def story() -> None:
        async with emulated() as emulator, speaker(emulator, "output_format=ulaw_8000") as socket:
            await say(socket, " ")
            await say(socket, "Hello. ", flush=True)
            assert len(base64.b64decode(json.loads(await socket.recv())["audio"])) == 480
            await say(socket, "Hello again, my friend. ", try_trigger_generation=True)
            assert json.loads(await socket.recv())["audio"]

    run(story())


@pytest.mark.parametrize(
    ("query", "first", "word"),
    [
        ("output_format=mp3_44100_128", {}, "output_format_not_supported"),
        ("output_format=pcm_8000", {"voice_settings": {"speed": 3}}, "invalid_voice_settings"),
        ("output_format=pcm_8000", {"generation_config": {"chunk_length_schedule": [5]}}, "invalid_generation_config"),
        ("output_format=pcm_8000&inactivity_timeout=0.05", {}, "input_timeout_exceeded"),
    ],
)
def test_what_is_wrong_is_told_before_the_socket_closes(query: str, first: dict[str, object], word: str) -> None:
    async def story() -> None:
        async with emulated() as emulator, speaker(emulator, query) as socket:
            with contextlib.suppress(ConnectionClosed):
                await say(socket, " ", **first)
            said = json.loads(await socket.recv())
            assert said["error"] == word
            assert said["code"] == 1008
            assert await rest(socket) == []
            assert socket.close_code == 1008

    run(story())


def test_the_key_may_come_with_the_first_message() -> None:
    async def story() -> None:
        async with emulated() as emulator:
            async with speaker(emulator, "output_format=pcm_8000", key=None) as socket:
                await say(socket, " ", xi_api_key="test-key")
                await say(socket, "Hello. ", flush=True)
                assert json.loads(await socket.recv())["audio"]
            async with speaker(emulator, "output_format=pcm_8000", key=None) as socket:
                await say(socket, " ")
                assert json.loads(await socket.recv())["error"] == "invalid_api_key"

    run(story())


def test_the_sdk_speaks_over_http_and_lists_the_models() -> None:
    async def story() -> None:
        async with emulated() as emulator, httpx.AsyncClient() as http:
            client = AsyncElevenLabs(base_url=emulator.url, api_key="test-key", httpx_client=http)
            speech = client.text_to_speech.stream(VOICE, text="Hello.", output_format="ulaw_8000")
            assert len(b"".join([piece async for piece in speech])) == 480
            assert "eleven_flash_v2_5" in [model.model_id for model in await client.models.list()]
            for output_format, status in (("mp3_44100_128", 400), ("ulaw_8000", 429)):
                if status == 429:
                    await emulator.inject(Fault.THROTTLED)
                with pytest.raises(ApiError) as refused:
                    async for _ in client.text_to_speech.stream(
                        VOICE, text="x", output_format=output_format, request_options={"max_retries": 0}
                    ):
                        pass
                assert refused.value.status_code == status
                assert set(refused.value.body["detail"]) == {"status", "message"}

    run(story())


@pytest.mark.parametrize("strategy", list(CommitStrategy))
def test_the_sdk_is_told_what_scribe_heard(strategy: CommitStrategy) -> None:
    async def story() -> None:
        async with emulated(ear=Lines(["A table for two."])) as emulator:
            client = AsyncElevenLabs(base_url=emulator.url, api_key="test-key")
            scribe = await client.speech_to_text.realtime.connect(
                {
                    "model_id": "scribe_v2_realtime",
                    "audio_format": AudioFormat.ULAW_8000,
                    "sample_rate": 8_000,
                    "commit_strategy": strategy,
                    "vad_silence_threshold_secs": 0.5,
                    "include_timestamps": True,
                }
            )
            told: list[dict[str, Any]] = []
            done = asyncio.Event()
            for event in (RealtimeEvents.SESSION_STARTED, RealtimeEvents.PARTIAL_TRANSCRIPT):
                scribe.on(event, told.append)
            scribe.on(RealtimeEvents.COMMITTED_TRANSCRIPT, told.append)
            scribe.on(RealtimeEvents.COMMITTED_TRANSCRIPT_WITH_TIMESTAMPS, lambda said: (told.append(said), done.set()))
            voice = (6_000 * np.sin(np.arange(800) * 0.3)).astype("<i2").tobytes()
            for pcm in [voice] * 12 + [bytes(1_600)] * 6:
                await scribe.send({"audio_base_64": base64.b64encode(pcm16_to_mulaw(pcm)).decode()})
            if strategy is CommitStrategy.MANUAL:
                await scribe.commit()
            await done.wait()
            await scribe.close()
            kinds = [said["message_type"] for said in told]
            assert kinds[0] == "session_started"
            assert "partial_transcript" in kinds
            assert kinds[-2:] == ["committed_transcript", "committed_transcript_with_timestamps"]
            assert told[-2]["text"] == "A table for two."
            assert [word["text"] for word in told[-1]["words"]] == ["A", "table", "for", "two."]

    run(story())


def test_scribe_says_what_it_does_not_like() -> None:
    async def story() -> None:
        async with emulated() as emulator:
            base = f"ws{emulator.url[4:]}/v1/speech-to-text/realtime?audio_format=ulaw_8000"
            headers = {"xi-api-key": "test-key"}
            async with connect(f"{base}&model_id=scribe_v1", additional_headers=headers) as socket:
                assert [said["message_type"] for said in [json.loads(await socket.recv())]] == ["invalid_request"]
            async with connect(f"{base}&model_id=scribe_v2_realtime", additional_headers=headers) as socket:
                assert json.loads(await socket.recv())["message_type"] == "session_started"
                chunk = {"message_type": "input_audio_chunk", "audio_base_64": "", "commit": True, "sample_rate": 8_000}
                await socket.send(json.dumps(chunk))
                assert json.loads(await socket.recv())["message_type"] == "commit_throttled"
                await socket.send("nonsense")
                assert json.loads(await socket.recv())["message_type"] == "input_error"

    run(story())
