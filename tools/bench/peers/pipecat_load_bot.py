# mypy: disable-error-code="import-not-found,misc,untyped-decorator,unused-ignore"
# What it imports lives in the peer's environment only (out/peers/pipecat), where it runs.
"""The peer under load, as cheap as its settings make it.

    out/peers/pipecat/bin/python -m tools.bench.peers.pipecat_load_bot --port 8000

As `pipecat_bot`, but turns begin and end by voice activity alone (no model judges whether the caller has finished),
after the same 200 ms of silence that the agent ``bench`` waits for; the mind answers at once with the same twelve
words, the voice with the same two seconds of one tone. Metrics are off, as they are by default.
"""

import argparse
import os
import sys
from collections.abc import AsyncGenerator
from typing import Any, Final

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response, WebSocket
from loguru import logger
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADParams
from pipecat.frames.frames import Frame, LLMRunFrame, TranscriptionFrame, TTSAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair, LLMUserAggregatorParams
from pipecat.runner.utils import parse_telephony_websocket
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.services.settings import STTSettings, TTSSettings
from pipecat.services.stt_service import SegmentedSTTService
from pipecat.services.tts_service import TTSService
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.turns.user_start import VADUserTurnStartStrategy
from pipecat.turns.user_stop import SpeechTimeoutUserTurnStopStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.utils.time import time_now_iso8601
from pipecat.workers.runner import WorkerRunner

from tools.bench.peers.hook import twiml
from tools.bench.peers.pipecat_bot import CountingMind

RATE_HZ: Final = 8_000
ANSWER: Final = "This answer has twelve words and is given to you at once."
SILENCE_S: Final = 0.2
_AT: Final = np.arange(2 * RATE_HZ) / RATE_HZ
TONE: Final = (8_000 * np.sin(2 * np.pi * 440 * _AT)).astype("<i2").tobytes()


class InstantTranscriber(SegmentedSTTService):
    """Hears the same word in every stretch of speech, at once, and for good."""

    def __init__(self) -> None:
        super().__init__(settings=STTSettings(model=None, language=None), ttfs_p99_latency=SILENCE_S)

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:  # noqa: ARG002 - whatever it holds
        """Transcribe one stretch of speech."""
        yield TranscriptionFrame("hello", "", time_now_iso8601(), finalized=True)


class InstantMind(CountingMind):
    """Answers everything with the same sentence."""

    def __init__(self) -> None:
        super().__init__({"turn": 0, "s": 0})

    async def _answer(self, context: LLMContext) -> None:
        del context
        await self._say(ANSWER)


class ToneVoice(TTSService):
    """Two seconds of tone for every sentence, at once."""

    def __init__(self) -> None:
        super().__init__(
            push_start_frame=True,
            push_stop_frames=True,
            sample_rate=RATE_HZ,
            settings=TTSSettings(model=None, voice=None, language=None),
        )

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        """Yield the tone."""
        del text
        yield TTSAudioRawFrame(TONE, RATE_HZ, 1, context_id=context_id)


async def serve_call(websocket: WebSocket) -> None:
    """Talk to one caller until one side ends it."""
    _, called = await parse_telephony_websocket(websocket)
    serializer = TwilioFrameSerializer(
        stream_sid=called["stream_id"],
        call_sid=called["call_id"],
        params=TwilioFrameSerializer.InputParams(auto_hang_up=False),
    )
    transport = FastAPIWebsocketTransport(
        websocket=websocket,
        params=FastAPIWebsocketParams(
            audio_in_enabled=True, audio_out_enabled=True, add_wav_header=False, serializer=serializer
        ),
    )
    user, assistant = LLMContextAggregatorPair(
        LLMContext(),
        user_params=LLMUserAggregatorParams(
            vad_analyzer=SileroVADAnalyzer(params=VADParams(stop_secs=SILENCE_S)),
            user_turn_strategies=UserTurnStrategies(
                start=[VADUserTurnStartStrategy()], stop=[SpeechTimeoutUserTurnStopStrategy(user_speech_timeout=0.0)]
            ),
        ),
    )
    pipeline = Pipeline(
        [transport.input(), InstantTranscriber(), user, InstantMind(), ToneVoice(), transport.output(), assistant]
    )
    worker = PipelineWorker(
        pipeline, params=PipelineParams(audio_in_sample_rate=RATE_HZ, audio_out_sample_rate=RATE_HZ)
    )
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)

    @transport.event_handler("on_client_connected")
    async def on_client_connected(_transport: Any, _client: Any) -> None:
        await worker.queue_frames([LLMRunFrame()])

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(_transport: Any, _client: Any) -> None:
        await runner.cancel()

    await runner.run()


def application() -> FastAPI:
    """Return the server: a voice hook and a media socket."""
    app = FastAPI()

    @app.post("/voice")
    async def voice(request: Request) -> Response:
        return Response(twiml(f"ws://{request.headers['host']}/ws", ""), media_type="application/xml")

    @app.get("/up")
    async def up() -> Response:
        return Response("up")

    @app.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()
        await serve_call(websocket)

    return app


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    logger.remove()
    logger.add(sys.stderr, level=os.environ.get("PEER_LOG", "WARNING"))
    SileroVADAnalyzer()
    uvicorn.run(application(), host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main()
