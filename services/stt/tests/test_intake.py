import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.audio.g711 import mulaw_to_pcm16
from trunkline.proto.errors import BadFrame
from trunkline.proto.frame import Codec, MediaFrame, pack_media
from trunkline.stt.intake import PCM_BYTES, Frame, Intake, Taken, pcm16_of

pytestmark = pytest.mark.unit

T0_US = 1_700_000_000_000_000


def frame(seq, *, epoch=1, codec=Codec.PCM16, rate=8_000, payload=None, flags=0):
    if payload is None:
        payload = (seq % 30_000).to_bytes(2, "little") * 256 if codec is Codec.PCM16 else bytes([seq % 256]) * 256
    return pack_media(MediaFrame(codec, rate, flags, epoch, seq, T0_US + seq * 32_000, payload))


def drain(intake):
    return list(iter(intake.frame, None))


def test_frames_are_given_out_one_by_one_each_where_its_number_puts_it():
    intake = Intake(1)
    for seq in range(8):
        assert intake.take(frame(seq)) is Taken.KEPT
    assert intake.ready
    assert drain(intake) == [Frame(seq, frame(seq)[24:]) for seq in range(8)]
    assert not intake.ready


def test_mulaw_is_heard_as_well():
    intake = Intake(1)
    intake.take(frame(7, codec=Codec.MULAW))
    coded = intake.frame()
    assert coded == Frame(7, b"\x07" * 256)
    assert pcm16_of([coded]) == [mulaw_to_pcm16(coded.audio)]


def test_missing_frames_are_silence_in_mulaw_too():
    intake = Intake(1)
    for seq in (0, 3, 4):
        intake.take(frame(seq, codec=Codec.MULAW))
    heard = pcm16_of(drain(intake))
    assert heard[1:3] == [bytes(512)] * 2
    assert heard[3] == mulaw_to_pcm16(b"\x03" * 256)


def test_frames_of_calls_with_either_codec_are_decoded_together():
    coded, plain = Frame(0, bytes(range(256))), Frame(1, bytes(range(256)) * 2)
    assert pcm16_of([coded, plain, coded]) == [mulaw_to_pcm16(coded.audio), plain.audio, mulaw_to_pcm16(coded.audio)]
    assert pcm16_of([plain]) == [plain.audio]
    assert len(plain.audio) == PCM_BYTES


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
        assert (Taken.KEPT if short.follow(data) else short.take(data)) is expected
        for seen in ("gaps", "live_us", "newest", "ready", "_captured_us"):
            assert getattr(short, seen) == getattr(long, seen)
    assert drain(short) == drain(long)


def test_the_next_frame_goes_the_short_way():
    intake = Intake(1)
    assert not intake.follow(frame(1))
    intake.take(frame(1))
    assert [intake.follow(frame(seq)) for seq in range(2, 20)] == [True] * 18
    assert not intake.follow(frame(21))
    assert not intake.follow(frame(20, flags=1))
    assert not intake.follow(frame(20, epoch=2))
    assert intake.follow(frame(20))


@given(st.integers(0, 60))
def test_whoever_takes_up_the_stream_is_given_the_same_frames_at_the_same_places(first):
    whole, later = Intake(1), Intake(1)
    for seq in range(80):
        whole.take(frame(seq))
    for seq in range(first, 80):
        later.take(frame(seq))
    assert drain(later) == drain(whole)[first:]


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
    assert [heard.audio for heard in drain(intake)] == [frame(seq)[24:] for seq in range(3)]


def test_missing_frames_are_silence_and_counted():
    intake = Intake(1)
    intake.take(frame(0))
    intake.take(frame(3))
    assert intake.gaps == 2
    assert [heard.audio for heard in drain(intake)] == [frame(0)[24:], bytes(512), bytes(512), frame(3)[24:]]
    assert intake.captured_at(2) == (T0_US + 2 * 32_000) / 1e6


def test_a_frame_was_captured_when_the_edge_says_whenever_it_is_asked_for():
    intake = Intake(1)
    for seq in range(700):
        intake.take(frame(seq))
        drain(intake)
    assert [intake.captured_at(seq) for seq in (75, 698, 699)] == [
        (T0_US + seq * 32_000) / 1e6 for seq in (75, 698, 699)
    ]


def test_a_long_gap_begins_the_stream_anew():
    intake = Intake(1)
    intake.take(frame(0))
    assert intake.take(frame(1_000)) is Taken.BROKEN
    intake.take(frame(1_001))
    assert [heard.seq for heard in drain(intake)] == [1_000, 1_001]


@pytest.mark.parametrize("short", [True, False])
def test_audio_nobody_fetches_is_bounded(short):
    intake, taken, longest = Intake(1), [], 0
    for seq in range(2_000):
        taken.append(Taken.KEPT if short and intake.follow(frame(seq)) else intake.take(frame(seq)))
        longest = max(longest, len(intake._frames))
    assert taken.count(Taken.BROKEN) == 6
    assert longest == 321


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        frame(0)[:30],
        frame(0, rate=16_000),
        frame(0, payload=b"\0" * 320),
        frame(0, payload=b"\0" * 1_024),
        frame(0, codec=Codec.MULAW, payload=b"\0" * 512),
        frame(0, payload=b""),
    ],
)
def test_what_is_not_32_ms_at_8_khz_is_refused(data):
    with pytest.raises(BadFrame):
        Intake(1).take(data)
