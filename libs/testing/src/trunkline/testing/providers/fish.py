"""Fish Audio's side of ``POST /v1/tts`` (docs.fish.audio, "Text to Speech"): JSON or MessagePack in, raw PCM out.

Faults in the midst of an answer are those of `sound`.
"""

import asyncio
from typing import Any, Final, Literal

import msgspec
from aiohttp import web

from trunkline.audio.resample import resample
from trunkline.testing.providers.content import RATE_HZ, Voice, tones
from trunkline.testing.providers.server import Answer, Emulator
from trunkline.testing.providers.sound import MALFORMED, UNKNOWN, say, translated

PCM_RATES_HZ: Final = (8_000, 16_000, 24_000, 32_000, 44_100)


class Prosody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How it is to be said; `volume` in dB."""

    speed: float = 1.0
    volume: float = 0.0


class FishAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request, with the fields that are emulated."""

    text: str
    reference_id: str | None = None
    format: Literal["wav", "pcm", "mp3", "opus"] = "mp3"
    sample_rate: int | None = None
    latency: Literal["low", "normal", "balanced"] = "normal"
    chunk_length: int = 300
    normalize: bool = True
    temperature: float = 0.7
    top_p: float = 0.7
    prosody: Prosody | None = None


class FishEmulator(Emulator):
    """Speaks as Fish Audio does.

    Args:
        voice: what it speaks with.
        key: of the one account.
        first_s: from a request to the first of its sound.
        pace: seconds of sound sent per second; 0: all at once.

    Attributes:
        spoken: the requests it was given.
        models: the header ``model`` of each.
        left: how often a client went before the end of an answer.
    """

    def __init__(
        self, *, voice: Voice | None = None, key: str = "test-key", first_s: float = 0.3, pace: float = 10.0
    ) -> None:
        super().__init__(key=key)
        self._voice = voice or tones(520)
        self._first_s = first_s
        self._pace = pace
        self.spoken: list[FishAsked] = []
        self.models: list[str] = []
        self.left = 0

    def routes(self) -> list[web.RouteDef]:
        """Serve speech, and the account's credit."""
        return [web.post("/v1/tts", self._speech), web.get("/wallet/self/api-credit", self._credit)]

    def refusal(self, status: int, text: str) -> web.Response:
        """Return Fish Audio's error object."""
        return web.json_response({"status": status, "message": text}, status=status)

    def unknown(self) -> str:
        """Return a mark: sound has no messages."""
        return UNKNOWN

    def malformed(self) -> str:
        """Return a mark: sound has no messages."""
        return MALFORMED

    async def _speech(self, request: web.Request) -> web.StreamResponse:
        refused = await self.admit(request, _key(request))
        if refused is not None:
            return refused
        try:
            asked = _asked(request.content_type, await request.read())
        except (msgspec.DecodeError, ValueError) as error:
            return self.refusal(422, str(error))
        self.spoken.append(asked)
        self.models.append(request.headers.get("model", ""))
        await asyncio.sleep(self._first_s)
        rate_hz = asked.sample_rate or 44_100
        speed = asked.prosody.speed if asked.prosody else 1.0
        sound = resample(self._voice(asked.text), RATE_HZ, round(rate_hz / speed)).astype("<i2").tobytes()
        response = web.StreamResponse(headers={"content-type": "audio/pcm"})
        await response.prepare(request)
        answer = Answer(self, request, translated(request, response.write, b"", None), response)
        try:
            await say(answer, sound, rate_hz * self._pace)
            return await answer.end()
        except (ConnectionError, asyncio.CancelledError):
            self.left += 1
            raise

    async def _credit(self, request: web.Request) -> web.StreamResponse:
        refused = await self.admit(request, _key(request))
        return refused or web.json_response({"credit": "10", "cumulative_top_up": "10"})


def _key(request: web.Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer").strip()


def _asked(content_type: str, body: bytes) -> FishAsked:
    decode: Any = msgspec.msgpack.decode if content_type == "application/msgpack" else msgspec.json.decode
    asked: FishAsked = decode(body, type=FishAsked)
    if asked.format != "pcm":
        raise ValueError(f"format {asked.format} is not emulated: ask for pcm")
    if asked.sample_rate not in {None, *PCM_RATES_HZ}:
        raise ValueError(f"sample_rate {asked.sample_rate} is not one of {PCM_RATES_HZ}")
    if not 100 <= asked.chunk_length <= 300:
        raise ValueError("chunk_length must lie between 100 and 300")
    return asked
