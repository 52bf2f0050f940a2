"""Audio on the bus: a fixed little-endian header, then samples.

Two kinds share the first 24 bytes. A `MediaFrame` is 32 ms of the caller on its way to STT. An `AudioChunk` is 20 to
400 ms of the agent on its way to the caller; it names the generation and the utterance it belongs to, so that whoever
receives it can drop what an interrupt has made void.

========  ====  =====================================================================
offset    size  field
========  ====  =====================================================================
0         u8    version, 1
1         u8    codec: 1 = PCM16 little-endian, 2 = G.711 μ-law
2         u16   sample rate, Hz
4         u32   flags: bit 0 replay (MediaFrame), bit 1 last of its utterance (AudioChunk)
8         u32   epoch of the sender's assignment
12        u32   seq, from 0
16        u64   wall clock when its last sample came (MediaFrame) or at synthesis (AudioChunk), μs since 1970
24        u32   generation (AudioChunk only)
28        u32   utterance (AudioChunk only)
========  ====  =====================================================================
"""

import struct
from enum import IntEnum, IntFlag
from typing import Final, NamedTuple

from trunkline.proto.errors import BadFrame
from trunkline.proto.ids import Epoch, Generation, Seq, UtteranceId

VERSION: Final = 1
MAX_PAYLOAD_BYTES: Final = 65_536
FRAME_MS: Final = 32
"""How much of the caller a `MediaFrame` holds: what the voice detector judges at a time, not what a carrier sends."""
_ORIGIN = struct.Struct("<BBHII")
_MEDIA = struct.Struct("<BBHIIIQ")
_AUDIO = struct.Struct("<BBHIIIQII")
SEQ_AND_CAPTURED: Final = struct.Struct("<IQ")
"""What follows the origin of a media frame and, alone in its header, is another for each."""
ORIGIN_BYTES: Final = _ORIGIN.size
MEDIA_HEADER_BYTES: Final = _MEDIA.size
AUDIO_HEADER_BYTES: Final = _AUDIO.size


class Codec(IntEnum):
    """How samples are written."""

    PCM16 = 1
    MULAW = 2

    @property
    def bytes_per_sample(self) -> int:
        """Return 2 for PCM16, 1 for μ-law."""
        return 2 if self is Codec.PCM16 else 1


class Flag(IntFlag):
    """Bits of the flags field."""

    NONE = 0
    REPLAY = 1
    LAST = 2


class MediaFrame(NamedTuple):
    """Caller audio with its header, decoded."""

    codec: Codec
    sample_rate_hz: int
    flags: int
    epoch: Epoch
    seq: Seq
    captured_us: int
    payload: bytes


class AudioChunk(NamedTuple):
    """Agent audio with its header, decoded. An empty payload with `Flag.LAST` ends an utterance."""

    codec: Codec
    sample_rate_hz: int
    flags: int
    epoch: Epoch
    seq: Seq
    synthesised_us: int
    generation: Generation
    utterance: UtteranceId
    payload: bytes

    @property
    def last(self) -> bool:
        """Whether the utterance ends with this chunk."""
        return bool(self.flags & Flag.LAST)


_CODECS: Final = {1: Codec.PCM16, 2: Codec.MULAW}


def pack_origin(codec: Codec, sample_rate_hz: int, flags: int, epoch: Epoch) -> bytes:
    """Return how all frames of a call begin, for as long as none of these changes: 12 bytes.

    A media frame is its origin, its `SEQ_AND_CAPTURED`, and its samples.
    """
    return _ORIGIN.pack(VERSION, codec, sample_rate_hz, flags, epoch)


def pack_media(frame: MediaFrame) -> bytes:
    """Return the wire form of `frame`."""
    codec, rate, flags, epoch, seq, at, payload = frame
    return pack_origin(codec, rate, flags, epoch) + SEQ_AND_CAPTURED.pack(seq, at) + payload


def unpack_media(data: bytes) -> MediaFrame:
    """Parse a media frame.

    Raises:
        BadFrame: it is short, of another version, of an unknown codec, or its payload is no whole number of samples.
    """
    try:
        version, codec, rate, flags, epoch, seq, at = _MEDIA.unpack_from(data)
    except struct.error:
        raise BadFrame(f"{len(data)} bytes, shorter than the media header of {MEDIA_HEADER_BYTES}") from None
    payload = data[MEDIA_HEADER_BYTES:]
    return MediaFrame(_checked(version, codec, rate, payload), rate, flags, epoch, seq, at, payload)


def pack_audio(chunk: AudioChunk) -> bytes:
    """Return the wire form of `chunk`."""
    codec, rate, flags, epoch, seq, at, generation, utterance, payload = chunk
    return _AUDIO.pack(VERSION, codec, rate, flags, epoch, seq, at, generation, utterance) + payload


def unpack_audio(data: bytes) -> AudioChunk:
    """Parse an audio chunk.

    Raises:
        BadFrame: as for `unpack_media`.
    """
    try:
        version, codec, rate, flags, epoch, seq, at, generation, utterance = _AUDIO.unpack_from(data)
    except struct.error:
        raise BadFrame(f"{len(data)} bytes, shorter than the audio header of {AUDIO_HEADER_BYTES}") from None
    payload = data[AUDIO_HEADER_BYTES:]
    checked = _checked(version, codec, rate, payload)
    return AudioChunk(checked, rate, flags, epoch, seq, at, generation, utterance, payload)


def _checked(version: int, codec: int, rate: int, payload: bytes) -> Codec:
    if version != VERSION:
        raise BadFrame(f"version {version}, this process speaks {VERSION}")
    known = _CODECS.get(codec)
    if known is None:
        raise BadFrame(f"codec {codec} is unknown")
    if rate == 0:
        raise BadFrame("sample rate 0")
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise BadFrame(f"{len(payload)} bytes of audio, more than {MAX_PAYLOAD_BYTES}")
    if codec == Codec.PCM16 and len(payload) & 1:
        raise BadFrame(f"{len(payload)} bytes are no whole number of PCM16 samples")
    return known
