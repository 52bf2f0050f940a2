"""Files in and out, and what is said about bad ones."""

import struct

import numpy as np
import pytest

from trunkline.audio import g711, wav
from trunkline.audio.errors import BadWav

pytestmark = pytest.mark.unit

SAMPLES = np.array([0, 100, -100, 32_767, -32_768], np.int16)


def riff(*chunks):
    body = b"".join(name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def form(code, channels=1, rate_hz=8_000, bits=16):
    frame_bytes = channels * bits // 8
    return struct.pack("<HHIIHH", code, channels, rate_hz, rate_hz * frame_bytes, frame_bytes, bits)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "call.wav"


def test_mono_is_read_as_written(path):
    wav.write_mono(path, SAMPLES, 8_000)
    assert wav.read(path).rate_hz == 8_000
    assert np.array_equal(wav.read_mono(path, 8_000), SAMPLES)


def test_stereo_keeps_its_sides_and_fills_the_shorter(path):
    wav.write_stereo(path, SAMPLES, SAMPLES[:2], 8_000)
    both = wav.read(path).samples
    assert np.array_equal(both[:, 0], SAMPLES)
    assert both[:, 1].tolist() == [0, 100, 0, 0, 0]


def test_stereo_read_as_mono_is_averaged(path):
    wav.write_stereo(path, np.array([100], np.int16), np.array([300], np.int16), 8_000)
    assert wav.read_mono(path, 8_000).tolist() == [200]


def test_another_rate_is_converted(path):
    wav.write_mono(path, np.zeros(16_000, np.int16), 16_000)
    assert wav.read_mono(path, 8_000).size == 8_000


def test_mulaw_is_decoded_past_chunks_that_do_not_matter(path):
    codes = bytes(range(255))
    path.write_bytes(riff((b"LIST", b"odd"), (b"fmt ", form(7, bits=8)), (b"fact", b"\0" * 4), (b"data", codes)))
    assert wav.read_mono(path, 8_000).tobytes() == g711.mulaw_to_pcm16(codes)


def test_extensible_pcm_is_pcm(path):
    extension = struct.pack("<HHI", 22, 16, 4) + struct.pack("<H", 1) + bytes(14)
    path.write_bytes(riff((b"fmt ", form(0xFFFE) + extension), (b"data", SAMPLES.tobytes())))
    assert np.array_equal(wav.read_mono(path, 8_000), SAMPLES)


def test_a_recording_cut_off_mid_sample_gives_what_it_has(path):
    whole = riff((b"fmt ", form(1)), (b"data", SAMPLES.tobytes()))
    path.write_bytes(whole[:-3])
    assert np.array_equal(wav.read_mono(path, 8_000), SAMPLES[:3])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"ID3\x04 not a wav", "no RIFF/WAVE file"),
        (b"", "no RIFF/WAVE file"),
        (riff((b"data", b"ab")), "has no format chunk"),
        (riff((b"fmt ", form(1)[:10]), (b"data", b"ab")), "has no format chunk, or a short one"),
        (riff((b"fmt ", form(1))), "has no data chunk"),
        (riff((b"fmt ", form(1)))[:-5], "ends inside its b'fmt ' chunk"),
        (riff((b"fmt ", form(3, bits=32)), (b"data", b"abcd")), "32-bit floating point: only 16-bit PCM"),
        (riff((b"fmt ", form(1, bits=24)), (b"data", b"abc")), "24-bit PCM: only"),
        (riff((b"fmt ", form(99)), (b"data", b"ab")), "16-bit format 99: only"),
        (riff((b"fmt ", form(1, channels=0)), (b"data", b"ab")), "0 channels"),
        (riff((b"fmt ", form(1, rate_hz=1)), (b"data", b"ab")), "sample rate 1 Hz"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(path, content, reason):
    path.write_bytes(content)
    with pytest.raises(BadWav, match=reason) as caught:
        wav.read_mono(path, 8_000)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(path):
    with pytest.raises(BadWav, match=r"call\.wav: No such file"):
        wav.read(path)
