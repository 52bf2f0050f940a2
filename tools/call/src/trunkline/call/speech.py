"""The caller's words as audio: the one place that knows the local TTS provider and WAV files."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trunkline.audio import wav
from trunkline.audio.errors import BadWav
from trunkline.audio.levels import Voicing, voiced_spans
from trunkline.audio.resample import resample
from trunkline.call.caller import Clips
from trunkline.call.errors import NoVoice
from trunkline.call.scenario import BargeIn, Scenario, Step, Voice
from trunkline.proto.agent import Tts
from trunkline.providers.errors import Unusable
from trunkline.testing.twilio import RATE_HZ
from trunkline.tts.provider import TtsVoice
from trunkline.tts.providers.local import LocalProvider

_MARGIN_MS: Final = 20
_QUIET: Final = Voicing(threshold_dbfs=-50.0, min_ms=20)


async def prepare_speech(scenario: Scenario) -> Clips:
    """Return the speech of every step that speaks, at 8 kHz and without silence around it.

    Raises:
        NoVoice: the voice is unknown, the words make no sound, or a WAV cannot be read.
    """
    clips: dict[int, NDArray[np.int16]] = {}
    voice: TtsVoice | None = None
    try:
        for number, step in enumerate(scenario.steps):
            match step:
                case Step(wav=str() as file):
                    clips[number] = _trimmed(wav.read_mono(Path(file), RATE_HZ), file)
                case Step(say=str() as words) | Step(barge_in=BargeIn(say=words)):
                    voice = voice or await _open(scenario.caller)
                    clips[number] = _trimmed(await _speak(voice, words), words)
                case _:
                    pass
    except (BadWav, Unusable) as error:
        raise NoVoice(f"scenario {scenario.name!r}: {error}") from error
    finally:
        if voice is not None:
            await voice.aclose()
    return clips


async def _open(caller: Voice) -> TtsVoice:
    return await LocalProvider({}).open(Tts(voice=caller.voice, speed=caller.speed, pitch=caller.pitch))


async def _speak(voice: TtsVoice, words: str) -> NDArray[np.int16]:
    async def sentence() -> AsyncGenerator[str, None]:
        yield words

    pcm = b"".join([block async for block in voice.speak(sentence()) if isinstance(block, bytes)])
    return resample(np.frombuffer(pcm, "<i2"), voice.sample_rate_hz, RATE_HZ)


def _trimmed(samples: NDArray[np.int16], what: str) -> NDArray[np.int16]:
    """Cut silence off, so that the first and the last sample are the caller's first and last sound."""
    spans = voiced_spans(samples, RATE_HZ, _QUIET)
    if not spans:
        raise NoVoice(f"there is no sound in {what!r}")
    start, end = max(0, spans[0].start_ms - _MARGIN_MS), spans[-1].end_ms
    return samples[start * RATE_HZ // 1_000 : end * RATE_HZ // 1_000]
