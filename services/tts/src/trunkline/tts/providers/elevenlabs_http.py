"""ElevenLabs over HTTP, through the SDK: a sentence is sent whole, its sound streams back."""

from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any, Final

import httpx
from elevenlabs.client import AsyncElevenLabs
from elevenlabs.core.api_error import ApiError

from trunkline.audio.g711 import mulaw_to_pcm16
from trunkline.providers.errors import ProviderError, Rejected, Transient
from trunkline.providers.sockets import tls
from trunkline.tts.provider import Billed, Spoken
from trunkline.tts.providers.elevenlabs_errors import of_answer
from trunkline.tts.providers.elevenlabs_socket import RATE_HZ

_MOST_BYTES: Final = 600 * RATE_HZ
_CHUNK_BYTES: Final = 640
_ONCE: Final[Any] = {"max_retries": 0, "chunk_size": _CHUNK_BYTES}
# The library's own 5 s would close the connection between two sentences of a conversation.
_LIMITS: Final = httpx.Limits(max_connections=1_000, max_keepalive_connections=100, keepalive_expiry=55)


class Clients:
    """The SDK's clients of a process: one for each account, with one pool of connections."""

    def __init__(self) -> None:
        self._http: httpx.AsyncClient | None = None
        self._clients: dict[tuple[str, str], AsyncElevenLabs] = {}

    def of(self, address: str, key: str) -> AsyncElevenLabs:
        """Return the one for `key`. A redirect would hand it to a host that nobody named: none is followed."""
        if self._http is None:
            self._http = httpx.AsyncClient(limits=_LIMITS, follow_redirects=False, timeout=600, verify=tls())
        if (address, key) not in self._clients:
            found = AsyncElevenLabs(base_url=address, api_key=key, httpx_client=self._http)
            self._clients[address, key] = found
        return self._clients[address, key]

    async def aclose(self) -> None:
        """Close the connections."""
        http, self._http = self._http, None
        self._clients.clear()
        if http is not None:
            await http.aclose()


class HttpVoice:
    """A voice of one call.

    Args:
        client: of the process.
        key: to be blotted out.
        connect_s: how long a connection may take.
        request: what every sentence is asked with, as the SDK's arguments.
    """

    sample_rate_hz: Final = RATE_HZ

    def __init__(self, client: AsyncElevenLabs, key: str, connect_s: float, request: dict[str, Any]) -> None:
        self._client = client
        self._key = key
        self._request = request
        # The SDK hands this on to httpx as it is. Whoever asks has shorter times for all but connecting.
        self._options: Any = {**_ONCE, "timeout_in_seconds": httpx.Timeout(600, connect=connect_s)}

    async def speak(self, text: AsyncIterable[str]) -> AsyncGenerator[Spoken, None]:
        """Yield the sentence as it comes, once it is written."""
        whole = "".join([piece async for piece in text]).strip()
        if not any(character.isalnum() for character in whole):
            return
        sound_bytes = 0
        speech = self._client.text_to_speech.with_raw_response
        try:
            async with speech.stream(text=whole, request_options=self._options, **self._request) as response:
                headers = {name.lower(): value for name, value in response.headers.items()}
                if headers.get("content-type", "").startswith(("application/json", "text/")):
                    raise Transient("the answer is no sound", "malformed")
                cost = headers.get("character-cost", "")
                if cost.isascii() and cost.isdecimal() and len(cost) < len("100000"):
                    yield Billed(int(cost))
                async for sound in response.data:
                    sound_bytes += len(sound)
                    if sound_bytes > _MOST_BYTES:
                        raise Transient("more sound than a sentence can have", "malformed")
                    yield mulaw_to_pcm16(sound)
        except (ApiError, httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, ValueError) as error:
            raise _meant(error, self._key) from error

    async def aclose(self) -> None:
        """Hold nothing."""


def _meant(error: Exception, key: str) -> ProviderError:
    match error:
        case ApiError():
            headers = {name.lower(): value for name, value in (error.headers or {}).items()}
            return of_answer(error.status_code or 0, error.body, headers.get("retry-after"), key)
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.PoolTimeout():
            return Transient("no connection", "connect")
        case httpx.TimeoutException():
            return Transient("no answer", "stall")
        case httpx.RemoteProtocolError() if "disconnected" not in str(error) and "peer closed" not in str(error):
            return Transient("the answer is no HTTP", "malformed")
        case httpx.TransportError() | httpx.StreamError():
            return Transient("the connection broke", "dropped")
        case httpx.DecodingError() | httpx.TooManyRedirects():
            return Transient("the answer cannot be read", "malformed")
        case _:
            return Rejected(f"the request cannot be made: {type(error).__name__}")
