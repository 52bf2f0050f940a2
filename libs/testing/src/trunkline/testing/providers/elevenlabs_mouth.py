"""One emulated ``stream-input``: text comes in as it is written, and is spoken once enough of it is there.

How much is enough is the schedule: the first generation waits for as many characters as its first number, and so on;
a flush, or the end of the text, waits for none.
"""

import asyncio
import base64
import json
from collections.abc import Mapping
from typing import Any, Final, Protocol

from aiohttp import WSMsgType, web

from trunkline.testing.providers.server import Answer

_SCHEDULE: Final = (120, 160, 250, 290)
_LEAST_TRIGGERED: Final = 20
_IDLE_S: Final = 20.0
_LONGEST_IDLE_S: Final = 180.0
_MESSAGE_S: Final = 0.4


class Habits(Protocol):
    """How the emulator speaks; see `ElevenLabsEmulator`."""

    first_s: float
    pace: float
    times_of: str
    voices: frozenset[str] | None
    models: tuple[str, ...]
    formats: dict[str, int]
    first_messages: list[dict[str, Any]]
    frames: list[dict[str, Any]]
    texts: list[str]
    spoken_s: float

    @property
    def key(self) -> str:
        """What clients must authenticate with."""
        ...

    def sound(self, text: str, output_format: str, speed: float = 1.0) -> tuple[bytes, int]:
        """Return sound, and how many bytes are a second."""
        ...


class _Refused(Exception):
    """ElevenLabs would close the socket with this word and message."""

    def __init__(self, word: str, message: str) -> None:
        super().__init__(message)
        self.word = word


class _Mouth:
    def __init__(self, habits: Habits, request: web.Request, ws: web.WebSocketResponse, answer: Answer) -> None:
        self._habits = habits
        self._query: Mapping[str, str] = request.query
        self._voice = request.match_info["voice"]
        self._authorised = "xi-api-key" in request.headers
        self._ws = ws
        self._answer = answer
        self._format = self._query.get("output_format", "mp3_44100_128")
        self._idle_s = min(float(self._query.get("inactivity_timeout", _IDLE_S)), _LONGEST_IDLE_S)
        self._schedule: tuple[float, ...] = _SCHEDULE
        self._speed = 1.0
        self._generations = 0
        self._text = ""
        self._ready: asyncio.Queue[str | None] = asyncio.Queue()

    async def attend(self) -> None:
        speaker = asyncio.create_task(self._speak_on())
        try:
            await self._read_on(speaker)
        except _Refused as refused:
            told = {"message": str(refused), "error": refused.word, "code": 1008}
            await self._answer.send(json.dumps(told))
            await self._ws.close(code=1008, message=str(refused).encode()[:120])
        finally:
            speaker.cancel()
            await asyncio.gather(speaker, return_exceptions=True)

    async def _read_on(self, speaker: asyncio.Task[None]) -> None:
        if not await self._begin():
            return
        while (message := await self._receive()) is not None:
            self._habits.frames.append(message)
            text = message.get("text")
            if not isinstance(text, str):
                raise _Refused("invalid_message", "The message has no text")
            self._text += text
            if text == "":
                self._generate(last=True)
                self._ready.put_nowait(None)
                gone = asyncio.create_task(self._ws.receive())
                await asyncio.wait({speaker, gone}, return_when=asyncio.FIRST_COMPLETED)
                gone.cancel()
                if speaker.done():
                    speaker.result()
                return
            needed = self._schedule[min(self._generations, len(self._schedule) - 1)]
            triggered = message.get("try_trigger_generation") and len(self._text) >= _LEAST_TRIGGERED
            auto = self._query.get("auto_mode") == "true"
            if message.get("flush"):
                self._generate(last=True)
            elif auto or triggered or len(self._text) >= needed:
                self._generate()

    async def _begin(self) -> bool:
        first = await self._receive()
        if first is None:
            return False
        self._habits.first_messages.append(first)
        if not self._authorised and first.get("xi_api_key", first.get("xi-api-key")) != self._habits.key:
            raise _Refused("invalid_api_key", "Invalid API key")
        model = self._query.get("model_id", "eleven_multilingual_v2")
        if self._habits.voices is not None and self._voice not in self._habits.voices:
            raise _Refused("voice_id_does_not_exist", f"A voice with voice_id {self._voice} does not exist.")
        if model not in self._habits.models:
            raise _Refused("model_does_not_exist", f"A model with model ID {model} does not exist.")
        if self._format not in self._habits.formats:
            raise _Refused("output_format_not_supported", f"Unsupported output format: {self._format}")
        if str(first.get("text", "")).strip() or not first.get("text"):
            raise _Refused("invalid_message", "The first message must have a blank space as its text")
        schedule = (first.get("generation_config") or {}).get("chunk_length_schedule") or _SCHEDULE
        if not all(50 <= length <= 500 for length in schedule):
            raise _Refused("invalid_generation_config", "Each item of chunk_length_schedule must be in [50, 500]")
        self._schedule = tuple(schedule)
        self._speed = float((first.get("voice_settings") or {}).get("speed") or 1.0)
        if not 0.7 <= self._speed <= 1.2:
            raise _Refused("invalid_voice_settings", "The speed must be between 0.7 and 1.2")
        return True

    async def _receive(self) -> dict[str, Any] | None:
        try:
            message = await self._ws.receive(timeout=self._idle_s)
        except TimeoutError:
            raise _Refused(
                "input_timeout_exceeded", f"Have not received a new text input within the timeout of {self._idle_s} s"
            ) from None
        if message.type is not WSMsgType.TEXT:
            return None
        try:
            found = json.loads(message.data)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise _Refused("invalid_message", "The message is no JSON object")
        return found

    def _generate(self, *, last: bool = False) -> None:
        text = self._text.rstrip() if last else self._text
        self._text = ""
        if text:
            self._generations += 1
            self._ready.put_nowait(text)

    async def _speak_on(self) -> None:
        while (text := await self._ready.get()) is not None:
            self._habits.texts.append(text)
            await asyncio.sleep(self._habits.first_s)
            await self._speak(text)
        nothing = {"audio": None, "isFinal": True, "normalizedAlignment": None, "alignment": None}
        await self._answer.send(json.dumps(nothing))

    async def _speak(self, text: str) -> None:
        sound, per_s = self._habits.sound(text, self._format, self._speed)
        ms = 1_000 * len(sound) / per_s / len(text)
        block = int(_MESSAGE_S * per_s) // 2 * 2
        for start in range(0, len(sound), block):
            piece = sound[start : start + block]
            from_ms, to_ms = 1_000 * start / per_s, 1_000 * (start + len(piece)) / per_s
            base_ms = from_ms if self._habits.times_of == "message" else 0
            here = [at for at in range(len(text)) if from_ms <= at * ms < to_ms]
            alignment: dict[str, object] | None = {
                "chars": [text[at] for at in here],
                "charStartTimesMs": [round(at * ms - base_ms) for at in here],
                "charDurationsMs": [round(ms)] * len(here),
            }
            if self._query.get("sync_alignment") != "true":
                alignment = None
            told = {
                "audio": base64.b64encode(piece).decode(),
                "isFinal": None,
                "normalizedAlignment": alignment,
                "alignment": alignment,
            }
            await self._answer.send(json.dumps(told))
            self._habits.spoken_s += len(piece) / per_s
            if self._habits.pace:
                await asyncio.sleep(len(piece) / per_s / self._habits.pace)


async def speak_as_written(habits: Habits, request: web.Request, ws: web.WebSocketResponse, answer: Answer) -> None:
    """Serve one socket until its text has ended, or its client is gone."""
    await _Mouth(habits, request, ws, answer).attend()
