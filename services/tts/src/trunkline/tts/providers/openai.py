"""OpenAI's voices, and those of any server with the same ``/v1/audio/speech``.

The endpoint takes a sentence whole and streams its sound: raw PCM16 at 24 kHz, cut anywhere. One attempt per sentence,
through the official SDK with its own retries off. What comes back is believed only as far as it can be sound.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from typing import Final

import httpx2
import openai

from trunkline.proto.agent import Option, Tts
from trunkline.providers import keys
from trunkline.providers.errors import Misconfigured, ProviderError, Rejected, Transient, of_status
from trunkline.tts.provider import TtsCapabilities, TtsVoice

log = logging.getLogger("trunkline.tts.providers.openai")

RATE_HZ: Final = 24_000
DEFAULT_MODEL: Final = "gpt-4o-mini-tts"
"""OpenAI shuts it down on 2027-01-06, with tts-1 and tts-1-hd, and offers no other model at this endpoint."""
DEFAULT_VOICE: Final = "alloy"
LONGEST_S: Final = 300
"""No sentence of 1000 characters takes longer; a server that goes on is out of order."""
_ADDRESS: Final = "https://api.openai.com/v1"
_TIMEOUT: Final = openai.Timeout(600, connect=60)  # whoever asks has shorter ones
_WARM_S: Final = 5.0
_NO_KEY: Final = "no-key-needed"  # given none, the SDK would send this process's OPENAI_API_KEY to any server
# The library's own 5 s would close the connection between two sentences of a conversation.
_LIMITS: Final = httpx2.Limits(max_connections=1_000, max_keepalive_connections=100, keepalive_expiry=55)
_RAISED: Final = (openai.OpenAIError, httpx2.HTTPError, httpx2.StreamError, ValueError)


class OpenAiVoice:
    """A voice for one call; its connections belong to the process."""

    def __init__(self, client: openai.AsyncOpenAI, tts: Tts, rate_hz: int) -> None:
        self.sample_rate_hz: Final = rate_hz
        self._client = client
        self._tts = tts

    async def speak(self, text: AsyncIterable[str]) -> AsyncGenerator[bytes, None]:
        """Yield the sentence in whole samples; see `TtsVoice.speak`."""
        sentence = "".join([piece async for piece in text])
        if not sentence.strip():
            return
        tts, instructions = self._tts, self._tts.options.get("instructions")
        left = LONGEST_S * self.sample_rate_hz * 2
        odd = b""
        try:
            async with self._client.audio.speech.with_streaming_response.create(
                input=sentence,
                model=tts.model or DEFAULT_MODEL,
                voice=tts.voice or DEFAULT_VOICE,
                response_format="pcm",
                speed=tts.speed if tts.speed != 1.0 else openai.omit,
                instructions=instructions if isinstance(instructions, str) else openai.omit,
            ) as response:
                _check_sound(response.headers.get("content-type", ""))
                async for piece in response.iter_bytes():
                    pcm = odd + piece
                    if left == LONGEST_S * self.sample_rate_hz * 2 and pcm.startswith(b"RIFF"):
                        raise Transient("the answer is a WAV file, not raw samples", "malformed")
                    odd = pcm[len(pcm) & ~1 :]
                    left -= len(piece)
                    if left < 0:
                        raise Transient(f"more than {LONGEST_S} s of sound for one sentence", "malformed")
                    if len(pcm) > 1:
                        yield pcm[: len(pcm) & ~1]
        except _RAISED as error:
            raise _meant(error, self._client.api_key) from None  # the library's own text may quote the key
        if odd:
            raise Transient("the sound ends within a sample", "malformed")

    async def aclose(self) -> None:
        """Hold nothing."""


class OpenAiProvider:
    """OpenAI's voices by name; key ``OPENAI_API_KEY``, address ``OPENAI_BASE_URL`` (with ``/v1``)."""

    capabilities: Final = TtsCapabilities(adjusts=frozenset({"speed"}))
    options: Mapping[str, type] = {"instructions": str}

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._clients: dict[tuple[str, str], openai.AsyncOpenAI] = {}

    def account(self, tts: Tts) -> tuple[str, str]:
        """Return the address `tts` asks at, and the key.

        Raises:
            Misconfigured: there is none.
        """
        if tts.endpoint:
            raise Misconfigured("tts.endpoint", "the provider openai has one only; openai-compatible has others")
        try:
            return keys.address_of("openai", self._environ, _ADDRESS), keys.key_of("openai", self._environ)
        except keys.MissingKey as error:
            raise Misconfigured(error.variable, str(error)) from error
        except keys.BadAddress as error:
            raise Misconfigured("OPENAI_BASE_URL", str(error)) from error

    def check(self, tts: Tts) -> None:
        """See `TtsProvider.check`; the voice is left to the service, which has new ones now and then.

        Raises:
            Misconfigured: no key, no such option, or one of the wrong type.
        """
        self.account(tts)
        _check_options(tts.options, self.options)

    async def warm(self, tts: Tts) -> None:
        """Open a connection, by asking about the model: any answer will do."""
        try:
            models = self._client(tts).models.with_streaming_response
            async with asyncio.timeout(_WARM_S), models.retrieve(tts.model or DEFAULT_MODEL) as response:
                async for _ in response.iter_bytes():
                    pass  # a connection is kept once its answer is read
        except Misconfigured:
            pass  # told by `check`, and again by `open`
        except (*_RAISED, TimeoutError) as error:
            log.debug("warming had no answer to like", extra={"provider": tts.provider, "error": type(error).__name__})

    async def open(self, tts: Tts) -> TtsVoice:
        """Return the voice.

        Raises:
            Misconfigured: as for `check`.
        """
        self.check(tts)
        rate_hz = tts.options.get("sample_rate_hz")
        return OpenAiVoice(self._client(tts), tts, rate_hz if isinstance(rate_hz, int) else RATE_HZ)

    async def aclose(self) -> None:
        """Close the connections."""
        while self._clients:
            _, client = self._clients.popitem()
            await client.close()

    def _client(self, tts: Tts) -> openai.AsyncOpenAI:
        address, key = account = self.account(tts)
        if account not in self._clients:
            client = self._clients[account] = openai.AsyncOpenAI(
                base_url=address,
                api_key=key or _NO_KEY,
                max_retries=0,
                timeout=_TIMEOUT,
                # A redirect would hand the caller's words to a host that nobody named.
                http_client=openai.DefaultAsyncHttpxClient(limits=_LIMITS, follow_redirects=False),
            )
            if tts.endpoint:  # the SDK takes these from the process's environment, whoever is asked
                client.organization = client.project = None
        return self._clients[account]


class CompatibleProvider(OpenAiProvider):
    """Voices of the server that the operator gave an address for: ``<ENDPOINT>_BASE_URL``, and a key if it has one."""

    options: Mapping[str, type] = {"instructions": str, "sample_rate_hz": int}  # a rate other than 24 kHz

    def account(self, tts: Tts) -> tuple[str, str]:
        """Return the address `tts` asks at, and the key or ``""``. An agent names an endpoint, never an address.

        Raises:
            Misconfigured: there is none.
        """
        if not tts.endpoint:
            raise Misconfigured("tts.endpoint", "needed: which of the compatible servers")
        variable = keys.variable_of(tts.endpoint, "BASE_URL")
        if not self._environ.get(variable, "").strip():
            raise Misconfigured(variable, f"not set: the endpoint {tts.endpoint} is nowhere")
        try:
            address = keys.address_of(tts.endpoint, self._environ, "")
        except keys.BadAddress as error:
            raise Misconfigured(variable, str(error)) from error
        try:
            return address, keys.key_of(tts.endpoint, self._environ)
        except keys.MissingKey:
            return address, ""

    def check(self, tts: Tts) -> None:
        """See `TtsProvider.check`.

        Raises:
            Misconfigured: no endpoint, model or voice; no such option, or one of the wrong type.
        """
        super().check(tts)
        if not tts.model:
            raise Misconfigured("tts.model", "needed: no model is common to all endpoints")
        if not tts.voice:
            raise Misconfigured("tts.voice", "needed: no voice is common to all endpoints")
        rate_hz = tts.options.get("sample_rate_hz", RATE_HZ)
        if isinstance(rate_hz, int) and not 8_000 <= rate_hz <= 48_000:
            raise Misconfigured("tts.options.sample_rate_hz", "expected 8000 to 48000")


def _check_options(options: Mapping[str, Option], known: Mapping[str, type]) -> None:
    for name, value in options.items():
        if name not in known:
            raise Misconfigured(f"tts.options.{name}", f"no such option; there are {', '.join(sorted(known))}")
        if type(value) is not known[name]:
            raise Misconfigured(f"tts.options.{name}", f"expected {known[name].__name__}")


def _check_sound(content_type: str) -> None:
    kind = content_type.partition(";")[0].strip().lower()
    if kind and not kind.startswith("audio/") and kind != "application/octet-stream":
        raise Transient("the answer is no sound", "malformed")


def _meant(error: Exception, key: str) -> ProviderError:
    """Return what `error` of the libraries means; of a refusal only its message is kept, which quotes no input."""
    if isinstance(error, openai.APIStatusError):
        said = error.body.get("message") if isinstance(error.body, dict) else None
        text = f"HTTP {error.status_code}" + (f": {said}" if isinstance(said, str) else "")
        return of_status(error.status_code, keys.without_key(text, key), error.response.headers.get("retry-after"))
    if isinstance(error, openai.APIConnectionError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    match error:
        case httpx2.ConnectError() | httpx2.ConnectTimeout() | httpx2.PoolTimeout():
            return Transient("no connection", "connect")
        case httpx2.TimeoutException():
            return Transient("no answer", "stall")
        case httpx2.RemoteProtocolError() if "disconnected" not in str(error) and "peer closed" not in str(error):
            return Transient("the answer is no HTTP", "malformed")
        case httpx2.TransportError() | httpx2.StreamError():
            return Transient("the connection broke", "dropped")
        case httpx2.DecodingError() | openai.APIError():
            return Transient("the answer cannot be read", "malformed")
        case _:
            return Rejected(f"the request cannot be made: {type(error).__name__}")
