import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.audio.g711 import mulaw_to_pcm16
from trunkline.proto.errors import BadFrame
from trunkline.proto.frame import Codec, MediaFrame, pack_media
from trunkline.stt.endpointing import BLOCK_SAMPLES
from trunkline.stt.intake import FRAME_BYTES, Intake, Taken

pytestmark = pytest.mark.unit

T0_US = 1_700_000_000_000_000


def frame(seq, *, epoch=1, codec=Codec.PCM16, rate=8_000, payload=None):
    if payload is None:
        payload = (seq % 30_000).to_bytes(2, "little") * 160 if codec is Codec.PCM16 else bytes([seq % 256]) * 160
    return pack_media(MediaFrame(codec, rate, 0, epoch, seq, T0_US + seq * 20_000, payload))


def drain(intake):
    blocks = []
    while intake.ready:
        blocks.append(intake.block())
    return blocks


def test_eight_frames_make_five_blocks():
    intake = Intake(1)
    for seq in range(8):
        assert intake.take(frame(seq)) is Taken.KEPT
    blocks = drain(intake)
    assert [block.position for block in blocks] == [0, 256, 512, 768, 1_024]
    assert b"".join(block.pcm for block in blocks) == b"".join(frame(seq)[24:] for seq in range(8))


def test_mulaw_is_heard_as_well():
    intake = Intake(1)
    intake.take(frame(0, codec=Codec.MULAW))
    intake.take(frame(1, codec=Codec.MULAW))
    assert intake.block().pcm == mulaw_to_pcm16(b"\x00" * 160 + b"\x01" * 96)


@given(st.integers(0, 5_000))
def test_blocks_lie_on_the_same_grid_wherever_the_stream_is_taken_up(first):
    intake = Intake(1)
    for seq in range(first, first + 20):
        intake.take(frame(seq))
    assert all(block.position % BLOCK_SAMPLES == 0 for block in drain(intake))


def test_a_frame_of_another_epoch_is_fenced():
    intake = Intake(2)
    assert intake.take(frame(0, epoch=1)) is Taken.FENCED
    assert intake.take(frame(0, epoch=3)) is Taken.FENCED
    assert intake.take(frame(0, epoch=2)) is Taken.KEPT


def test_a_frame_that_comes_twice_is_heard_once():
    intake = Intake(1)
    assert [intake.take(frame(seq)) for seq in (0, 1, 1, 0, 2)] == [
        Taken.KEPT,
        Taken.KEPT,
        Taken.REPEATED,
        Taken.REPEATED,
        Taken.KEPT,
    ]
    assert intake.block().pcm == (frame(0)[24:] + frame(1)[24:])[:512]


def test_missing_frames_are_silence_and_counted():
    intake = Intake(1)
    intake.take(frame(0))
    intake.take(frame(3))
    assert intake.gaps == 2
    blocks = drain(intake)
    assert blocks[0].pcm == frame(0)[24:] + bytes(512 - FRAME_BYTES)
    assert intake.captured_at(2 * 160) == (T0_US + 2 * 20_000) / 1e6


def test_a_long_gap_begins_the_stream_anew():
    intake = Intake(1)
    intake.take(frame(0))
    assert intake.take(frame(1_000)) is Taken.BROKEN
    intake.take(frame(1_001))
    assert drain(intake)[0].position == 1_000 * 160


def test_audio_nobody_fetches_is_bounded():
    intake = Intake(1)
    taken = [intake.take(frame(seq)) for seq in range(2_000)]
    assert taken.count(Taken.BROKEN) == 3
    assert len(intake._pcm) <= 501 * FRAME_BYTES


@pytest.mark.parametrize(
    "data",
    [b"", b"nonsense", frame(0)[:30], frame(0, rate=16_000), frame(0, payload=b"\0" * 640), frame(0, payload=b"")],
)
def test_what_is_not_20_ms_at_8_khz_is_refused(data):
    with pytest.raises(BadFrame):
        Intake(1).take(data)
