# mypy: disable-error-code="import-not-found,misc,untyped-decorator,unused-ignore"
# What it imports lives in the peer's environment only (out/peers/pipecat), where it runs.
"""The peer: a telephone agent built with Pipecat the way its documentation and its Twilio example build one.

    out/peers/pipecat/bin/python -m tools.bench.peers.pipecat_bot --port 8000

Sources: https://docs.pipecat.ai/api-reference/server/services/transport/fastapi-websocket (transport),
https://github.com/pipecat-ai/pipecat-examples/tree/main/twilio-chatbot (server, serializer, 8 kHz, greeting on connect,
cancel on disconnect), https://docs.pipecat.ai/pipecat/learn/speech-input (Silero, turn strategies by default),
https://docs.pipecat.ai/pipecat/deployment/telephony-in-production (what a hook and a socket have to do).

Only the vendors are ours: a transcriber that hears "hello", a mind that counts the caller's turns in its context, a
voice of tones. Each is written upon the base class that Pipecat has for it.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, NamedTuple

import uvicorn
from fastapi import FastAPI, Request, Response, WebSocket
from loguru import logger
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import (
    Frame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMRunFrame,
    LLMTextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair, LLMUserAggregatorParams
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.runner.utils import parse_telephony_websocket
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.services.llm_service import LLMService
from pipecat.services.settings import LLMSettings, STTSettings, TTSSettings
from pipecat.services.stt_service import SegmentedSTTService
from pipecat.services.tts_service import TTSService
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.utils.time import time_now_iso8601
from pipecat.workers.runner import WorkerRunner

from tools.bench.peers import tones
from tools.bench.peers.hook import twiml

THINK_S: Final = 0.4
"""How long the mind takes; nothing would be killed while it thinks if it took no time."""
FASTER: Final = 4.0
PIECE_MS: Final = 40
_PIECE_BYTES: Final = 2 * tones.RATE_HZ * PIECE_MS // 1_000


class OneWordTranscriber(SegmentedSTTService):
    """Hears the same word in every stretch of speech, at once."""

    def __init__(self) -> None:
        super().__init__(settings=STTSettings(model=None, language=None), ttfs_p99_latency=0.3)

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:  # noqa: ARG002 - whatever it holds
        """Transcribe one stretch of speech."""
        yield TranscriptionFrame("hello", "", time_now_iso8601())


class CountingMind(LLMService):
    """Says how often the caller has spoken in the context it is given; without any turn there, it greets."""

    def __init__(self, stall: dict[str, float]) -> None:
        super().__init__(
            settings=LLMSettings(
                model=None,
                system_instruction=None,
                temperature=None,
                max_tokens=None,
                top_p=None,
                top_k=None,
                frequency_penalty=None,
                presence_penalty=None,
                seed=None,
                filter_incomplete_user_turns=False,
                user_turn_completion_config=None,
            )
        )
        self._stall = stall

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Answer a context; pass everything else on."""
        await super().process_frame(frame, direction)
        if not isinstance(frame, LLMContextFrame):
            await self.push_frame(frame, direction)
            return
        await self.push_frame(LLMFullResponseStartFrame())
        try:
            await self._answer(frame.context)
        finally:
            await self.push_frame(LLMFullResponseEndFrame())

    async def _answer(self, context: LLMContext) -> None:
        said = sum(message.get("role") == "user" for message in context.get_messages() if isinstance(message, dict))
        await asyncio.sleep(THINK_S)
        if said == self._stall["turn"]:
            await asyncio.sleep(self._stall["s"])
        await self._say(tones.sentence(said) if said else " ".join(tones.GREETING).capitalize() + ".")

    async def _say(self, text: str) -> None:
        for word in text.split():
            await self.push_frame(LLMTextFrame(word + " "))


class TonesVoice(TTSService):
    """Says every word as its tone, faster than it is heard."""

    def __init__(self) -> None:
        super().__init__(
            push_start_frame=True,
            push_stop_frames=True,
            sample_rate=tones.RATE_HZ,
            settings=TTSSettings(model=None, voice=None, language=None),
        )

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        """Yield the sound of `text` in pieces."""
        pcm = tones.sound(text)
        for begin in range(0, len(pcm), _PIECE_BYTES):
            piece = pcm[begin : begin + _PIECE_BYTES]
            yield TTSAudioRawFrame(piece, tones.RATE_HZ, 1, context_id=context_id)
            await asyncio.sleep(PIECE_MS / 1_000 / FASTER)


class Parts(NamedTuple):
    """What a call's pipeline is made of, beside the transport."""

    ear: FrameProcessor
    mind: FrameProcessor
    voice: FrameProcessor
    user: LLMUserAggregatorParams


async def serve_call(websocket: WebSocket, parts: Parts) -> None:
    """Talk to one caller until one side ends it."""
    _, called = await parse_telephony_websocket(websocket)
    serializer = TwilioFrameSerializer(
        stream_sid=called["stream_id"],
        call_sid=called["call_id"],
        # Hanging up goes through Twilio's REST interface, and there is no account here.
        params=TwilioFrameSerializer.InputParams(auto_hang_up=False),
    )
    transport = FastAPIWebsocketTransport(
        websocket=websocket,
        params=FastAPIWebsocketParams(
            audio_in_enabled=True, audio_out_enabled=True, add_wav_header=False, serializer=serializer
        ),
    )
    user, assistant = LLMContextAggregatorPair(LLMContext(), user_params=parts.user)
    pipeline = Pipeline([transport.input(), parts.ear, user, parts.mind, parts.voice, transport.output(), assistant])
    worker = PipelineWorker(
        pipeline, params=PipelineParams(audio_in_sample_rate=tones.RATE_HZ, audio_out_sample_rate=tones.RATE_HZ)
    )
    # uvicorn owns the signals, as in the example.
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)

    @transport.event_handler("on_client_connected")
    async def on_client_connected(_transport: Any, _client: Any) -> None:
        await worker.queue_frames([LLMRunFrame()])

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(_transport: Any, _client: Any) -> None:
        await runner.cancel()

    await runner.run()


def application(parts: Callable[[], Parts]) -> FastAPI:
    """Return the server: a voice hook, a media socket whose calls are made of `parts`, and a door to see it is up."""
    app = FastAPI()

    @app.post("/voice")
    async def voice(request: Request, then: str = "") -> Response:
        return Response(twiml(f"ws://{request.headers['host']}/ws", then), media_type="application/xml")

    @app.get("/up")
    async def up() -> Response:
        return Response("up")

    @app.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()
        await serve_call(websocket, parts())

    return app


def serve(app: FastAPI, doc: str | None) -> None:
    """Serve `app` on the port that the command line says, until told to end."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    logger.remove()
    logger.add(sys.stderr, level=os.environ.get("PEER_LOG", "WARNING"))
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


def main() -> None:
    """Serve, with one more door for whoever measures: it has the mind stall."""
    stall: dict[str, float] = {"turn": 0, "s": 0}
    app = application(
        lambda: Parts(
            OneWordTranscriber(),
            CountingMind(stall),
            TonesVoice(),
            LLMUserAggregatorParams(vad_analyzer=SileroVADAnalyzer()),
        )
    )

    @app.post("/stall")
    async def stall_at(turn: int, s: float) -> Response:
        stall.update(turn=turn, s=s)
        return Response("as told")

    # Load what the first call would have to wait for: ONNX, both models, what Pipecat imports late.
    SileroVADAnalyzer()
    UserTurnStrategies()
    CountingMind(stall)
    serve(app, __doc__)


if __name__ == "__main__":
    main()
