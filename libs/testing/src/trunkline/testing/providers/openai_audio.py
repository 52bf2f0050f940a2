"""OpenAI's side of speech and transcription: what `openai-python` 3.x says to ``/v1/audio`` and reads from it.

Faults in the midst of a spoken answer are those of `sound`; in a transcript a malformed message is a fragment of JSON,
and one of unknown type a field or an event nobody knows.
"""

import asyncio
import email
import io
import json
import wave
from collections.abc import Awaitable
from typing import Any, Final, NamedTuple

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from trunkline.audio.resample import resample
from trunkline.testing.providers.content import RATE_HZ, Ear, Lines, Voice, WordHeard, tones
from trunkline.testing.providers.server import Answer, Emulator
from trunkline.testing.providers.sound import MALFORMED, UNKNOWN, say, translated

PCM_HZ: Final = 24_000
MODELS: Final = ("gpt-4o-mini-tts", "gpt-transcribe", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "whisper-1")
_LONGEST_INPUT: Final = 4_096


class SpeechAsked(NamedTuple):
    """A sentence that was to be spoken."""

    model: str
    text: str
    voice: str
    speed: float
    instructions: str


class TranscriptAsked(NamedTuple):
    """A recording that was to be transcribed."""

    model: str
    fields: dict[str, tuple[str, ...]]
    """Form fields but the file, in order of appearance."""
    rate_hz: int
    samples: NDArray[np.int16]
    """As sent, mono."""


class OpenAiAudioEmulator(Emulator):
    """Speaks and hears as OpenAI's audio endpoints do.

    Args:
        voice: what it speaks with.
        ear: what it hears with; each recording is a stream of its own.
        key: of the one account; empty: anybody is served.
        speech_first_s: from a request to the first of its sound.
        speech_pace: seconds of sound sent per second; 0: all at once.
        transcribe_s: from a recording to its words.

    Attributes:
        spoken: the sentences it was given.
        heard: the recordings it was given.
        left: how often a client went before the end of an answer.
    """

    def __init__(
        self,
        *,
        voice: Voice | None = None,
        ear: Ear | None = None,
        key: str = "test-key",
        speech_first_s: float = 0.2,
        speech_pace: float = 10.0,
        transcribe_s: float = 0.3,
    ) -> None:
        super().__init__(key=key)
        self._voice = voice or tones(440)
        self._ear = ear or Lines([])
        self._speech_first_s = speech_first_s
        self._speech_pace = speech_pace
        self._transcribe_s = transcribe_s
        self.spoken: list[SpeechAsked] = []
        self.heard: list[TranscriptAsked] = []
        self.left = 0

    def routes(self) -> list[web.RouteDef]:
        """Serve the endpoints."""
        return [
            web.post("/v1/audio/speech", self._speech),
            web.post("/v1/audio/transcriptions", self._transcription),
            web.get("/v1/models", self._models),
            web.get("/v1/models/{model:.+}", self._model),
        ]

    def refusal(self, status: int, text: str) -> web.Response:
        """Return OpenAI's error object."""
        types = {401: ("invalid_request_error", "invalid_api_key"), 429: ("requests", "rate_limit_exceeded")}
        kind, code = types.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))
        error = {"message": text, "type": kind, "param": None, "code": code}
        return web.json_response({"error": error}, status=status)

    def unknown(self) -> str:
        """Return a mark; what it becomes depends on the answer."""
        return UNKNOWN

    def malformed(self) -> str:
        """Return a mark; what it becomes depends on the answer."""
        return MALFORMED

    # --- speaking -----------------------------------------------------------------------------------------------------

    async def _speech(self, request: web.Request) -> web.StreamResponse:
        refused = await self.admit(request, _key(request))
        if refused is not None:
            return refused
        try:
            asked, form = _speech_asked(await request.read())
        except ValueError as error:
            return self.refusal(400, str(error))
        self.spoken.append(asked)
        await asyncio.sleep(self._speech_first_s)
        sound = resample(self._voice(asked.text), RATE_HZ, round(PCM_HZ / asked.speed)).astype("<i2").tobytes()
        if form == "wav":
            sound = _endless_wav_header() + sound
        answer = await self._answer(request, f"audio/{form}", unknown=b"", malformed=None)
        return await self._counted(answer, say(answer, sound, PCM_HZ * self._speech_pace))

    # --- hearing ------------------------------------------------------------------------------------------------------

    async def _transcription(self, request: web.Request) -> web.StreamResponse:
        refused = await self.admit(request, _key(request))
        if refused is not None:
            return refused
        try:
            asked = _transcript_asked(request.headers.get("content-type", ""), await request.read())
        except ValueError as error:
            return self.refusal(400, str(error))
        self.heard.append(asked)
        words = self._words_in(asked)
        await asyncio.sleep(self._transcribe_s)
        text = " ".join(word.text for word in words)
        usage = _usage(asked, text)
        if asked.fields.get("stream") == ("true",) and asked.model != "whisper-1":
            unknown = _event({"type": "transcript.text.brand_new", "value": 1})
            answer = await self._answer(request, "text/event-stream", unknown, b'data: {"type": "transc\n\n')
            return await self._counted(answer, self._tell(answer, words, text, usage))
        verbose = asked.fields.get("response_format") == ("verbose_json",)
        members = _verbose(asked, words, text, usage) if verbose else {"text": text, "usage": usage}
        answer = await self._answer(request, "application/json", b'"brand_new": {"value": 1}, ', b'{"te')
        return await self._counted(answer, self._write(answer, members))

    def _words_in(self, asked: TranscriptAsked) -> tuple[WordHeard, ...]:
        hearing = self._ear()
        hearing.push(resample(asked.samples, asked.rate_hz, RATE_HZ))
        hearing.push(
            np.zeros(RATE_HZ // 5, np.int16)
        )  # there is nothing after a recording, so its last words are whole
        return hearing.heard

    async def _tell(self, answer: Answer, words: tuple[WordHeard, ...], text: str, usage: dict[str, Any]) -> None:
        for at, word in enumerate(words):
            delta = f" {word.text}" if at else word.text
            await answer.send(_event({"type": "transcript.text.delta", "delta": delta}))
        await answer.send(_event({"type": "transcript.text.done", "text": text, "usage": usage}))
        await answer.send(b"data: [DONE]\n\n")

    async def _write(self, answer: Answer, members: dict[str, Any]) -> None:
        """Send an object member by member, so that a fault can lie in its midst."""
        await answer.send(b"{")
        last = len(members) - 1
        for at, (name, value) in enumerate(members.items()):
            await answer.send(f"{json.dumps(name)}: {json.dumps(value)}{', ' if at < last else '}'}".encode())

    # --- models -------------------------------------------------------------------------------------------------------

    async def _models(self, request: web.Request) -> web.StreamResponse:
        refused = await self.admit(request, _key(request))
        return refused or web.json_response({"object": "list", "data": [_model(name) for name in MODELS]})

    async def _model(self, request: web.Request) -> web.StreamResponse:
        refused = await self.admit(request, _key(request))
        if refused is not None:
            return refused
        name = request.match_info["model"]
        if name not in MODELS:
            return self.refusal(404, f"The model '{name}' does not exist or you do not have access to it.")
        return web.json_response(_model(name))

    # --- inside -------------------------------------------------------------------------------------------------------

    async def _answer(self, request: web.Request, content_type: str, unknown: bytes, malformed: bytes | None) -> Answer:
        """Begin an answer whose marks become `unknown` and `malformed`; None: what is no HTTP either."""
        response = web.StreamResponse(headers={"content-type": content_type, "x-request-id": f"req_{len(self.seen)}"})
        await response.prepare(request)
        return Answer(self, request, translated(request, response.write, unknown, malformed), response)

    async def _counted(self, answer: Answer, telling: Awaitable[None]) -> web.StreamResponse:
        try:
            await telling
            return await answer.end()
        except (ConnectionError, asyncio.CancelledError):
            self.left += 1
            raise


def _key(request: web.Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer").strip()


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1_740_000_000, "owned_by": "system"}


def _speech_asked(body: bytes) -> tuple[SpeechAsked, str]:
    """Return the sentence, and the format it is to come in."""
    fields = json.loads(body)
    if not isinstance(fields, dict):
        raise ValueError("We could not parse the JSON body of your request.")  # noqa: TRY004 - a request's fault
    for name in ("model", "input", "voice"):
        if not fields.get(name):
            raise ValueError(f"Missing required parameter: '{name}'.")
    text, voice, speed = fields["input"], fields["voice"], fields.get("speed", 1.0)
    if not isinstance(text, str) or len(text) > _LONGEST_INPUT:
        raise ValueError(f"Invalid 'input': string too long. Expected a string with maximum length {_LONGEST_INPUT}.")
    if not isinstance(speed, int | float) or not 0.25 <= speed <= 4:
        raise ValueError("Invalid 'speed': expected a number between 0.25 and 4.0.")
    form = fields.get("response_format", "mp3")
    if form not in {"pcm", "wav"}:
        raise ValueError(f"response_format '{form}' is not emulated: ask for pcm or wav")
    name = voice.get("id", "") if isinstance(voice, dict) else str(voice)
    return SpeechAsked(fields["model"], text, name, float(speed), str(fields.get("instructions") or "")), form


def _transcript_asked(content_type: str, body: bytes) -> TranscriptAsked:
    fields: dict[str, list[str]] = {}
    recording = b""
    for name, file, value in _parts(content_type, body):
        if file:
            recording = value
        else:
            fields.setdefault(name.removesuffix("[]"), []).append(value.decode())
    model = fields.pop("model", [""])[0]
    if not model:
        raise ValueError("you must provide a model parameter")
    try:
        with wave.open(io.BytesIO(recording)) as wav:
            if (wav.getnchannels(), wav.getsampwidth()) != (1, 2):
                raise ValueError("only mono PCM16 is emulated")
            rate_hz, pcm = wav.getframerate(), wav.readframes(wav.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError("Audio file might be corrupted or unsupported") from error
    samples = np.frombuffer(pcm, "<i2").astype(np.int16)
    if len(samples) < rate_hz / 10:
        raise ValueError("Audio file is too short. Minimum audio length is 0.1 seconds.")
    return TranscriptAsked(model, {name: tuple(values) for name, values in fields.items()}, rate_hz, samples)


def _parts(content_type: str, body: bytes) -> list[tuple[str, str, bytes]]:
    """Return name, file name and value of each part of a form (RFC 7578)."""
    boundary = email.message_from_string(f"content-type: {content_type}\n\n").get_param("boundary")
    if not isinstance(boundary, str):
        raise ValueError("no multipart form")  # noqa: TRY004 - a request's fault
    parts = []
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary.encode())[1:-1]:
        head, _, value = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = email.message_from_bytes(head)
        name = headers.get_param("name", "", "content-disposition")
        parts.append((str(name), headers.get_filename() or "", value))
    return parts


def _usage(asked: TranscriptAsked, text: str) -> dict[str, Any]:
    seconds = len(asked.samples) / asked.rate_hz
    if asked.model in {"whisper-1", "gpt-transcribe"}:
        return {"type": "duration", "seconds": round(seconds, 2)}
    spent, made = round(10 * seconds), len(text.split()) + 2
    details = {"text_tokens": 0, "audio_tokens": spent}
    return {
        "type": "tokens",
        "total_tokens": spent + made,
        "input_tokens": spent,
        "input_token_details": details,
        "output_tokens": made,
    }


def _verbose(asked: TranscriptAsked, words: tuple[WordHeard, ...], text: str, usage: dict[str, Any]) -> dict[str, Any]:
    members: dict[str, Any] = {
        "task": "transcribe",
        "language": "english",
        "duration": round(len(asked.samples) / asked.rate_hz, 2),
        "text": text,
    }
    if "word" in asked.fields.get("timestamp_granularities", ()):
        members["words"] = [
            {"word": word.text, "start": round(word.start_s, 2), "end": round(word.end_s, 2)} for word in words
        ]
    return {**members, "usage": usage}


def _event(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


def _endless_wav_header() -> bytes:
    """Return the header of a WAV file of unknown length, as a streaming server writes it."""
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(PCM_HZ)
        wav.writeframes(b"")
    header = bytearray(file.getvalue())
    header[4:8] = header[40:44] = b"\xff\xff\xff\xff"
    return bytes(header)
