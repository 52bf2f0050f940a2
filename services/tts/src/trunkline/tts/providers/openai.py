"""OpenAI's voices, and those of any server with the same ``/v1/audio/speech``.

The endpoint takes a sentence whole and streams its sound: raw PCM16 at 24 kHz, cut anywhere. One attempt per sentence,
through the official SDK with its own retries off. What comes back is believed only as far as it can be sound.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from typing import Final

import openai

from trunkline.proto.agent import Option, Tts
from trunkline.providers.endpoints import account_of
from trunkline.providers.errors import Misconfigured, Transient
from trunkline.providers.openai_sdk import RAISED, Clients, meant, own_account, timeout_of, warm
from trunkline.tts.provider import TtsCapabilities, TtsVoice

RATE_HZ: Final = 24_000
DEFAULT_MODEL: Final = "gpt-4o-mini-tts"
"""OpenAI shuts it down on 2027-01-06, with tts-1 and tts-1-hd, and offers no other model at this endpoint."""
DEFAULT_VOICE: Final = "alloy"
LONGEST_S: Final = 300
"""No sentence of 1000 characters takes longer; a server that goes on is out of order."""
_WARM_S: Final = 5.0


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
                timeout=timeout_of(tts.timeouts),
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
        except RAISED as error:
            raise meant(error, self._client.api_key) from None  # the library's own text may quote the key
        if odd:
            raise Transient("the sound ends within a sample", "malformed")

    async def aclose(self) -> None:
        """Hold nothing."""


class OpenAiProvider:
    """OpenAI's voices by name; key ``OPENAI_API_KEY``, address ``OPENAI_BASE_URL`` (with ``/v1``)."""

    capabilities = TtsCapabilities(model=DEFAULT_MODEL, adjusts=frozenset({"speed"}))
    options: Mapping[str, type] = {"instructions": str}

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._clients = Clients()

    def account(self, tts: Tts) -> tuple[str, str]:
        """Return the address `tts` asks at, and the key.

        Raises:
            Misconfigured: there is none.
        """
        if tts.endpoint:
            raise Misconfigured("tts.endpoint", "the provider openai has one only; openai-compatible has others")
        return own_account(self._environ)

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
            client = self._client(tts)
        except Misconfigured:
            return  # told by `check`, and again by `open`
        await warm(client, tts.model or DEFAULT_MODEL, _WARM_S)

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
        await self._clients.aclose()

    def _client(self, tts: Tts) -> openai.AsyncOpenAI:
        return self._clients.of(*self.account(tts), compatible=bool(tts.endpoint))


class CompatibleProvider(OpenAiProvider):
    """Voices of the server that the operator gave an address for: ``<ENDPOINT>_BASE_URL``, and a key if it has one."""

    capabilities = TtsCapabilities(adjusts=frozenset({"speed"}))
    options: Mapping[str, type] = {"instructions": str, "sample_rate_hz": int}  # a rate other than 24 kHz

    def account(self, tts: Tts) -> tuple[str, str]:
        """Return the address `tts` asks at, and the key or ``""``. An agent names an endpoint, never an address.

        Raises:
            Misconfigured: there is none.
        """
        return account_of(tts.endpoint, self._environ, "tts")

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
