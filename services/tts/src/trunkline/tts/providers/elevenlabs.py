"""ElevenLabs' voices: which one an agent asks for, and how; speaking is the sockets' business, or HTTP's.

Sound comes as G.711 μ-law at 8 kHz: what the telephone is sent in the end, half the bytes of PCM, and in every plan.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from elevenlabs.types import GenerationConfig, InitializeConnection, RealtimeVoiceSettings, VoiceSettings
from elevenlabs.url_utils import build_ws_url

from trunkline.proto.agent import Option, Tts
from trunkline.providers.errors import Misconfigured
from trunkline.providers.keys import BadAddress, MissingKey, address_of, key_of
from trunkline.providers.sockets import tls
from trunkline.tts.provider import TtsCapabilities, TtsVoice
from trunkline.tts.providers.elevenlabs_http import Clients, HttpVoice
from trunkline.tts.providers.elevenlabs_socket import Asked, SocketVoice, Spare

MODEL: Final = "eleven_flash_v2_5"
VOICE: Final = "EXAVITQu4vr4xnSDxMaL"
"""Sarah, one of the voices every account has."""
SCHEDULE: Final = "50,90,120,150"
"""Characters that each generation of a sentence waits for; the API takes 50 to 500. The first is the least there is,
because the caller is waiting; later ones are longer, because by then there is sound to hide them, and prosody gains."""
_FORMAT: Final = "ulaw_8000"
_IDLE_S: Final = 180
"""The longest an unused socket may be kept."""
_WARM_S: Final = 20.0
_MOST_WARM: Final = 16
_SLOWEST, _FASTEST = 0.7, 1.2
_VOICE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LENGTHS: Final = re.compile(r"\s*\d{2,3}\s*(,\s*\d{2,3}\s*){0,9}")


def _is_flag(value: Option) -> bool:
    return isinstance(value, bool)


def _is_share(value: Option) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _is_seed(value: Option) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32


def _is_language(value: Option) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[a-z]{2,3}", value) is not None


def _is_schedule(value: Option) -> bool:
    return (
        isinstance(value, str) and _LENGTHS.fullmatch(value) is not None and all(50 <= n <= 500 for n in _ints(value))
    )


_OPTIONS: Final[dict[str, Callable[[Option], bool]]] = {
    "transport": lambda value: value in {"websocket", "http"},
    "chunk_length_schedule": _is_schedule,
    "stability": _is_share,
    "similarity_boost": _is_share,
    "style": _is_share,
    "use_speaker_boost": _is_flag,
    "seed": _is_seed,
    "apply_text_normalization": lambda value: value in {"auto", "on", "off"},
    "language_code": _is_language,
    "enable_logging": _is_flag,
}
_OF_VOICE: Final = ("stability", "similarity_boost", "style", "use_speaker_boost")
_OF_REQUEST: Final = ("seed", "apply_text_normalization", "enable_logging")


class ElevenLabsProvider:
    """Voices by identifier. `ELEVENLABS_API_KEY` and, for other than its public address, `ELEVENLABS_BASE_URL`."""

    capabilities: Final = TtsCapabilities(
        model=MODEL, adjusts=frozenset({"speed", "language"}), streams_text=True, word_times=True
    )

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._clients = Clients()
        self._warm: dict[Asked, tuple[Spare, asyncio.TimerHandle]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        tls()

    def check(self, tts: Tts) -> None:
        """Check the key, the voice's form, the speed and the options."""
        self._access()
        _check(tts)

    async def warm(self, tts: Tts) -> None:
        """Open a socket for the next `open` that asks the same; it is kept for 20 s."""
        with contextlib.suppress(Misconfigured):
            _check(tts)
            if _transport(tts) == "http":
                return
            asked = self._asked(tts)
            if asked not in self._warm and len(self._warm) < _MOST_WARM:
                timer = asyncio.get_running_loop().call_later(_WARM_S, self._cool, asked)
                self._warm[asked] = Spare(asked), timer

    async def open(self, tts: Tts) -> TtsVoice:
        """Return a voice that connects by itself."""
        _check(tts)
        if _transport(tts) == "http":
            return self._over_http(tts)
        asked = self._asked(tts)
        spare, timer = self._warm.pop(asked, (None, None))
        if timer is not None:
            timer.cancel()
        return SocketVoice(spare or Spare(asked))

    async def aclose(self) -> None:
        """Close what is open."""
        for asked in list(self._warm):
            self._warm[asked][1].cancel()
            self._cool(asked)
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._clients.aclose()

    def _cool(self, asked: Asked) -> None:
        spare, _ = self._warm.pop(asked)
        closing = asyncio.create_task(spare.aclose(), name="elevenlabs cooling")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _asked(self, tts: Tts) -> Asked:
        address, key = self._access()
        query: dict[str, str] = {
            "model_id": tts.model or MODEL,
            "output_format": _FORMAT,
            "inactivity_timeout": str(_IDLE_S),
            "sync_alignment": "true",
            **{name: _word(tts.options[name]) for name in _OF_REQUEST if name in tts.options},
        }
        if language := _language(tts):
            query["language_code"] = language
        schedule = str(tts.options.get("chunk_length_schedule", SCHEDULE))
        first = InitializeConnection(
            voice_settings=RealtimeVoiceSettings(**_voice_settings(tts)) if _voice_settings(tts) else None,
            generation_config=GenerationConfig(chunk_length_schedule=[float(n) for n in _ints(schedule)]),
        )
        url = build_ws_url(address, ["v1", "text-to-speech", tts.voice or VOICE, "stream-input"], query)
        return Asked(url, first.model_dump_json(by_alias=True, exclude_none=True), key, tts.timeouts.connect_ms / 1_000)

    def _over_http(self, tts: Tts) -> HttpVoice:
        address, key = self._access()
        request: dict[str, Any] = {
            "voice_id": tts.voice or VOICE,
            "model_id": tts.model or MODEL,
            "output_format": _FORMAT,
            **{name: tts.options[name] for name in _OF_REQUEST if name in tts.options},
        }
        if language := _language(tts):
            request["language_code"] = language
        if settings := _voice_settings(tts):
            request["voice_settings"] = VoiceSettings(**settings)
        return HttpVoice(self._clients.of(address, key), key, tts.timeouts.connect_ms / 1_000, request)

    def _access(self) -> tuple[str, str]:
        try:
            address = address_of("elevenlabs", self._environ, "https://api.elevenlabs.io")
            return address, key_of("elevenlabs", self._environ)
        except MissingKey as error:
            raise Misconfigured(error.variable, str(error)) from error
        except BadAddress as error:
            raise Misconfigured("ELEVENLABS_BASE_URL", str(error)) from error


def _check(tts: Tts) -> None:
    for name, value in tts.options.items():
        if name not in _OPTIONS:
            raise Misconfigured(f"tts.options.{name}", f"unknown; expected one of {', '.join(sorted(_OPTIONS))}")
        if not _OPTIONS[name](value):
            raise Misconfigured(f"tts.options.{name}", f"cannot be {value!r}")
    if not _VOICE.fullmatch(tts.voice or VOICE):
        raise Misconfigured("tts.voice", f"{tts.voice} is no identifier of a voice")
    if not _SLOWEST <= tts.speed <= _FASTEST:
        raise Misconfigured("tts.speed", f"must be between {_SLOWEST} and {_FASTEST} with ElevenLabs")
    if tts.model.startswith("eleven_v3") and _transport(tts) == "websocket":
        raise Misconfigured("tts.model", f'{tts.model} has no WebSocket; use options.transport = "http"')
    if _language(tts) and not _is_language(_language(tts)):
        raise Misconfigured("tts.language", f"{tts.language} is no ISO 639 code")


def _transport(tts: Tts) -> Option:
    return tts.options.get("transport", "websocket")


def _language(tts: Tts) -> str:
    return str(tts.options.get("language_code") or tts.language.partition("-")[0].lower())


def _voice_settings(tts: Tts) -> dict[str, Any]:
    settings: dict[str, Any] = {name: tts.options[name] for name in _OF_VOICE if name in tts.options}
    return settings if tts.speed == 1 else {**settings, "speed": tts.speed}


def _ints(schedule: str) -> list[int]:
    return [int(length) for length in schedule.split(",")]


def _word(value: Option) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
