import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.testing.twilio import FRAME_BYTES, SILENCE, Line, LineEvent, StreamIds

pytestmark = pytest.mark.unit

IDS = StreamIds("AC" + 32 * "0", "CA" + 32 * "0", "MZ" + 32 * "0")
GOLDEN = json.loads((Path(__file__).parent / "golden" / "observed_session.json").read_text())


def a_line(**options) -> Line:
    line = Line(IDS, **options)
    line.open()
    return line


def media(audio: bytes, sid: str = IDS.stream_sid) -> str:
    return json.dumps({"event": "media", "streamSid": sid, "media": {"payload": base64.b64encode(audio).decode()}})


def mark(name: str) -> str:
    return json.dumps({"event": "mark", "streamSid": IDS.stream_sid, "mark": {"name": name}})


CLEAR = json.dumps({"event": "clear", "streamSid": IDS.stream_sid})


def advance(line: Line, frames: int = 1) -> list[dict]:
    return [json.loads(message) for _ in range(frames) for message in line.advance(SILENCE)]


def marks(messages: list[dict]) -> list[str]:
    return [message["mark"]["name"] for message in messages if message["event"] == "mark"]


def codes(line: Line) -> list[str]:
    return [warned.code for warned in line.warnings]


def test_a_session_is_numbered_like_the_recorded_one() -> None:
    line = Line(IDS, {"agent": "sophie"}, first_timestamp_ms=int(GOLDEN["first_media"]["timestamp"]))
    connected, start = (json.loads(message) for message in line.open())
    assert connected == GOLDEN["connected"]
    assert start == {
        "event": "start",
        "sequenceNumber": GOLDEN["start_sequence_number"],
        "streamSid": IDS.stream_sid,
        "start": {
            "accountSid": IDS.account_sid,
            "streamSid": IDS.stream_sid,
            "callSid": IDS.call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"agent": "sophie"},
        },
    }

    sent = []
    for reply in range(len(GOLDEN["marks_returned"]) + 1):
        sent += advance(line, GOLDEN["media_per_reply"])
        line.receive(media(bytes(GOLDEN["reply_bytes"])))
        line.receive(mark(str(reply)))

    first = sent[0]
    assert first["sequenceNumber"] == GOLDEN["first_media"]["sequenceNumber"]
    assert first["media"]["track"] == "inbound"
    assert first["media"]["chunk"] == GOLDEN["first_media"]["chunk"]
    assert first["media"]["timestamp"] == GOLDEN["first_media"]["timestamp"]
    assert len(base64.b64decode(first["media"]["payload"])) == GOLDEN["first_media"]["payload_bytes"]
    sent += advance(line)
    returned = [
        {"sequenceNumber": message["sequenceNumber"], "name": message["mark"]["name"]}
        for message in sent
        if message["event"] == "mark"
    ]
    assert returned == GOLDEN["marks_returned"]


def test_every_message_after_connected_takes_the_next_number() -> None:
    line = a_line()
    messages = advance(line, 2)
    messages += [json.loads(message) for message in line.receive(mark("m"))]
    messages += [json.loads(line.press("5")), json.loads(line.stop())]

    assert [message["event"] for message in messages] == ["media", "media", "mark", "dtmf", "stop"]
    assert [message["sequenceNumber"] for message in messages] == ["2", "3", "4", "5", "6"]


def test_timestamps_advance_by_a_frame_and_do_not_begin_at_zero() -> None:
    messages = advance(a_line(first_timestamp_ms=88), 101)

    assert messages[0]["media"]["timestamp"] == "88"
    assert (messages[-1]["media"]["chunk"], messages[-1]["media"]["timestamp"]) == ("101", "2088")


def test_a_key_carries_its_digit_and_the_track_of_keys() -> None:
    assert json.loads(a_line().press("#")) == {
        "event": "dtmf",
        "sequenceNumber": "2",
        "streamSid": IDS.stream_sid,
        "dtmf": {"track": "inbound_track", "digit": "#"},
    }


def test_stop_names_account_and_call() -> None:
    stop = json.loads(a_line().stop())

    assert stop["stop"] == {"accountSid": IDS.account_sid, "callSid": IDS.call_sid}


def test_what_the_caller_hears_is_recorded_on_the_sample() -> None:
    line = a_line()
    advance(line, 2)
    line.receive(media(b"\x01" * 100))
    line.receive(media(b"\x02" * 100))
    advance(line, 4)

    heard = bytes(line.right)
    assert heard[: 2 * FRAME_BYTES] == 2 * SILENCE
    # It came while the second frame was over and the third not begun; it plays from the next boundary on.
    begin = 3 * FRAME_BYTES
    assert heard[begin : begin + 200] == b"\x01" * 100 + b"\x02" * 100
    assert heard[begin + 200 :] == b"\xff" * (len(heard) - begin - 200)


def test_both_recordings_are_always_equally_long() -> None:
    line = a_line()
    line.receive(media(bytes(1000)))
    for _ in range(9):
        advance(line)
        assert len(line.left) == len(line.right)


def test_clear_silences_the_caller_at_the_next_frame_and_returns_the_marks_at_once() -> None:
    line = a_line()
    line.receive(media(b"\x01" * 8000))
    line.receive(mark("one"))
    advance(line, 3)
    returned = [json.loads(message) for message in line.receive(CLEAR)]
    advance(line, 3)

    assert marks(returned) == ["one"]
    assert bytes(line.right).count(b"\x01") == 3 * FRAME_BYTES
    assert not line.playing


@pytest.mark.parametrize(
    "message",
    [
        "{",
        "[]",
        '{"event":"media"}',
        '{"event":"dance","streamSid":"<sid>"}',
        '{"event":"clear","stream_sid":"<sid>"}',
        '{"event":"clear","streamSid":"<sid>","why":"extra"}',
        '{"event":"mark","streamSid":"<sid>","mark":{"name":7}}',
        '{"event":"media","streamSid":"<sid>","media":{"payload":"not base64!"}}',
        media(b"\x01", sid="MZ" + 32 * "9"),
    ],
)
def test_what_twilio_would_not_understand_is_warned_of_and_ignored(message: str) -> None:
    line = a_line()

    assert line.receive(message.replace("<sid>", IDS.stream_sid)) == []
    assert codes(line) == ["31951"]
    assert not line.playing


def test_binary_frames_have_a_warning_of_their_own() -> None:
    line = a_line()
    line.receive(b"\x00" * 160)

    assert codes(line) == ["31950"]


def test_a_frame_of_another_length_is_the_callers_fault() -> None:
    with pytest.raises(ValueError, match="160 bytes"):
        a_line().advance(b"\xff" * 159)


def test_everything_but_media_is_told() -> None:
    told: list[LineEvent] = []
    line = Line(IDS, observe=told.append)
    line.open()
    line.receive(media(bytes(1600)))
    line.receive(mark("a"))
    advance(line, 5)
    line.receive(CLEAR)
    line.stop()

    assert [(event.what, event.text) for event in told[2:]] == [
        ("mark-received", "a"),
        ("clear", "100 ms dropped"),
        ("mark-returned", "a"),
        ("stop", ""),
    ]
    assert told[3].at_s == pytest.approx(0.1)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("media"), st.integers(0, 700)),
            st.tuples(st.just("mark"), st.integers(0, 99)),
            st.tuples(st.just("clear"), st.just(0)),
            st.tuples(st.just("advance"), st.integers(1, 6)),
        ),
        max_size=60,
    )
)
def test_every_mark_comes_back_exactly_once_and_in_order_whatever_happens(actions) -> None:
    line = a_line()
    sent, returned, numbers = [], [], []

    def take(messages: list[dict]) -> None:
        numbers.extend(int(message["sequenceNumber"]) for message in messages)
        returned.extend(marks(messages))

    for i, (action, value) in enumerate(actions):
        match action:
            case "media":
                line.receive(media(bytes(value)))
            case "mark":
                sent.append(f"{i}.{value}")
                take([json.loads(message) for message in line.receive(mark(sent[-1]))])
            case "clear":
                take([json.loads(message) for message in line.receive(CLEAR)])
            case "advance":
                take(advance(line, value))
    take([json.loads(message) for message in line.receive(CLEAR)])
    take(advance(line))

    assert returned == sent
    assert numbers == list(range(2, 2 + len(numbers)))
    assert line.warnings == []
