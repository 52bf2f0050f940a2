# mypy: disable-error-code="import-not-found,misc,untyped-decorator,unused-ignore"
# What it imports lives in the peer's environment only (out/peers/pipecat), where it runs.
"""The peer under load, as cheap as its settings make it.

    out/peers/pipecat/bin/python -m tools.bench.peers.pipecat_load_bot --port 8000

As `pipecat_bot`, but turns begin and end by voice activity alone (no model judges whether the caller has finished),
after the same 200 ms of silence that the agent ``bench`` waits for (with BENCH_EQUAL_VAD=1 voice is also believed in as
soon, and from the same probability on); the mind answers at once with the same twelve
words, the voice with the same two seconds of one tone. Metrics are off, as they are by default.
"""

import os
from collections.abc import AsyncGenerator
from typing import Final

import numpy as np
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADParams
from pipecat.frames.frames import Frame, TranscriptionFrame, TTSAudioRawFrame
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMUserAggregatorParams
from pipecat.services.settings import STTSettings
from pipecat.services.stt_service import SegmentedSTTService
from pipecat.turns.user_start import VADUserTurnStartStrategy
from pipecat.turns.user_stop import SpeechTimeoutUserTurnStopStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.utils.time import time_now_iso8601

from tools.bench.peers import tones
from tools.bench.peers.pipecat_bot import CountingMind, Parts, TonesVoice, application, serve

ANSWER: Final = "This answer has twelve words and is given to you at once."
SILENCE_S: Final = 0.2
EQUAL: Final = "BENCH_EQUAL_VAD"
"""Variable: set, the detector is as eager as that of agent ``bench``, not as Pipecat's defaults have it."""
OUR_VAD: Final = VADParams(confidence=0.5, start_secs=0.096, stop_secs=SILENCE_S, min_volume=0.0)
_AT: Final = np.arange(2 * tones.RATE_HZ) / tones.RATE_HZ
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


class ToneVoice(TonesVoice):
    """Two seconds of tone for every sentence, at once."""

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        """Yield the tone."""
        del text
        yield TTSAudioRawFrame(TONE, tones.RATE_HZ, 1, context_id=context_id)


def parts() -> Parts:
    """Return what one call is made of."""
    strategies = UserTurnStrategies(
        start=[VADUserTurnStartStrategy()], stop=[SpeechTimeoutUserTurnStopStrategy(user_speech_timeout=0.0)]
    )
    params = OUR_VAD if os.environ.get(EQUAL) else VADParams(stop_secs=SILENCE_S)
    analyzer = SileroVADAnalyzer(params=params)
    user = LLMUserAggregatorParams(vad_analyzer=analyzer, user_turn_strategies=strategies)
    return Parts(InstantTranscriber(), InstantMind(), ToneVoice(), user)


if __name__ == "__main__":
    parts()  # load what the first call would have to wait for
    serve(application(parts), __doc__)
