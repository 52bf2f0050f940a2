import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.audio.g711 import mulaw_to_pcm16
from trunkline.proto.errors import BadFrame
from trunkline.proto.frame import Codec, MediaFrame, pack_media
from trunkline.stt.endpointing import BLOCK_SAMPLES
from trunkline.stt.intake import BLOCK_BYTES, FRAME_BYTES, Block, Intake, Taken, pcm16_of

pytestmark = pytest.mark.unit

T0_US = 1_700_000_000_000_000


def frame(seq, *, epoch=1, codec=Codec.PCM16, rate=8_000, payload=None, flags=0):
    if payload is None:
        payload = (seq % 30_000).to_bytes(2, "little") * 160 if codec is Codec.PCM16 else bytes([seq % 256]) * 160
    return pack_media(MediaFrame(codec, rate, flags, epoch, seq, T0_US + seq * 20_000, payload))


def drain(intake):
    return list(iter(intake.block, None))


def test_eight_frames_make_five_blocks():
    intake = Intake(1)
    for seq in range(8):
        assert intake.take(frame(seq)) is Taken.KEPT
    blocks = drain(intake)
    assert [block.position for block in blocks] == [0, 256, 512, 768, 1_024]
    assert b"".join(block.audio for block in blocks) == b"".join(frame(seq)[24:] for seq in range(8))


def test_mulaw_is_heard_as_well():
    intake = Intake(1)
    intake.take(frame(0, codec=Codec.MULAW))
    intake.take(frame(1, codec=Codec.MULAW))
    block = intake.block()
    assert block.audio == b"\x00" * 160 + b"\x01" * 96
    assert pcm16_of([block]) == [mulaw_to_pcm16(block.audio)]


def test_missing_frames_are_silence_in_mulaw_too():
    intake = Intake(1)
    for seq in (0, 3, 4):
        intake.take(frame(seq, codec=Codec.MULAW))
    heard = b"".join(pcm16_of(drain(intake)))
    assert heard[320:960] == bytes(640)
    assert heard[960:1_024] == mulaw_to_pcm16(b"\x03" * 32)


def test_blocks_of_calls_with_either_codec_are_decoded_together():
    coded, plain = Block(0, bytes(range(256))), Block(256, bytes(range(256)) * 2)
    assert pcm16_of([coded, plain, coded]) == [mulaw_to_pcm16(coded.audio), plain.audio, mulaw_to_pcm16(coded.audio)]
    assert pcm16_of([plain]) == [plain.audio]
    assert len(plain.audio) == BLOCK_BYTES


def test_a_call_keeps_its_codec():
    intake = Intake(1)
    intake.take(frame(0))
    with pytest.raises(BadFrame, match=r"MULAW.*began in PCM16"):
        intake.take(frame(1, codec=Codec.MULAW))
    assert intake.take(frame(1)) is Taken.KEPT


_A_FRAME = st.builds(
    frame,
    st.one_of(st.integers(0, 12), st.integers(0, 1_000)),
    epoch=st.sampled_from([1, 1, 1, 2]),
    codec=st.just(Codec.MULAW),
    flags=st.sampled_from([0, 0, 1]),
)


@given(st.one_of(st.lists(_A_FRAME), st.integers(0, 9).map(lambda n: [frame(n + seq) for seq in range(20)])))
def test_the_short_way_of_the_next_frame_leads_where_the_long_one_does(frames):
    short, long = Intake(1), Intake(1)
    for data in frames:
        expected = long.take(data)
        if (ready := short.follow(data)) is None:
            assert short.take(data) is expected
        else:
            assert (expected, ready) == (Taken.KEPT, long.ready)
        for seen in ("gaps", "live_us", "newest", "ready", "_captured_us"):
            assert getattr(short, seen) == getattr(long, seen)
    assert drain(short) == drain(long)


def test_the_next_frame_goes_the_short_way():
    intake = Intake(1)
    assert intake.follow(frame(1)) is None
    for seq in (1, 2):  # before the first block there is something to skip
        intake.take(frame(seq))
    assert [intake.follow(frame(seq)) for seq in range(3, 20)] == [True] * 17
    assert intake.follow(frame(21)) is None
    assert intake.follow(frame(20, flags=1)) is None
    assert intake.follow(frame(20, epoch=2)) is None
    assert intake.follow(frame(20))


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
    assert intake.block().audio == (frame(0)[24:] + frame(1)[24:])[:512]


def test_missing_frames_are_silence_and_counted():
    intake = Intake(1)
    intake.take(frame(0))
    intake.take(frame(3))
    assert intake.gaps == 2
    blocks = drain(intake)
    assert blocks[0].audio == frame(0)[24:] + bytes(512 - FRAME_BYTES)
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
    assert len(intake._audio) <= 501 * FRAME_BYTES


@pytest.mark.parametrize(
    "data",
    [b"", b"nonsense", frame(0)[:30], frame(0, rate=16_000), frame(0, payload=b"\0" * 640), frame(0, payload=b"")],
)
def test_what_is_not_20_ms_at_8_khz_is_refused(data):
    with pytest.raises(BadFrame):
        Intake(1).take(data)
