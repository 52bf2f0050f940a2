"""Twilio's wire language, message by message, without a socket."""

import base64
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.edge.carrier import Digit, MarkReturned, Rejected, Started, Stopped
from trunkline.edge.errors import NotStarted
from trunkline.edge.twilio import MAX_BAD, State, TwilioStream
from trunkline.proto.frame import Codec
from trunkline.proto.ids import MarkName

pytestmark = pytest.mark.unit

SID = "MZ" + "0" * 32
CALL = "CA" + "1" * 32
CONNECTED = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
START = {
    "event": "start",
    "sequenceNumber": "1",
    "streamSid": SID,
    "start": {
        "accountSid": "AC" + "2" * 32,
        "streamSid": SID,
        "callSid": CALL,
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"agent": "restaurant", "other": "1"},
    },
}
STOP = {"event": "stop", "sequenceNumber": "9", "streamSid": SID, "stop": {"accountSid": "AC", "callSid": CALL}}


def media(audio=b"\xff" * 160, **changes):
    body = {"track": "inbound", "chunk": "1", "timestamp": "52", "payload": base64.b64encode(audio).decode()}
    body.update(changes.pop("media", {}))
    return {"event": "media", "sequenceNumber": "2", "streamSid": SID, "media": body} | changes


def dtmf(digit="5", sid=SID):
    return {
        "event": "dtmf",
        "streamSid": sid,
        "sequenceNumber": "5",
        "dtmf": {"track": "inbound_track", "digit": digit},
    }


def mark(name="1.2", sid=SID):
    return {"event": "mark", "sequenceNumber": "4", "streamSid": sid, "mark": {"name": name}}


def live():
    stream = TwilioStream()
    assert stream.receive(json.dumps(CONNECTED)) is None
    assert isinstance(stream.receive(json.dumps(START)), Started)
    return stream


def say(stream, message):
    return stream.receive(message if isinstance(message, str | bytes) else json.dumps(message))


def start_with(**changes):
    return START | {"start": START["start"] | changes}


class TestAGoodStream:
    def test_start_tells_who_calls_and_which_agent_is_wanted(self):
        stream = TwilioStream()
        assert stream.waiting_for == "connected"
        assert say(stream, CONNECTED) is None
        assert stream.waiting_for == "start"
        assert say(stream, START) == Started(
            carrier_call=CALL,
            stream=SID,
            account="AC" + "2" * 32,
            agent="restaurant",
            parameters={"agent": "restaurant", "other": "1"},
            codec=Codec.MULAW,
            sample_rate_hz=8000,
        )
        assert stream.waiting_for is None

    def test_start_opens_the_stream_even_without_connected(self):
        assert isinstance(say(TwilioStream(), START), Started)

    def test_start_without_custom_parameters_names_no_agent(self):
        bare = {name: value for name, value in START["start"].items() if name != "customParameters"}
        assert say(TwilioStream(), START | {"start": bare}).agent is None

    @pytest.mark.parametrize("size", [1, 160, 320, 7_999])
    def test_media_of_any_length_is_audio(self, size):
        assert say(live(), media(bytes(size))) == bytes(size)

    def test_media_without_a_track_is_taken(self):
        body = {"timestamp": "0", "payload": "/w=="}
        assert say(live(), {"event": "media", "streamSid": SID, "media": body}) == b"\xff"

    @pytest.mark.parametrize("digit", list("0123456789*#ABCD"))
    def test_every_key_is_a_digit(self, digit):
        assert say(live(), dtmf(digit)) == Digit(digit)

    def test_a_mark_comes_back_by_its_name(self):
        assert say(live(), mark("3.14")) == MarkReturned(MarkName("3.14"))

    def test_stop_ends_it_and_what_follows_is_passed_over(self):
        stream = live()
        assert say(stream, STOP) == Stopped()
        assert say(stream, media()) is None
        assert say(stream, "rubbish") is None

    def test_stop_before_start_ends_it_too(self):
        assert say(TwilioStream(), STOP) == Stopped()


class TestWhatWeSend:
    def test_media_mark_and_clear_are_what_twilio_expects(self):
        stream = live()
        audio = bytes(range(256))
        payload = base64.b64encode(audio).decode()
        assert json.loads(stream.media(audio)) == {"event": "media", "streamSid": SID, "media": {"payload": payload}}
        assert json.loads(stream.mark(MarkName("1.2"))) == {"event": "mark", "streamSid": SID, "mark": {"name": "1.2"}}
        assert json.loads(stream.clear()) == {"event": "clear", "streamSid": SID}

    def test_a_stream_sid_with_quotes_cannot_break_out(self):
        stream = TwilioStream()
        odd = 'MZ","event":"clear'
        say(stream, start_with(streamSid=odd) | {"streamSid": odd})
        assert json.loads(stream.media(b"\x00"))["streamSid"] == odd
        assert json.loads(stream.mark(MarkName('a"b')))["mark"]["name"] == 'a"b'

    @pytest.mark.parametrize("ask", [lambda s: s.media(b""), lambda s: s.mark(MarkName("a")), lambda s: s.clear()])
    def test_nothing_can_be_sent_before_the_start(self, ask):
        with pytest.raises(NotStarted):
            ask(TwilioStream())


class TestHarmlessNonsense:
    @pytest.mark.parametrize(
        ("message", "reason"),
        [
            ("{", "malformed-json"),
            ("", "malformed-json"),
            ('{"event":"media","x":' + "[" * 60_000, "malformed-json"),
            ('"\ud800"', "malformed-json"),
            ("[]", "unknown-event"),
            ("{}", "unknown-event"),
            ({"event": 7}, "unknown-event"),
            ({"event": "brand-new", "streamSid": SID}, "unknown-event"),
            (media(streamSid="MZother"), "wrong-stream-sid"),
            (dtmf(sid="MZother"), "wrong-stream-sid"),
            (mark(sid="MZother"), "wrong-stream-sid"),
            (STOP | {"streamSid": "MZother"}, "wrong-stream-sid"),
            ({"event": "media", "streamSid": SID}, "bad-field"),
            ({"event": "media", "media": {}}, "bad-field"),
            (media(media={"payload": None}), "bad-field"),
            (media(media={"payload": "*not base64*"}), "bad-base64"),
            (media(media={"payload": "AAA"}), "bad-base64"),
            (media(media={"payload": "AA AA="}), "bad-base64"),
            (media(media={"payload": ""}), "empty-media"),
            (media(media={"track": "outbound"}), "other-track"),
            (dtmf("x"), "bad-digit"),
            (dtmf("12"), "bad-digit"),
            (CONNECTED, "out-of-order"),
            (START, "out-of-order"),
        ],
    )
    def test_is_ignored_with_its_reason_and_the_stream_goes_on(self, message, reason):
        stream = live()
        rejected = say(stream, message)
        assert (rejected.reason, rejected.close_code) == (reason, None)
        assert say(stream, media()) == b"\xff" * 160

    @pytest.mark.parametrize("message", [dtmf(), mark()])
    def test_dtmf_and_marks_before_the_start_are_ignored(self, message):
        assert say(TwilioStream(), message) == Rejected(
            reason="out-of-order", detail="dtmf or mark came before start", close_code=None
        )

    def test_a_few_bad_messages_are_borne_and_one_more_is_not(self):
        stream = live()
        assert all(say(stream, "{").close_code is None for _ in range(MAX_BAD))
        rejected = say(stream, "{")
        assert (rejected.reason, rejected.close_code) == ("too-many-bad-messages", 1008)
        assert stream.state is State.OVER


class TestFatalNonsense:
    @pytest.mark.parametrize(
        ("message", "reason", "code"),
        [
            (b"\x00\x01", "binary-message", 1003),
            ("{", "malformed-json", 1007),
            (media(), "media-before-start", 1008),
            (media(media={"payload": "*"}), "media-before-start", 1008),
            ({"event": "start", "streamSid": SID}, "bad-start", 1007),
            (start_with(callSid=""), "bad-start", 1007),
            (start_with(callSid=None), "bad-start", 1007),
            (START | {"streamSid": "MZother"}, "bad-start", 1007),
            (start_with(customParameters={"agent": 7}), "bad-start", 1007),
            (
                start_with(mediaFormat={"encoding": "audio/l16", "sampleRate": 8000, "channels": 1}),
                "media-format",
                1003,
            ),
            (
                start_with(mediaFormat={"encoding": "audio/x-mulaw", "sampleRate": 16000, "channels": 1}),
                "media-format",
                1003,
            ),
        ],
    )
    def test_before_the_stream_is_live_closes_it(self, message, reason, code):
        stream = TwilioStream()
        rejected = say(stream, message)
        assert (rejected.reason, rejected.close_code) == (reason, code)
        assert stream.state is State.OVER

    def test_a_binary_message_closes_a_live_stream(self):
        assert say(live(), b"\xff" * 160).close_code == 1003


class TestAnything:
    @given(
        st.one_of(st.text(), st.binary(), st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
    )
    def test_never_raises(self, message):
        for stream in (TwilioStream(), live()):
            stream.receive(message)

    @given(st.lists(st.sampled_from([CONNECTED, START, media(), dtmf(), mark(), STOP, "{"]), max_size=12))
    def test_only_a_started_stream_has_audio_and_nothing_follows_its_end(self, messages):
        stream = TwilioStream()
        started = False
        for message in messages:
            over = stream.state is State.OVER
            said = say(stream, message)
            started = started or isinstance(said, Started)
            assert not over or said is None
            assert started or not isinstance(said, bytes | Digit | MarkReturned)

    def test_rejections_carry_nothing_the_caller_said(self):
        payload = base64.b64encode(b"secret").decode()[:-1] + "*"
        assert payload not in msgspec.json.encode(say(live(), media(media={"payload": payload}))).decode()
