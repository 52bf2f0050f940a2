"""One stream that the emulated Scribe listens to: audio in, partial and committed transcripts out."""

import asyncio
import base64
import json
import uuid
from collections import deque
from typing import Any, Final, Protocol

import numpy as np
from aiohttp import WSMsgType, web

from trunkline.audio.g711 import mulaw_to_pcm16
from trunkline.audio.resample import resample
from trunkline.testing.providers.content import RATE_HZ, Ear, WordHeard
from trunkline.testing.providers.server import Answer

_FORMATS: Final = {"ulaw_8000", "pcm_8000", "pcm_16000", "pcm_22050", "pcm_24000", "pcm_44100", "pcm_48000"}
_MOST_TERMS: Final = 50
_LONGEST_TERM: Final = 20


class Habits(Protocol):
    """How the emulator listens; see `ElevenLabsEmulator`."""

    ear: Ear
    final_s: float
    partial_every_s: float
    longest_s: float
    least_s: float
    complaint: str
    commits: int


class _Scribe:
    def __init__(self, habits: Habits, request: web.Request, ws: web.WebSocketResponse, answer: Answer) -> None:
        self._habits = habits
        self._query = query = request.query
        self._ws = ws
        self._answer = answer
        self._format = query.get("audio_format", "pcm_16000")
        self._vad = query.get("commit_strategy", "manual") == "vad"
        self._pause_s = float(query.get("vad_silence_threshold_secs", "1.5"))
        self._hearing = habits.ear()
        self._audio_s = self._committed_s = self._partial_s = 0.0
        self._told = 0
        self._partial = ""
        self._due: deque[tuple[float, tuple[WordHeard, ...]]] = deque()

    @property
    def _words(self) -> tuple[WordHeard, ...]:
        return self._hearing.heard[self._told :]

    async def attend(self) -> None:
        if problem := self._problem():
            await self._complain("invalid_request", problem)
            return
        await self._tell("session_started", session_id=uuid.uuid4().hex, config=self._config())
        loop = asyncio.get_running_loop()
        while not self._ws.closed:
            try:
                wait_s = max(0.001, self._due[0][0] - loop.time()) if self._due else None
                message = await self._ws.receive(timeout=wait_s)
            except TimeoutError:
                await self._say(self._due.popleft()[1])
                continue
            if message.type is not WSMsgType.TEXT:
                return
            if self._habits.complaint:
                kind, self._habits.complaint = self._habits.complaint, ""
                await self._complain(kind, f"Something is wrong: {kind}")
                return
            if not await self._take(message.data):
                return

    async def _take(self, raw: str) -> bool:
        try:
            message: dict[str, Any] = json.loads(raw)
            data = base64.b64decode(message["audio_base_64"], validate=True)
            known = message["message_type"] == "input_audio_chunk"
        except (ValueError, LookupError, TypeError):
            known, data, message = False, b"", {}
        if not known:
            await self._complain("input_error", "The message cannot be read")
            return False
        self._push(data)
        if message.get("commit"):
            self._habits.commits += 1
            if self._audio_s - self._committed_s < self._habits.least_s:
                await self._tell("commit_throttled", error="Commit request ignored: not enough uncommitted audio.")
            else:
                self._put_off()
        elif self._due:
            pass
        elif self._vad and self._words and self._hearing.silent_s >= self._pause_s:
            self._put_off()
        elif self._audio_s - self._committed_s >= self._habits.longest_s:
            await self._say(self._commit())
        elif self._audio_s - self._partial_s >= self._habits.partial_every_s:
            self._partial_s = self._audio_s
            text = " ".join(word.text for word in self._words)
            if text != self._partial:
                self._partial = text
                await self._tell("partial_transcript", text=text)
        return True

    def _push(self, data: bytes) -> None:
        pcm = mulaw_to_pcm16(data) if self._format.startswith("ulaw") else data[: len(data) // 2 * 2]
        rate_hz = int(self._format.rpartition("_")[2])
        samples = np.frombuffer(pcm, "<i2").astype(np.int16)
        self._audio_s += len(samples) / rate_hz
        self._hearing.push(samples if rate_hz == RATE_HZ else resample(samples, rate_hz, RATE_HZ))

    def _put_off(self) -> None:
        """Commit what was heard so far; its words are told once `final_s` has passed since the caller's last sound."""
        wait_s = max(0.0, self._habits.final_s - self._hearing.silent_s)
        self._due.append((asyncio.get_running_loop().time() + wait_s, self._commit()))

    def _commit(self) -> tuple[WordHeard, ...]:
        words = self._words
        self._told += len(words)
        self._partial = ""
        self._committed_s = self._partial_s = self._audio_s
        return words

    async def _say(self, words: tuple[WordHeard, ...]) -> None:
        text = " ".join(word.text for word in words)
        await self._tell("committed_transcript", text=text)
        if self._query.get("include_timestamps") == "true":
            timed = [
                {
                    "text": word.text,
                    "start": round(word.start_s, 3),
                    "end": round(word.end_s, 3),
                    "type": "word",
                    "logprob": -0.05,
                }
                for word in words
            ]
            language = self._query.get("language_code", "en")
            await self._tell("committed_transcript_with_timestamps", text=text, language_code=language, words=timed)

    def _problem(self) -> str:
        terms = self._query.getall("keyterms", [])
        if not self._query.get("model_id", "").startswith("scribe_v2_realtime"):
            return f"Unknown model: {self._query.get('model_id')}"
        if self._format not in _FORMATS:
            return f"Unknown audio format: {self._format}"
        if len(terms) > _MOST_TERMS or any(len(term) > _LONGEST_TERM for term in terms):
            return "Too many or too long keyterms"
        return ""

    def _config(self) -> dict[str, object]:
        return {
            "sample_rate": int(self._format.rpartition("_")[2]),
            "audio_format": self._format,
            "language_code": self._query.get("language_code"),
            "commit_strategy": "vad" if self._vad else "manual",
            "model_id": self._query.get("model_id"),
            "include_timestamps": self._query.get("include_timestamps") == "true",
            "keyterms": self._query.getall("keyterms", []),
        }

    async def _complain(self, kind: str, problem: str) -> None:
        await self._tell(kind, error=problem)
        await self._ws.close(code=1008, message=problem.encode()[:120])

    async def _tell(self, kind: str, **fields: object) -> None:
        await self._answer.send(json.dumps({"message_type": kind, **fields}))


async def listen(habits: Habits, request: web.Request, ws: web.WebSocketResponse, answer: Answer) -> None:
    """Serve one stream until it ends."""
    await _Scribe(habits, request, ws, answer).attend()
