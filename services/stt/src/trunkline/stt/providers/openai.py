"""OpenAI's transcription, and that of any server with the same ``/v1/audio/transcriptions`` (Whisper and kin).

Utterance mode: what is said is kept in memory until it is over, and then sent as one WAV file of 8 kHz. The telephone's
sound holds nothing above 4 kHz, so more would double the upload and add no information; every such service takes any
rate and converts it itself. One request per utterance, through the official SDK with its own retries off; the answer is
read whole (streamed words of an utterance that is over come no earlier to any use).
"""

import asyncio
import io
import math
import wave
from collections.abc import Mapping
from typing import Final

import msgspec
import openai

from trunkline.proto.agent import Option, Stt
from trunkline.proto.ids import UtteranceId
from trunkline.providers.endpoints import account_of
from trunkline.providers.errors import Misconfigured, ProviderError, Transient
from trunkline.providers.openai_sdk import RAISED, Clients, meant, own_account, timeout_of, warm
from trunkline.stt.provider import BYTES_PER_S, RATE_HZ, Billed, Failed, OnHeard, SttCapabilities, SttStream
from trunkline.stt.provider import Final as FinalWords

LONGEST_S: Final = 60
"""Of one utterance; what is older is dropped."""
DEFAULT_MODEL: Final = "gpt-4o-mini-transcribe"
"""OpenAI shuts it down on 2027-02-26, with gpt-4o-transcribe and whisper-1; gpt-transcribe follows."""
_KEYWORD_MODELS: Final = "gpt-transcribe"
"""Models that take key terms and languages as lists; others take one language and a prompt."""
_WARM_S: Final = 5.0
_CLOSE_S: Final = 0.5
_LONGEST_ANSWER_BYTES: Final = 1_000_000


class _Answer(msgspec.Struct, frozen=True):
    text: str
    usage: object = None


class OpenAiStream:
    """One call's ear. At most one request per utterance; several may be under way."""

    def __init__(self, client: openai.AsyncOpenAI, stt: Stt, on_heard: OnHeard) -> None:
        self._client = client
        self._stt = stt
        self._on_heard = on_heard
        self._utterance: UtteranceId | None = None
        self._pcm = bytearray()
        self._asking: dict[UtteranceId, asyncio.Task[None]] = {}
        self._billed_s = 0.0
        self._closed = False

    def begin(self, utterance: UtteranceId) -> None:
        """Keep what comes from now on."""
        self._utterance = utterance
        self._pcm = bytearray()

    def push(self, pcm: bytes, *, voiced: bool) -> None:  # noqa: ARG002 - all of an utterance is sent
        """Keep `pcm`, if there is an utterance."""
        if self._utterance is not None:
            self._pcm += pcm
            del self._pcm[: -LONGEST_S * BYTES_PER_S]

    def finish(self) -> None:
        """Ask for the words."""
        if self._utterance is None or self._closed:
            return
        utterance, self._utterance = self._utterance, None
        pcm, self._pcm = bytes(self._pcm), bytearray()
        task = asyncio.get_running_loop().create_task(self._ask(utterance, pcm), name=f"transcribe {utterance}")
        self._asking[utterance] = task
        task.add_done_callback(lambda _: self._asking.pop(utterance, None))

    def give_up(self, utterance: UtteranceId) -> None:
        """Break off the request for `utterance`."""
        if (task := self._asking.get(utterance)) is not None:
            task.cancel()

    async def aclose(self) -> None:
        """Break off every request."""
        self._closed = True
        self._utterance = None
        self._pcm = bytearray()
        if tasks := list(self._asking.values()):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_CLOSE_S)

    async def _ask(self, utterance: UtteranceId, pcm: bytes) -> None:
        try:
            answer = await self._words(pcm)
        except RAISED as error:
            self._tell(Failed(utterance, meant(error, self._client.api_key)))
        except ProviderError as error:
            self._tell(Failed(utterance, error))
        else:
            self._billed_s += _seconds(answer.usage, len(pcm) / BYTES_PER_S)
            self._tell(FinalWords(utterance, answer.text.strip()))
            self._tell(Billed(self._billed_s))

    async def _words(self, pcm: bytes) -> _Answer:
        stt, prompt = self._stt, self._stt.options.get("prompt")
        model, terms = stt.model or DEFAULT_MODEL, list(stt.keyterms)
        language = stt.language.partition("-")[0].lower()  # ISO 639-1
        by_list = model.startswith(_KEYWORD_MODELS)
        hints = [prompt] if isinstance(prompt, str) and prompt else []
        if terms and not by_list:
            hints.append(", ".join(terms))
        temperature = stt.options.get("temperature")
        body = bytearray()
        async with self._client.audio.transcriptions.with_streaming_response.create(
            file=("utterance.wav", _wav(pcm), "audio/wav"),
            model=model,
            response_format="json",
            language=language if language and not by_list else openai.omit,
            languages=[language] if language and by_list else openai.omit,
            keywords=terms if terms and by_list else openai.omit,
            prompt=" ".join(hints) if hints else openai.omit,
            temperature=temperature if isinstance(temperature, float) else openai.omit,
            timeout=timeout_of(stt.timeouts),
        ) as response:
            async for piece in response.iter_bytes():
                body += piece
                if len(body) > _LONGEST_ANSWER_BYTES:
                    raise Transient("the answer is too long", "malformed")
        try:
            return msgspec.json.decode(body, type=_Answer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Transient("the answer cannot be read", "malformed") from None  # its text would quote words

    def _tell(self, heard: FinalWords | Failed | Billed) -> None:
        if not self._closed:
            self._on_heard(heard)


class OpenAiProvider:
    """OpenAI's models by name; key ``OPENAI_API_KEY``, address ``OPENAI_BASE_URL`` (with ``/v1``)."""

    capabilities = SttCapabilities(
        model=DEFAULT_MODEL, usage=True, honours=frozenset({"language", "keyterms", "model"})
    )

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._clients = Clients()

    def account(self, stt: Stt) -> tuple[str, str]:
        """Return the address `stt` asks at, and the key.

        Raises:
            Misconfigured: there is none.
        """
        if stt.endpoint:
            raise Misconfigured("stt.endpoint", "the provider openai has one only; openai-compatible has others")
        return own_account(self._environ)

    def check(self, stt: Stt) -> None:
        """See `SttProvider.check`.

        Raises:
            Misconfigured: no key, no such option, or one of the wrong type.
        """
        self.account(stt)
        _check_options(stt.options)

    async def warm_up(self) -> None:
        """Need nothing."""

    async def warm(self, stt: Stt) -> None:
        """Open a connection, by asking about the model: any answer will do."""
        try:
            client = self._client(stt)
        except Misconfigured:
            return  # told by `check`, and again by `open`
        await warm(client, stt.model or DEFAULT_MODEL, _WARM_S)

    async def open(self, stt: Stt, on_heard: OnHeard) -> SttStream:
        """Return an ear.

        Raises:
            Misconfigured: as for `check`.
        """
        self.check(stt)
        return OpenAiStream(self._client(stt), stt, on_heard)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._clients.aclose()

    def _client(self, stt: Stt) -> openai.AsyncOpenAI:
        return self._clients.of(*self.account(stt), compatible=bool(stt.endpoint))


class CompatibleProvider(OpenAiProvider):
    """Models of the server that the operator gave an address for: ``<ENDPOINT>_BASE_URL``, and a key if it has one."""

    capabilities = SttCapabilities(usage=True, honours=frozenset({"language", "keyterms", "model"}))

    def account(self, stt: Stt) -> tuple[str, str]:
        """Return the address `stt` asks at, and the key or ``""``. An agent names an endpoint, never an address.

        Raises:
            Misconfigured: there is none.
        """
        return account_of(stt.endpoint, self._environ, "stt")

    def check(self, stt: Stt) -> None:
        """See `SttProvider.check`.

        Raises:
            Misconfigured: no endpoint, model; no such option, or one of the wrong type.
        """
        super().check(stt)
        if not stt.model:
            raise Misconfigured("stt.model", "needed: no model is common to all endpoints")


def _check_options(options: Mapping[str, Option]) -> None:
    known = {"prompt": str, "temperature": float}
    for name, value in options.items():
        if name not in known:
            raise Misconfigured(f"stt.options.{name}", f"no such option; there are {', '.join(sorted(known))}")
        if type(value) is not known[name]:
            raise Misconfigured(f"stt.options.{name}", f"expected {known[name].__name__}")


def _wav(pcm: bytes) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(RATE_HZ)
        wav.writeframes(pcm)
    return file.getvalue()


def _seconds(usage: object, sent_s: float) -> float:
    """Return the seconds billed for one request: by the service's figure, or `sent_s` where it counts tokens."""
    seconds = usage.get("seconds") if isinstance(usage, dict) else None
    fine = isinstance(seconds, int | float) and math.isfinite(seconds) and seconds >= 0
    return float(seconds) if fine and seconds is not None else sent_s
