"""Fish Audio's voices, over ``POST /v1/tts`` (docs.fish.audio): a sentence in, raw PCM16 streamed back.

One attempt per sentence. When to give up on it, whether to try again and who speaks instead is decided by whoever asks.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from typing import Final

import httpx
import msgspec

from trunkline.proto.agent import Tts
from trunkline.providers import keys
from trunkline.providers.errors import Misconfigured, ProviderError, Rejected, Transient, of_status
from trunkline.tts.provider import TtsCapabilities, TtsVoice

log = logging.getLogger("trunkline_fish")

RATE_HZ: Final = 8_000
"""What Fish Audio advises for telephones (its cookbook, "Telephony 8 kHz audio")."""
DEFAULT_MODEL: Final = "s2.1-pro"
LONGEST_S: Final = 300
_OPTIONS: Final[Mapping[str, type]] = {
    "latency": str,
    "normalize": bool,
    "chunk_length": int,
    "temperature": float,
    "top_p": float,
}
_ADDRESS: Final = "https://api.fish.audio"
_LONGEST_REFUSAL_BYTES: Final = 4_096
_LONG_S: Final = 600.0
# httpx keeps an idle connection for 5 s only: less than a turn of a conversation.
_LIMITS: Final = httpx.Limits(max_connections=1_000, max_keepalive_connections=100, keepalive_expiry=55)
_RAISED: Final = (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, ValueError)


class FishVoice:
    """A voice for one call; its connections belong to the process."""

    sample_rate_hz: Final = RATE_HZ

    def __init__(self, client: httpx.AsyncClient, headers: Mapping[str, str], tts: Tts) -> None:
        self._client = client
        self._headers = headers
        self._tts = tts
        # Whoever asks has shorter times for all but connecting.
        self._timeout = httpx.Timeout(_LONG_S, connect=tts.timeouts.connect_ms / 1_000)

    async def speak(self, text: AsyncIterable[str]) -> AsyncGenerator[bytes, None]:
        """Yield the sentence in whole samples; see `TtsVoice.speak`."""
        sentence = "".join([piece async for piece in text])
        if not sentence.strip():
            return
        left = LONGEST_S * RATE_HZ * 2
        odd = b""
        try:
            async with self._client.stream(
                "POST", "/v1/tts", content=self._body(sentence), headers=self._headers, timeout=self._timeout
            ) as response:
                if response.status_code != httpx.codes.OK:
                    raise await _refusal(response)
                kind = response.headers.get("content-type", "")
                if kind and not kind.startswith(("audio/", "application/octet-stream")):
                    raise Transient("the answer is no sound", "malformed")
                async for piece in response.aiter_bytes():
                    pcm = odd + piece
                    odd = pcm[len(pcm) & ~1 :]
                    left -= len(piece)
                    if left < 0:
                        raise Transient(f"more than {LONGEST_S} s of sound for one sentence", "malformed")
                    if len(pcm) > 1:
                        yield pcm[: len(pcm) & ~1]
        except _RAISED as error:
            raise _meant(error) from None  # the request it carries holds the key
        if odd:
            raise Transient("the sound ends within a sample", "malformed")

    async def aclose(self) -> None:
        """Hold nothing."""

    def _body(self, sentence: str) -> bytes:
        tts = self._tts
        body: dict[str, object] = {"text": sentence, "format": "pcm", "sample_rate": RATE_HZ, "latency": "balanced"}
        if tts.voice:
            body["reference_id"] = tts.voice
        if tts.speed != 1.0:
            body["prosody"] = {"speed": tts.speed}
        return msgspec.json.encode(body | tts.options)


class FishProvider:
    """Fish Audio's voices by reference id; key ``FISH_API_KEY``, address ``FISH_BASE_URL``."""

    capabilities: Final = TtsCapabilities(model=DEFAULT_MODEL, adjusts=frozenset({"speed"}))

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._client: httpx.AsyncClient | None = None

    def check(self, tts: Tts) -> None:
        """See `TtsProvider.check`; the voice is left to the service.

        Raises:
            Misconfigured: no key, no such option, or one of the wrong type.
        """
        self._account()
        if tts.endpoint:
            raise Misconfigured("tts.endpoint", "there is one only")
        for name, value in tts.options.items():
            if name not in _OPTIONS:
                raise Misconfigured(f"tts.options.{name}", f"no such option; there are {', '.join(sorted(_OPTIONS))}")
            if type(value) is not _OPTIONS[name]:
                raise Misconfigured(f"tts.options.{name}", f"expected {_OPTIONS[name].__name__}")

    async def warm(self, tts: Tts) -> None:
        """Open a connection, by asking for the credit: the smallest answer there is."""
        try:
            headers = self._headers(tts)
            await self._opened().get("/wallet/self/api-credit", headers=headers, timeout=5)
        except Misconfigured:
            pass  # told by `check`, and again by `open`
        except _RAISED as error:
            log.debug("warming had no answer", extra={"error": type(error).__name__})

    async def open(self, tts: Tts) -> TtsVoice:
        """Return the voice.

        Raises:
            Misconfigured: as for `check`.
        """
        self.check(tts)
        return FishVoice(self._opened(), self._headers(tts), tts)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _account(self) -> tuple[str, str]:
        try:
            return keys.address_of("fish", self._environ, _ADDRESS), keys.key_of("fish", self._environ)
        except keys.MissingKey as error:
            raise Misconfigured(error.variable, str(error)) from error
        except keys.BadAddress as error:
            raise Misconfigured("FISH_BASE_URL", str(error)) from error

    def _headers(self, tts: Tts) -> dict[str, str]:
        _, key = self._account()
        return {
            "authorization": f"Bearer {key}",
            "content-type": "application/json",
            "model": tts.model or DEFAULT_MODEL,
        }

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            address, _ = self._account()
            self._client = httpx.AsyncClient(base_url=address, timeout=_LONG_S, limits=_LIMITS)
        return self._client


async def _refusal(response: httpx.Response) -> ProviderError:
    """Return what a status other than 200 means, with the service's message if it has one."""
    body = b""
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > _LONGEST_REFUSAL_BYTES:
            break
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = None
    message = said.get("message") if isinstance(said, dict) else None
    text = f"HTTP {response.status_code}" + (f": {message}" if isinstance(message, str) else "")
    key = response.request.headers["authorization"].removeprefix("Bearer ")
    return of_status(response.status_code, keys.without_key(text, key), response.headers.get("retry-after"))


def _meant(error: Exception) -> ProviderError:
    match error:
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.PoolTimeout():
            return Transient("no connection", "connect")
        case httpx.TimeoutException():
            return Transient("no answer", "stall")
        case httpx.RemoteProtocolError() if "disconnected" not in str(error) and "peer closed" not in str(error):
            return Transient("the answer is no HTTP", "malformed")
        case httpx.TransportError() | httpx.StreamError():
            return Transient("the connection broke", "dropped")
        case httpx.DecodingError():
            return Transient("the answer cannot be read", "malformed")
        case _:
            return Rejected(f"the request cannot be made: {type(error).__name__}")
