"""The emulated Deepgram, as the official SDK sees it."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
from deepgram import AsyncDeepgramClient
from deepgram.core.api_error import ApiError
from deepgram.environment import DeepgramClientEnvironment
from deepgram.listen.v2.types.listen_v2configure import ListenV2Configure
from deepgram.speak.v1.types.speak_v1text import SpeakV1Text
from websockets.exceptions import ConnectionClosed

from trunkline.audio.g711 import pcm16_to_mulaw
from trunkline.testing.patience import PATIENCE_S
from trunkline.testing.providers import Lines, tones
from trunkline.testing.providers.deepgram import DeepgramEmulator

pytestmark = pytest.mark.integration

LINES = ["A table for two.", "Tomorrow at eight."]
MULAW: dict[str, Any] = {"encoding": "mulaw", "sample_rate": 8_000}


@asynccontextmanager
async def deepgram(**timing: float) -> AsyncIterator[tuple[DeepgramEmulator, AsyncDeepgramClient]]:
    ear, voice = Lines(LINES), tones(440, ms_per_character=10)
    async with DeepgramEmulator(ear=ear, voice=voice, **{"final_s": 0.02, "speak_first_s": 0.02, **timing}) as emulator:
        sockets = emulator.url.replace("http", "ws")
        where = DeepgramClientEnvironment(base=emulator.url, production=sockets, agent=sockets, agent_rest=emulator.url)
        yield emulator, AsyncDeepgramClient(api_key="test-key", environment=where)


def run(story: Coroutine[Any, Any, None]) -> None:
    async def told() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await story

    asyncio.run(told())


async def send(socket: Any, seconds: float, *, voice: bool) -> None:
    for _ in range(round(seconds / 0.1)):
        tone = (6_000 * np.sin(np.arange(800) * 0.3)) if voice else np.zeros(800)
        await socket.send_media(pcm16_to_mulaw(tone.astype("<i2").tobytes()))
        await asyncio.sleep(0.005)


async def rest(socket: Any) -> list[Any]:
    found = []
    try:
        while True:
            found.append(await socket.recv())
    except ConnectionClosed:
        return found


def test_nova_tells_what_it_hears_in_results() -> None:
    async def story() -> None:
        async with deepgram() as (emulator, client):
            asked: dict[str, Any] = {"interim_results": True, "vad_events": True, "utterance_end_ms": 1_000}
            async with client.listen.v1.connect(
                model="nova-3", keyterm=["Bella", "Vista"], endpointing=300, **asked, **MULAW
            ) as socket:
                await send(socket, 1.5, voice=True)
                await send(socket, 1.5, voice=False)
                await send(socket, 1.5, voice=True)
                await socket.send_finalize()
                await send(socket, 0.2, voice=False)
                await socket.send_keep_alive()
                await socket.send_close_stream()
                told = await rest(socket)
            kinds = [message.type for message in told]
            assert kinds.count("SpeechStarted") == 2
            assert kinds.count("UtteranceEnd") == 1
            assert kinds[-1] == "Metadata"
            assert told[-1].duration == pytest.approx(4.7)
            results = [message for message in told if message.type == "Results"]
            assert any(not result.is_final for result in results)
            fixed = [result for result in results if result.is_final]
            assert [result.channel.alternatives[0].transcript for result in fixed if result.speech_final] == LINES[:1]
            words = [word for result in fixed for word in result.channel.alternatives[0].words]
            assert [word.punctuated_word for word in words] == " ".join(LINES).split()
            assert any(result.from_finalize for result in fixed)
            ends = [result.start + result.duration for result in fixed]
            assert [result.start for result in fixed] == [0.0, *(pytest.approx(end) for end in ends[:-1])]
            assert [value for name, value in emulator.asked[0] if name == "keyterm"] == ["Bella", "Vista"]
            assert emulator.orders == ["Finalize", "KeepAlive", "CloseStream"]

    run(story())


def test_nova_closes_a_stream_that_is_silent() -> None:
    async def story() -> None:
        async with deepgram() as (emulator, client):
            emulator.idle_s = 0.1
            async with client.listen.v1.connect(model="nova-3", **MULAW) as socket:
                with pytest.raises(ConnectionClosed) as closed:
                    await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1011
            assert "NET-0001" in closed.value.rcvd.reason

    run(story())


def test_flux_tells_turns() -> None:
    async def story() -> None:
        async with deepgram() as (emulator, client):
            async with client.listen.v2.connect(model="flux-general-en", eager_eot_threshold=0.4, **MULAW) as socket:
                await socket.send_configure(ListenV2Configure(type="Configure", keyterms=["Bella"]))
                await send(socket, 1.5, voice=True)
                await send(socket, 0.3, voice=False)
                await send(socket, 0.5, voice=True)
                await send(socket, 1.0, voice=False)
                emulator.turn_silence_s = 9
                await send(socket, 1.5, voice=True)
                await socket.send_force_end_turn()
                await send(socket, 0.2, voice=False)
                await socket.send_close_stream()
                told = await rest(socket)
            assert [message.sequence_id for message in told] == list(range(len(told)))
            assert [message.type for message in told[:2]] == ["Connected", "ConfigureSuccess"]
            turns = told[2:]
            events = [turn.event for turn in turns if turn.event != "Update"]
            assert events[:4] == ["StartOfTurn", "EagerEndOfTurn", "TurnResumed", "EagerEndOfTurn"]
            over = [turn for turn in turns if turn.event == "EndOfTurn"]
            assert [(turn.turn_index, turn.transcript, turn.trigger) for turn in over] == [
                (0, LINES[0], "model"),
                (1, LINES[1], "manual"),
            ]
            assert over[1].audio_window_start == over[0].audio_window_end

    run(story())


@pytest.mark.parametrize(
    ("encoding", "rate_hz", "size"), [("linear16", 8_000, 2), ("linear16", 24_000, 6), ("mulaw", 8_000, 1)]
)
def test_aura_speaks_what_is_flushed_and_forgets_what_is_cleared(encoding: str, rate_hz: int, size: int) -> None:
    async def story() -> None:
        async with deepgram() as (emulator, client):
            emulator.pace = 20
            asked: dict[str, Any] = {"encoding": encoding, "sample_rate": rate_hz}
            async with client.speak.v1.connect(model="aura-2-thalia-en", **asked) as socket:
                assert (await socket.recv()).model_name == "aura-2-thalia-en"
                await socket.send_text(SpeakV1Text(text="Never said."))
                await socket.send_clear()
                assert (await socket.recv()).type == "Cleared"
                await socket.send_text(SpeakV1Text(text="Hello, "))
                await socket.send_text(SpeakV1Text(text="caller"))
                await socket.send_flush()
                sound = b""
                while isinstance(message := await socket.recv(), bytes):
                    sound += message
                assert (message.type, message.sequence_id) == ("Flushed", 1)
                assert len(sound) == len("Hello, caller") * 80 * size
                emulator.flushes = 1
                await socket.send_flush()
                assert (await socket.recv()).type == "Warning"
                await socket.send_close()
                assert await rest(socket) == []

    run(story())


def test_refusals_are_deepgram_s() -> None:
    def asked(url: str, key: str) -> tuple[int, dict[str, str], str]:
        try:
            with urlopen(Request(url, headers={"Authorization": f"Token {key}"})) as response:  # noqa: S310 - our own
                return response.status, {}, ""
        except OSError as error:
            return error.code, json.loads(error.read()), error.headers["dg-error"]  # type: ignore[attr-defined]

    async def story() -> None:
        async with deepgram() as (emulator, client):
            status, body, header = await asyncio.to_thread(asked, f"{emulator.url}/v1/listen?model=nova-3", "wrong")
            assert (status, body["err_code"], header) == (401, "INVALID_AUTH", body["err_msg"])
            assert body["request_id"]
            status, body, _ = await asyncio.to_thread(asked, f"{emulator.url}/v1/listen?model=whisper", "test-key")
            assert (status, body["err_code"]) == (400, "Bad Request")
            with pytest.raises(ApiError) as refused:
                async with client.listen.v2.connect(model="nova-3", **MULAW):
                    pass
            assert refused.value.status_code == 400

    run(story())
