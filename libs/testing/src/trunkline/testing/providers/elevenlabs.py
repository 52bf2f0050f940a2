"""ElevenLabs, emulated: speech over a WebSocket and over HTTP, Scribe's live transcription, and the list of models.

The wire format is that of ElevenLabs' published API description and of the types in its SDK. What is left out: MP3 and
Opus, pronunciation dictionaries, SSML, several contexts on one socket, and every endpoint that is not named here.
"""

import asyncio
import json
import uuid
from typing import Any, Final, NamedTuple

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from trunkline.audio.g711 import pcm16_to_mulaw
from trunkline.audio.resample import resample
from trunkline.testing.providers.content import RATE_HZ, Ear, Lines, Voice, tones
from trunkline.testing.providers.elevenlabs_mouth import speak_as_written
from trunkline.testing.providers.elevenlabs_scribe import listen
from trunkline.testing.providers.server import Answer, Emulator
from trunkline.testing.providers.sound import MALFORMED, UNKNOWN, say, translated

MODELS: Final = ("eleven_flash_v2_5", "eleven_turbo_v2_5", "eleven_multilingual_v2", "eleven_flash_v2")
FORMATS: Final = {
    "ulaw_8000": 8_000,
    "pcm_8000": 8_000,
    "pcm_16000": 16_000,
    "pcm_22050": 22_050,
    "pcm_24000": 24_000,
    "pcm_44100": 44_100,
}
_SAYS: Final = {
    400: "invalid_request",
    401: "invalid_api_key",
    404: "voice_not_found",
    429: "too_many_concurrent_requests",
    503: "system_busy",
}


class SpeechAsked(NamedTuple):
    """A sentence that was to be spoken over HTTP."""

    voice: str
    query: dict[str, str]
    body: dict[str, Any]


class ElevenLabsEmulator(Emulator):
    """One server for all of it.

    Args:
        voice: how it speaks.
        ear: what it hears in a stream.
        first_s: from the text of a generation to its first sound.
        final_s: from the caller's last sound to the words a commit gives; a later commit is answered at once.

    Attributes:
        voices: identifiers of voices there are; None: all.
        pace: audio is sent at so many times real time; 0: all at once.
        times_of: what the times of an alignment count from: their own message, or their generation's first.
        partial_every_s: audio between two partial transcripts.
        longest_s: audio after which Scribe commits by itself.
        least_s: audio below which a commit is refused (``commit_throttled``).
        complaint: an error's ``message_type``: what Scribe answers the next message with, before it closes.
        opened: the path of every WebSocket that was accepted.
        first_messages: the first message of every socket for speech.
        frames: the others.
        texts: what was spoken, one entry per generation.
        spoken_s: seconds of speech that went out.
        asked: sentences that came over HTTP.
        streams: the query of every stream for Scribe, with its repeated keys.
        commits: how many commits were ordered.
    """

    def __init__(
        self,
        *,
        voice: Voice | None = None,
        ear: Ear | None = None,
        key: str = "test-key",
        first_s: float = 0.1,
        final_s: float = 0.25,
    ) -> None:
        super().__init__(key=key)
        self.voice: Voice = voice or tones(440)
        self.ear: Ear = ear or Lines([])
        self.first_s = first_s
        self.final_s = final_s
        self.voices: frozenset[str] | None = None
        self.models: tuple[str, ...] = MODELS
        self.formats = FORMATS
        self.pace = 4.0
        self.times_of = "message"
        self.partial_every_s = 0.25
        self.longest_s = 90.0
        self.least_s = 0.3
        self.complaint = ""
        self.opened: list[str] = []
        self.first_messages: list[dict[str, Any]] = []
        self.frames: list[dict[str, Any]] = []
        self.texts: list[str] = []
        self.spoken_s = 0.0
        self.asked: list[SpeechAsked] = []
        self.streams: list[list[tuple[str, str]]] = []
        self.commits = 0

    def routes(self) -> list[web.RouteDef]:
        """Return what is served."""
        return [
            web.get("/v1/text-to-speech/{voice}/stream-input", self._speak_as_written),
            web.post("/v1/text-to-speech/{voice}/stream", self._speak),
            web.get("/v1/speech-to-text/realtime", self._transcribe),
            web.get("/v1/models", self._models),
        ]

    def refusal(self, status: int, text: str) -> web.Response:
        """Return ElevenLabs' refusal: a status word and a message."""
        detail = {"status": _SAYS.get(status, "invalid_request"), "message": text}
        return web.json_response({"detail": detail}, status=status, headers={"request-id": uuid.uuid4().hex})

    def unknown(self) -> str:
        """Return a message that is neither sound nor words nor an error."""
        return '{"message_type": "brand_new_thing", "value": 1}'

    def malformed(self) -> str:
        """Return a message that breaks off."""
        return '{"message_type": "committed_tr", "audio": "AAA'

    def sound(self, text: str, output_format: str, speed: float = 1.0) -> tuple[bytes, int]:
        """Return `text` as sound in `output_format`, and how many bytes of it are a second."""
        samples: NDArray[np.int16] = self.voice(text)
        if speed != 1:
            samples = samples[np.arange(0, max(0, len(samples) - 1), speed).astype(np.int64)]
        rate_hz = FORMATS[output_format]
        if rate_hz != RATE_HZ:
            samples = resample(samples, RATE_HZ, rate_hz)
        pcm = samples.astype("<i2").tobytes()
        return (pcm16_to_mulaw(pcm), rate_hz) if output_format.startswith("ulaw") else (pcm, 2 * rate_hz)

    async def _admitted(self, request: web.Request, *, keyless: bool = False) -> web.StreamResponse | None:
        given = request.headers.get("xi-api-key", "")
        return await self.admit(request, self.key if keyless and not given else given)

    async def _speak_as_written(self, request: web.Request) -> web.StreamResponse:
        if refused := await self._admitted(request, keyless=True):
            return refused
        async with self.socket(request) as (ws, answer):
            self.opened.append(request.path)
            await speak_as_written(self, request, ws, answer)
        return ws

    async def _transcribe(self, request: web.Request) -> web.StreamResponse:
        if refused := await self._admitted(request, keyless="token" in request.query):
            return refused
        async with self.socket(request) as (ws, answer):
            self.opened.append(request.path)
            self.streams.append(list(request.query.items()))
            await listen(self, request, ws, answer)
        return ws

    async def _models(self, request: web.Request) -> web.StreamResponse:
        if refused := await self._admitted(request):
            return refused
        told = [
            {
                "model_id": model,
                "name": model.replace("_", " ").title(),
                "can_do_text_to_speech": True,
                "can_do_voice_conversion": False,
                "can_use_style": "multilingual" in model,
                "can_use_speaker_boost": True,
                "serves_pro_voices": False,
                "token_cost_factor": 1.0 if "multilingual" in model else 0.5,
                "languages": [{"language_id": "en", "name": "English"}],
            }
            for model in self.models
        ]
        return web.json_response(told)

    async def _speak(self, request: web.Request) -> web.StreamResponse:
        if refused := await self._admitted(request):
            return refused
        voice, output_format = request.match_info["voice"], request.query.get("output_format", "mp3_44100_128")
        try:
            body = json.loads(await request.read())
            text, model = str(body["text"]), body.get("model_id") or "eleven_multilingual_v2"
            speed = float((body.get("voice_settings") or {}).get("speed") or 1.0)
        except (ValueError, LookupError, TypeError, AttributeError):
            where = {"loc": ["body", "text"], "msg": "Field required", "type": "missing"}
            return web.json_response({"detail": [where]}, status=422)
        if self.voices is not None and voice not in self.voices:
            return self.refusal(404, f"A voice with voice_id '{voice}' was not found.")
        if model not in self.models:
            return self.refusal(400, f"A model with model ID {model} does not exist.")
        if output_format not in FORMATS:
            return self.refusal(400, f"Unsupported output format: {output_format}")
        self.asked.append(SpeechAsked(voice, dict(request.query), body))
        cost = len(text) // 2 if "flash" in model or "turbo" in model else len(text)
        headers = {"content-type": "audio/basic", "character-cost": str(cost), "request-id": uuid.uuid4().hex}
        response = web.StreamResponse(headers=headers)
        await asyncio.sleep(self.first_s)
        await response.prepare(request)
        write = translated(request, response.write, b"", None)

        async def send(data: bytes) -> None:
            marks = {self.unknown().encode(): UNKNOWN.encode(), self.malformed().encode(): MALFORMED.encode()}
            await write(marks.get(data, data))

        answer = Answer(self, request, send, response)
        sound, per_s = self.sound(text, output_format, speed)
        await say(answer, sound, self.pace * per_s / 2)
        self.spoken_s += len(sound) / per_s
        return await answer.end()
