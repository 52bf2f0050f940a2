"""libespeak-ng through ctypes: text in, PCM16 out, in the thread that calls.

The library keeps its state in globals: `espeak` returns the one `Espeak` of the process, and one thread at a time is
let into it (two at once end the process with a segmentation fault). It knows nothing of the event loop, of calls, or of
the telephone's rate. API: espeak-ng, ``src/include/espeak-ng/speak_lib.h``.
"""

import ctypes
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Final, NamedTuple

import espeakng_loader

from trunkline.providers.errors import Misconfigured, Transient, Unavailable

NORMAL_WPM: Final = 175
_SLOWEST_WPM, _FASTEST_WPM = 80, 450

# Values of speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_POSITION_CHARACTER = 1
_CHARS_UTF8 = 1
_PARAMETER_RATE = 1
_PARAMETER_PITCH = 3
_GO_ON, _ABORT = 0, 1

_BLOCK_MS = 160
# The library copies its data path into 160 bytes and goes on with what fits.
_LONGEST_DATA_PATH = 150

Emit = Callable[[bytes], bool]
"""Takes a piece of audio; returns False to end the sentence there."""

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class _Voice(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("spare", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("more", ctypes.c_void_p),
    )


class Setting(NamedTuple):
    """A voice by its identifier, as `Espeak.resolve` returns it, with its pace and pitch (0 to 99, 50 is normal)."""

    identifier: bytes
    words_per_minute: int = NORMAL_WPM
    pitch: int = 50


def espeak() -> "Espeak":
    """Return the library, loaded when it is first asked for (6 ms). Any thread may ask.

    Raises:
        Unavailable: the library or its voices cannot be loaded.
    """
    with _loading:
        return _loaded()


class Espeak:
    """The library with the voices in `data`. For use by `espeak`: a process has one.

    Raises:
        Unavailable: the library or its voices cannot be loaded.
    """

    def __init__(self, data: Path) -> None:
        self._turn = Lock()
        self._variants = tuple(sorted(path.name for path in data.glob("voices/!v/*")))
        self._short = None
        if len(str(data).encode()) > _LONGEST_DATA_PATH:
            self._short = tempfile.TemporaryDirectory(prefix="espeak-")
            link = Path(self._short.name) / data.name
            link.symlink_to(data)
            data = link
        try:
            self._lib = _declare(ctypes.CDLL(espeakng_loader.get_library_path()))
        except OSError as error:
            raise Unavailable(f"libespeak-ng cannot be loaded: {error}") from error
        self.sample_rate_hz: int = self._lib.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, _BLOCK_MS, str(data).encode(), _INITIALIZE_DONT_EXIT
        )
        if self.sample_rate_hz <= 0:
            raise Unavailable(f"libespeak-ng finds no voices in {data}")
        self._identifiers: dict[str, bytes] = {}
        self.languages: tuple[str, ...] = ()
        self._list_voices()
        self._voice = b""
        self._emit: Emit | None = None
        self._raised: BaseException | None = None
        self._callback = _Callback(self._on_samples)  # the library keeps only the address
        self._lib.espeak_SetSynthCallback(self._callback)

    def resolve(self, voice: str, speed: float = 1.0, pitch: int = 50) -> Setting:
        """Return the setting for `voice`: a language (``en-gb``) or a voice's name, maybe with ``+variant`` (``+f3``).

        `speed` is a factor on the normal pace.

        Raises:
            Misconfigured: there is no such voice or variant.
        """
        name, plus, variant = voice.partition("+")
        identifier = self._identifiers.get(name.strip().lower())
        if identifier is None:
            raise Misconfigured("tts.voice", f"{voice!r} is not there; expected one of {', '.join(self.languages)}")
        if plus and variant not in self._variants:
            choice = ", ".join(f"{name}+{known}" for known in self._variants)
            raise Misconfigured("tts.voice", f"{voice!r} is not there; expected one of {choice}")
        pace = min(max(round(NORMAL_WPM * speed), _SLOWEST_WPM), _FASTEST_WPM)
        return Setting(identifier + (plus + variant).encode(), pace, pitch)

    def synthesise(self, text: str, setting: Setting, emit: Emit) -> None:
        """Speak `text`, handing 160 ms blocks to `emit` as they are made; return when all is said or `emit` ends it.

        Waits while another thread is speaking.

        Raises:
            Transient: the library refuses.
        """
        with self._turn:
            self._synthesise(text, setting, emit)

    def _synthesise(self, text: str, setting: Setting, emit: Emit) -> None:
        if setting.identifier != self._voice:
            if self._lib.espeak_SetVoiceByName(setting.identifier) != 0:
                raise Transient(f"espeak-ng cannot load the voice {setting.identifier.decode()}")
            self._voice = setting.identifier
        self._lib.espeak_SetParameter(_PARAMETER_RATE, setting.words_per_minute, 0)
        self._lib.espeak_SetParameter(_PARAMETER_PITCH, setting.pitch, 0)
        self._emit, self._raised = emit, None
        data = text.encode() + b"\0"
        # Neither SSML nor phoneme mnemonics are switched on: the text is words, whatever is in it.
        status = self._lib.espeak_Synth(data, len(data), 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None)
        self._emit = None
        if self._raised is not None:
            raise Transient(f"the audio was not taken: {self._raised}") from self._raised
        if status != 0:
            raise Transient(f"espeak-ng returned {status}")

    def _on_samples(self, samples: int | None, count: int, _events: int | None) -> int:
        if samples is None or count == 0 or self._emit is None:
            return _GO_ON
        try:
            return _GO_ON if self._emit(ctypes.string_at(samples, 2 * count)) else _ABORT
        except BaseException as error:  # noqa: BLE001 - an exception cannot pass through C; `synthesise` raises it
            self._raised = error
            return _ABORT

    def _list_voices(self) -> None:
        languages: set[str] = set()
        listed = self._lib.espeak_ListVoices(None)
        for index in range(1_000):
            if not listed[index]:
                break
            voice = listed[index].contents
            # One priority byte, then the voice's first language as text.
            language = ctypes.string_at(voice.languages + 1).decode()
            languages.add(language)
            for name in (language, voice.name.decode(), voice.identifier.decode()):
                self._identifiers.setdefault(name.lower(), voice.identifier)
        if not languages:
            raise Unavailable("libespeak-ng has no voices")
        self.languages = tuple(sorted(languages))


_loading: Final = Lock()


@cache
def _loaded() -> Espeak:
    return Espeak(Path(espeakng_loader.get_data_path()))


def _declare(lib: ctypes.CDLL) -> ctypes.CDLL:
    lib.espeak_Initialize.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int)
    lib.espeak_SetSynthCallback.argtypes = (_Callback,)
    lib.espeak_SetSynthCallback.restype = None
    lib.espeak_SetVoiceByName.argtypes = (ctypes.c_char_p,)
    lib.espeak_SetParameter.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int)
    lib.espeak_ListVoices.argtypes = (ctypes.c_void_p,)
    lib.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
    lib.espeak_Synth.argtypes = (
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_uint,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.c_void_p,
        ctypes.c_void_p,
    )
    return lib
