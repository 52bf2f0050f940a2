"""One stream that the emulated Deepgram listens to: nova's results, or Flux's turns.

Time is the audio's own, except for the wait of `final_s` before words are final: that one passes on the clock.
"""

import asyncio
import itertools
import json
import uuid
from collections.abc import Mapping
from typing import Final, Protocol

import numpy as np
from aiohttp import WSMsgType, web

from trunkline.audio.g711 import mulaw_to_pcm16
from trunkline.audio.resample import resample
from trunkline.testing.providers.content import RATE_HZ, Ear, WordHeard
from trunkline.testing.providers.server import Answer

_ENDPOINTING_MS: Final = 10


class Habits(Protocol):
    """How the emulator listens; see `DeepgramEmulator`."""

    ear: Ear
    final_s: float
    partial_every_s: float
    idle_s: float
    fix_every_s: float
    answers_finalize: bool
    turn_silence_s: float
    orders: list[str]


class _Ears:
    """What both kinds share: audio in, messages out, and things to be said a little later."""

    def __init__(self, habits: Habits, query: Mapping[str, str], ws: web.WebSocketResponse, answer: Answer) -> None:
        self.habits: Final = habits
        self.query: Final = query
        self.request_id: Final = str(uuid.uuid4())
        self.hearing: Final = habits.ear()
        self.audio_s = 0.0
        self.told = 0  # words that are final
        self._rate_hz = int(query.get("sample_rate", "8000"))
        self._mulaw = query.get("encoding") == "mulaw"
        self._ws = ws
        self._answer = answer
        self._due: tuple[float, str] | None = None
        self._idle_since = asyncio.get_running_loop().time()

    @property
    def words(self) -> tuple[WordHeard, ...]:
        return self.hearing.heard[self.told :]

    async def listen(self) -> None:
        loop = asyncio.get_running_loop()
        await self.on_open()
        while not self._ws.closed:
            due_at, what = self._due or (self._idle_since + self.habits.idle_s, "")
            try:
                message = await self._ws.receive(timeout=max(0.001, due_at - loop.time()))
            except TimeoutError:
                if what:
                    self._due = None
                    await self.on_due(what)
                elif not await self.on_idle():
                    return
                continue
            match message.type:
                case WSMsgType.BINARY:
                    self._idle_since = loop.time()
                    await self._on_audio(message.data)
                case WSMsgType.TEXT:
                    if not await self._on_text(message.data):
                        return
                case _:
                    return

    async def on_open(self) -> None:
        """Say hello."""

    async def on_due(self, what: str) -> None:
        """Say what was put off."""

    async def on_audio(self) -> None:
        """There is more audio."""

    async def on_order(self, order: dict[str, object]) -> bool:
        """Do as told; return whether to go on."""
        raise NotImplementedError

    async def on_idle(self) -> bool:
        """Nothing came for `idle_s`; return whether to go on."""
        self._idle_since = asyncio.get_running_loop().time()
        return True

    async def tell(self, kind: str, **fields: object) -> None:
        await self._answer.send(json.dumps({"type": kind, **fields}))

    def put_off(self, what: str) -> None:
        """Do `what` once `final_s` has passed since the caller's last sound."""
        wait_s = max(0.0, self.habits.final_s - self.hearing.silent_s)
        self._due = (asyncio.get_running_loop().time() + wait_s, what)

    @property
    def waits_for(self) -> str:
        return self._due[1] if self._due else ""

    def still_alive(self) -> None:
        self._idle_since = asyncio.get_running_loop().time()

    async def close(self, code: int, reason: str) -> None:
        await self._ws.close(code=code, message=reason.encode())

    async def _on_audio(self, data: bytes) -> None:
        pcm = mulaw_to_pcm16(data) if self._mulaw else data[: len(data) // 2 * 2]
        samples = np.frombuffer(pcm, "<i2").astype(np.int16)
        self.audio_s += len(samples) / self._rate_hz
        self.hearing.push(samples if self._rate_hz == RATE_HZ else resample(samples, self._rate_hz, RATE_HZ))
        await self.on_audio()

    async def _on_text(self, raw: str) -> bool:
        try:
            order = json.loads(raw)
        except ValueError:
            order = None
        if not isinstance(order, dict):
            order = {"type": None, "raw": raw}
        self.habits.orders.append(str(order.get("type")))
        if order.get("type") == "CloseStream" and self._due is not None:
            await self.on_due(self._due[1])
        return await self.on_order(order)


class _NovaEars(_Ears):
    """``/v1/listen``: interim and final results, pauses, and ``Finalize``."""

    def __init__(self, habits: Habits, query: Mapping[str, str], ws: web.WebSocketResponse, answer: Answer) -> None:
        super().__init__(habits, query, ws, answer)
        pause = query.get("endpointing", str(_ENDPOINTING_MS))
        self._pause_s = int(pause) / 1_000 if pause.isdecimal() else None
        self._interim = query.get("interim_results") == "true"
        self._end_ms = int(query.get("utterance_end_ms", "0"))
        self._fixed_s = 0.0
        self._partial_s = 0.0
        self._started = False
        self._ended = True
        self._last_word_s = -1.0

    async def on_audio(self) -> None:
        if self.words and not self._started:
            self._started, self._ended = True, False
            if self.query.get("vad_events") == "true":
                await self.tell("SpeechStarted", channel=[0], timestamp=round(self.words[0].start_s, 2))
        if self._interim and self.audio_s - self._partial_s >= self.habits.partial_every_s:
            self._partial_s = self.audio_s
            if self.words:
                await self._results(final=False)
        silent_s = self.hearing.silent_s
        # Words of a stretch that is not over may still change; a pause ends it.
        if self.words and self._pause_s is not None and silent_s >= max(self._pause_s, 0.1) and not self.waits_for:
            self.put_off("pause")
        elif self.audio_s - self._fixed_s >= self.habits.fix_every_s and not self.waits_for:
            await self._results(final=True)
        if self._end_ms and not self._ended and not self.words and silent_s * 1_000 >= self._end_ms:
            self._ended = True
            await self.tell("UtteranceEnd", channel=[0, 1], last_word_end=round(self._last_word_s, 2))

    async def on_due(self, what: str) -> None:
        match what:
            case "pause":
                if self.words:
                    await self._results(final=True, pause=True)
            case "finalize":
                if self.words or self.habits.answers_finalize:
                    await self._results(final=True, finalized=True)

    async def on_order(self, order: dict[str, object]) -> bool:
        match order.get("type"):
            case "KeepAlive":
                self.still_alive()
            case "Finalize":
                self.put_off("finalize")
            case "CloseStream":
                if self.words:
                    await self._results(final=True)
                await self.tell(
                    "Metadata",
                    transaction_key="deprecated",
                    request_id=self.request_id,
                    sha256="0" * 64,
                    created="2026-01-01T00:00:00.000Z",
                    duration=round(self.audio_s, 3),
                    channels=1,
                )
                return False
            case _:
                await self.tell(
                    "Error",
                    variant="SchemaError",
                    description="Could not deserialize last text message",
                    message=str(order.get("raw", order)),
                )
        return True

    async def on_idle(self) -> bool:
        await self.close(1011, "Deepgram did not receive audio data or a text message within the timeout. NET-0001")
        return False

    async def _results(self, *, final: bool, pause: bool = False, finalized: bool = False) -> None:
        words = self.words
        fields = {
            "channel_index": [0, 1],
            "duration": round(self.audio_s - self._fixed_s, 3),
            "start": round(self._fixed_s, 3),
            "is_final": final,
            "speech_final": pause,
            "from_finalize": finalized,
            "channel": {
                "alternatives": [
                    {
                        "transcript": " ".join(word.text for word in words),
                        "confidence": 0.98 if words else 0.0,
                        "words": [
                            {
                                "word": word.text.lower().strip(".,?!"),
                                "start": round(word.start_s, 3),
                                "end": round(word.end_s, 3),
                                "confidence": 0.98,
                                "punctuated_word": word.text,
                            }
                            for word in words
                        ],
                    }
                ]
            },
            "metadata": {
                "request_id": self.request_id,
                "model_info": {"name": self.query["model"], "version": "2026-01-01.0", "arch": "nova-3"},
                "model_uuid": "00000000-0000-0000-0000-000000000000",
            },
        }
        if final:
            self.told += len(words)
            self._fixed_s = self._partial_s = self.audio_s
            self._started = False
            self._last_word_s = words[-1].end_s if words else self._last_word_s
        await self.tell("Results", **fields)


class _FluxEars(_Ears):
    """``/v2/listen``: turns."""

    def __init__(self, habits: Habits, query: Mapping[str, str], ws: web.WebSocketResponse, answer: Answer) -> None:
        super().__init__(habits, query, ws, answer)
        self._sequence = itertools.count()
        self._turn = 0
        self._turn_began_s = 0.0
        self._updated_s = 0.0
        self._started = False
        self._eager = False

    async def on_open(self) -> None:
        await self._say("Connected")

    async def on_audio(self) -> None:
        silent_s = self.hearing.silent_s
        if self.words and not self._started:
            self._started = True
            await self._turn_info("StartOfTurn")
        elif self._eager and silent_s == 0:
            self._eager = False
            await self._turn_info("TurnResumed")
        elif self.audio_s - self._updated_s >= self.habits.partial_every_s:
            await self._turn_info("Update")
        if not self._started or self.waits_for:
            return
        if silent_s >= self.habits.turn_silence_s:
            self.put_off("model")
        elif "eager_eot_threshold" in self.query and silent_s >= self.habits.turn_silence_s / 2 and not self._eager:
            self._eager = True
            await self._turn_info("EagerEndOfTurn")

    async def on_due(self, what: str) -> None:
        if self._started and (what == "manual" or self.hearing.silent_s > 0):
            await self._turn_info("EndOfTurn", trigger=what)

    async def on_order(self, order: dict[str, object]) -> bool:
        match order.get("type"):
            case "ForceEndTurn":
                self._started = self._started or bool(self.words)
                if self._started:
                    self.put_off("manual")
            case "Configure":
                thresholds = order.get("thresholds", {})
                keyterms, hints = order.get("keyterms", []), order.get("language_hints", [])
                await self._say("ConfigureSuccess", thresholds=thresholds, keyterms=keyterms, language_hints=hints)
            case "CloseStream":
                return False
            case _:
                await self._say("Error", code="UNPARSABLE_CLIENT_MESSAGE", description="Cannot read that message")
                return False
        return True

    async def _turn_info(self, event: str, **more: object) -> None:
        words = self.words
        self._updated_s = self.audio_s
        fields: dict[str, object] = {
            "event": event,
            "turn_index": self._turn,
            "audio_window_start": round(self._turn_began_s, 3),
            "audio_window_end": round(self.audio_s, 3),
            "transcript": " ".join(word.text for word in words),
            "words": [
                {"word": word.text, "confidence": 0.97, "start": round(word.start_s, 3), "end": round(word.end_s, 3)}
                for word in words
            ],
            "end_of_turn_confidence": 0.9 if event == "EndOfTurn" else 0.1,
        }
        if event == "EndOfTurn":
            self.told += len(words)
            self._turn += 1
            self._turn_began_s = self.audio_s
            self._started = self._eager = False
        await self._say("TurnInfo", **fields, **more)

    async def _say(self, kind: str, **fields: object) -> None:
        await self.tell(kind, request_id=self.request_id, sequence_id=next(self._sequence), **fields)


async def listen_nova(habits: Habits, query: Mapping[str, str], ws: web.WebSocketResponse, answer: Answer) -> None:
    """Serve a stream of ``/v1/listen`` until it ends."""
    await _NovaEars(habits, query, ws, answer).listen()


async def listen_flux(habits: Habits, query: Mapping[str, str], ws: web.WebSocketResponse, answer: Answer) -> None:
    """Serve a stream of ``/v2/listen`` until it ends."""
    await _FluxEars(habits, query, ws, answer).listen()
