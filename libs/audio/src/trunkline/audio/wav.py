"""WAV files: PCM16 and μ-law read, PCM16 written.

The RIFF chunks are walked here because the standard library refuses everything but PCM. Formats by their codes:
1 = PCM, 7 = μ-law, 0xFFFE = extensible, whose sub-format begins with one of those codes (Microsoft, "Multiple channel
audio data and WAVE files"). Anything else is refused with the file's name and what was found in it.
"""

import struct
import wave
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trunkline.audio import g711
from trunkline.audio.errors import AudioError, BadWav
from trunkline.audio.resample import resample

_PCM: Final = 1
_MULAW: Final = 7
_EXTENSIBLE: Final = 0xFFFE
_FORMAT = struct.Struct("<HHIIHH")
_SUB_FORMAT_AT: Final = 24


class Wav(NamedTuple):
    """A recording. `samples` has shape ``(n, channels)``."""

    rate_hz: int
    samples: NDArray[np.int16]


def read(path: Path) -> Wav:
    """Return all channels of the file at `path`, at its own rate.

    Raises:
        BadWav: it cannot be opened, is no WAV file, or is neither PCM16 nor μ-law.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadWav(path, error.strerror or str(error)) from error
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise BadWav(path, f"no RIFF/WAVE file: it begins with {data[:12]!r}")
    chunks = _chunks(path, data)
    if len(chunks.get(b"fmt ", b"")) < _FORMAT.size:
        raise BadWav(path, "has no format chunk, or a short one")
    if b"data" not in chunks:
        raise BadWav(path, "has no data chunk")
    form = chunks[b"fmt "]
    code, channels, rate_hz, _, _, bits = _FORMAT.unpack_from(form)
    if code == _EXTENSIBLE and len(form) >= _SUB_FORMAT_AT + 2:
        (code,) = struct.unpack_from("<H", form, _SUB_FORMAT_AT)
    if channels == 0 or rate_hz == 0:
        raise BadWav(path, f"says {channels} channels at {rate_hz} Hz")
    pcm = _pcm16(path, code, bits, chunks[b"data"])
    whole_bytes = len(pcm) - len(pcm) % (2 * channels)
    return Wav(rate_hz, np.frombuffer(pcm[:whole_bytes], "<i2").reshape(-1, channels))


def read_mono(path: Path, rate_hz: int) -> NDArray[np.int16]:
    """Return the file at `path` as mono at `rate_hz`, shape ``(n,)``; channels are averaged.

    Raises:
        BadWav: as for `read`, or its rate cannot be converted.
    """
    wav = read(path)
    alone = wav.samples.shape[1] == 1
    mono = wav.samples[:, 0] if alone else np.rint(wav.samples.mean(axis=1)).astype(np.int16)
    try:
        return resample(mono, wav.rate_hz, rate_hz)
    except AudioError as error:
        raise BadWav(path, str(error)) from error


def write_mono(path: Path, samples: NDArray[np.int16], rate_hz: int) -> None:
    """Write `samples`, shape ``(n,)``, as PCM16."""
    _write(path, samples.reshape(-1, 1), rate_hz)


def write_stereo(path: Path, left: NDArray[np.int16], right: NDArray[np.int16], rate_hz: int) -> None:
    """Write two channels as PCM16; the shorter one is followed by silence."""
    both = np.zeros((max(left.size, right.size), 2), np.int16)
    both[: left.size, 0] = left
    both[: right.size, 1] = right
    _write(path, both, rate_hz)


def _chunks(path: Path, data: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + size]
        # A recorder that was killed, or one that writes to a pipe, leaves a data size larger than the file.
        if len(body) < size and name != b"data":
            raise BadWav(path, f"ends inside its {name!r} chunk")
        found.setdefault(name, body)
        at += 8 + size + size % 2
    return found


def _pcm16(path: Path, code: int, bits: int, data: bytes) -> bytes:
    match code, bits:
        case 1, 16:
            return data
        case 7, 8:
            return g711.mulaw_to_pcm16(data)
        case _:
            known = {_PCM: "PCM", 3: "floating point", 6: "A-law", _MULAW: "μ-law", 17: "ADPCM", 85: "MP3"}
            found = known.get(code, f"format {code}")
            raise BadWav(path, f"{bits}-bit {found}: only 16-bit PCM and 8-bit μ-law can be read")


def _write(path: Path, samples: NDArray[np.int16], rate_hz: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(samples.astype("<i2").tobytes())
