"""Deepgram, emulated: live transcription (nova), turns (Flux) and speech (Aura), each over its WebSocket.

The wire format is that of Deepgram's published API description and of the types in its SDK. What is left out: channels
beyond the first, containers, callbacks, and speech that begins before its ``Flush``.
"""

import asyncio
import contextlib
import itertools
import json
import uuid
from collections import deque
from typing import Any, Final

import numpy as np
from aiohttp import WSMsgType, web

from trunkline.audio.g711 import pcm16_to_mulaw
from trunkline.audio.resample import resample
from trunkline.testing.providers.content import RATE_HZ, Ear, Lines, Voice, tones
from trunkline.testing.providers.deepgram_listen import listen_flux, listen_nova
from trunkline.testing.providers.server import Answer, Emulator

_SAYS: Final = {
    400: "Bad Request",
    401: "INVALID_AUTH",
    429: "TOO_MANY_REQUESTS",
    503: "SERVICE_UNAVAILABLE",
}
_BLOCK_S: Final = 0.1
_FLUSH_WINDOW_S: Final = 60.0


class DeepgramEmulator(Emulator):
    """One server for ``/v1/listen``, ``/v2/listen`` and ``/v1/speak``.

    Args:
        ear: what it hears in a stream.
        voice: how it speaks.
        final_s: from the caller's last sound to the words that are final; a ``Finalize`` that comes later is answered
            at once.
        partial_every_s: audio between two interim results.
        speak_first_s: from a ``Flush`` to the first sound.

    Attributes:
        idle_s: without audio and ``KeepAlive`` for so long, a nova stream is closed with ``NET-0001``.
        fix_every_s: nova fixes what it has heard after so much audio, pause or not.
        answers_finalize: whether a ``Finalize`` is always answered; Deepgram does not promise it.
        turn_silence_s: silence after which Flux judges a turn to be over.
        pace: audio is sent at so many times real time.
        flushes: ``Flush`` messages allowed in a minute.
        asked: the query of every WebSocket, with its repeated keys.
        orders: the type of every text message received.
        texts: what was to be spoken, one entry per ``Flush``.
        spoken_s: seconds of speech that went out.
    """

    def __init__(
        self,
        *,
        ear: Ear | None = None,
        voice: Voice | None = None,
        key: str = "test-key",
        final_s: float = 0.25,
        partial_every_s: float = 0.25,
        speak_first_s: float = 0.2,
    ) -> None:
        super().__init__(key=key)
        self.ear: Ear = ear or Lines([])
        self.voice: Final = voice or tones(440)
        self.final_s = final_s
        self.partial_every_s = partial_every_s
        self.speak_first_s = speak_first_s
        self.idle_s = 10.0
        self.fix_every_s = 4.0
        self.answers_finalize = True
        self.turn_silence_s = 0.45
        self.pace = 4.0
        self.flushes = 20
        self.asked: list[list[tuple[str, str]]] = []
        self.orders: list[str] = []
        self.texts: list[str] = []
        self.spoken_s = 0.0

    def routes(self) -> list[web.RouteDef]:
        """Return the three sockets."""
        return [
            web.get("/v1/listen", self._nova),
            web.get("/v2/listen", self._flux),
            web.get("/v1/speak", self._speak),
        ]

    def refusal(self, status: int, text: str) -> web.Response:
        """Return Deepgram's refusal: a code, a text and the request's id, and the text again as a header."""
        request_id = str(uuid.uuid4())
        body = {"err_code": _SAYS.get(status, "Bad Request"), "err_msg": text, "request_id": request_id}
        return web.json_response(body, status=status, headers={"dg-error": text, "dg-request-id": request_id})

    async def admit(self, request: web.Request, given_key: str = "") -> web.StreamResponse | None:
        """Check the key as Deepgram does, and that the request asks for what there is."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        refused = await super().admit(request, given_key or (key if scheme.lower() in {"token", "bearer"} else ""))
        if refused is not None:
            return refused
        self.asked.append(list(request.query.items()))
        query = request.query
        family = "flux-" if request.path.startswith("/v2") else "aura-" if request.path.endswith("speak") else "nova-"
        if not query.get("model", "").startswith(family):
            return self.refusal(400, f"No such model/language/tier combination found: {query.get('model', '')}")
        if query.get("encoding", "linear16") not in {"linear16", "mulaw"}:
            return self.refusal(400, "Invalid query string. Failed to deserialize encoding")
        if not query.get("sample_rate", "8000").isdecimal():
            return self.refusal(400, "Invalid query string. Failed to deserialize sample_rate")
        return None

    async def _nova(self, request: web.Request) -> web.StreamResponse:
        if refused := await self.admit(request):
            return refused
        async with self.socket(request) as (ws, answer):
            await listen_nova(self, request.query, ws, answer)
        return ws

    async def _flux(self, request: web.Request) -> web.StreamResponse:
        if refused := await self.admit(request):
            return refused
        async with self.socket(request) as (ws, answer):
            await listen_flux(self, request.query, ws, answer)
        return ws

    async def _speak(self, request: web.Request) -> web.StreamResponse:
        if refused := await self.admit(request):
            return refused
        async with self.socket(request) as (ws, answer):
            await _Mouth(self, request, ws, answer).attend()
        return ws


class _Mouth:
    """One speech socket."""

    def __init__(
        self, emulator: DeepgramEmulator, request: web.Request, ws: web.WebSocketResponse, answer: Answer
    ) -> None:
        self._emulator = emulator
        self._model = request.query["model"]
        self._rate_hz = int(request.query.get("sample_rate", "24000"))
        self._mulaw = request.query.get("encoding") == "mulaw"
        self._speed = float(request.query.get("speed", "1"))
        self._ws = ws
        self._answer = answer
        self._text = ""
        self._sequence = itertools.count()
        self._flushed_at: deque[float] = deque()
        self._sentences: asyncio.Queue[str] = asyncio.Queue()
        self._speaker: asyncio.Task[None] | None = None

    async def attend(self) -> None:
        model = {"model_name": self._model, "model_version": "2026-01-01.0", "model_uuid": str(uuid.uuid4())}
        await self._tell("Metadata", request_id=str(uuid.uuid4()), **model)
        self._speaker = asyncio.create_task(self._speak_on())
        try:
            async for message in self._ws:
                if message.type is WSMsgType.TEXT and not await self._obey(message.data):
                    return
        finally:
            await self._hush()

    async def _obey(self, raw: str) -> bool:
        order = _object(raw)
        self._emulator.orders.append(str(order.get("type")))
        match order:
            case {"type": "Speak", "text": str(text)}:
                self._text += text
            case {"type": "Flush"}:
                await self._flush()
            case {"type": "Clear"}:
                await self._hush()
                self._text, self._sentences = "", asyncio.Queue()
                self._speaker = asyncio.create_task(self._speak_on())
                await self._tell("Cleared", sequence_id=next(self._sequence))
            case {"type": "Close"}:
                await self._sentences.join()
                return False
            case _:
                await self._tell("Warning", code="UNPARSABLE_CLIENT_MESSAGE", description="Cannot read that message")
        return True

    async def _flush(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._flushed_at and now - self._flushed_at[0] > _FLUSH_WINDOW_S:
            self._flushed_at.popleft()
        if len(self._flushed_at) >= self._emulator.flushes:
            await self._tell("Warning", code="EXCESSIVE_FLUSH", description="No more Flush messages in this minute")
            return
        self._flushed_at.append(now)
        self._emulator.texts.append(self._text)
        self._sentences.put_nowait(self._text)
        self._text = ""

    async def _speak_on(self) -> None:
        sentences = self._sentences
        while True:
            text = await sentences.get()
            if text.strip():
                await self._speak(text)
            await self._tell("Flushed", sequence_id=next(self._sequence))
            sentences.task_done()

    async def _speak(self, text: str) -> None:
        await asyncio.sleep(self._emulator.speak_first_s)
        samples = self._emulator.voice(text)
        if self._speed != 1:
            samples = samples[np.arange(0, len(samples) - 1, self._speed).astype(np.int64)]
        if self._rate_hz != RATE_HZ:
            samples = resample(samples, RATE_HZ, self._rate_hz)
        block = int(_BLOCK_S * self._rate_hz)
        for start in range(0, len(samples), block):
            pcm = samples[start : start + block].astype("<i2").tobytes()
            await self._answer.send(pcm16_to_mulaw(pcm) if self._mulaw else pcm)
            self._emulator.spoken_s += len(pcm) / 2 / self._rate_hz
            await asyncio.sleep(_BLOCK_S / self._emulator.pace)

    async def _hush(self) -> None:
        if self._speaker is not None:
            self._speaker.cancel()
            await asyncio.wait({self._speaker})
            with contextlib.suppress(asyncio.CancelledError, Exception):
                self._speaker.result()

    async def _tell(self, kind: str, **fields: object) -> None:
        await self._answer.send(json.dumps({"type": kind, **fields}))


def _object(raw: str) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
