"""What becomes of a call when its media stream has ended: TwiML goes on, and so does the caller."""

import asyncio
import base64
import json
import math
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
from twilio.request_validator import RequestValidator

from trunkline.testing.errors import CallFailed
from trunkline.testing.patience import until
from trunkline.testing.ports import free_ports
from trunkline.testing.tcp_proxy import run_proxy
from trunkline.testing.twilio import (
    FRAME_BYTES,
    SILENCE,
    Delays,
    Dial,
    Heard,
    LineEvent,
    Recording,
    Uttered,
    new_call_sid,
    place,
)
from trunkline.testing.twilio.application import Application, Asked, application

pytestmark = pytest.mark.integration

QUICK = Delays(ask_s=(0.0, 0.0))
TONE = b"\x07"


class Talker:
    """Says a numbered frame at every tick, and hangs up after so many, counted from the last of the events `after`."""

    def __init__(self, frames: float = math.inf, *after: str) -> None:
        self.frames = frames
        self.after = after
        self.heard: list[Heard] = []
        self.told: list[LineEvent] = []

    def tick(self, heard: Heard) -> Uttered:
        self.heard.append(heard)
        if sum(event.what in self.after for event in self.told) >= len(self.after):
            self.frames -= 1
        return Uttered(frame_of(len(self.heard)), hang_up=self.frames <= 0)


def frame_of(number: int) -> bytes:
    return bytes(divmod(number, 100)) * (FRAME_BYTES // 2)


def number_in(frame: bytes) -> int:
    return frame[0] * 100 + frame[1]


class Streams:
    """Lives through one stream after the other; each ends after so many media messages, the last never."""

    def __init__(self, *ends_after: int, abort: bool = False) -> None:
        self.ends_after = ends_after
        self.abort = abort
        self.messages: list[list[dict]] = []

    async def __call__(self, socket) -> None:
        number = len(self.messages)
        seen: list[dict] = []
        self.messages.append(seen)
        async for text in socket:
            message = json.loads(text)
            seen.append(message)
            media = sum(message["event"] == "media" for message in seen)
            if message["event"] == "start":
                payload = base64.b64encode(TONE * 80_000).decode()
                sid = message["streamSid"]
                await socket.send(json.dumps({"event": "media", "streamSid": sid, "media": {"payload": payload}}))
            if number < len(self.ends_after) and media >= self.ends_after[number]:
                if self.abort:
                    socket.transport.abort()
                return


def connect(stream_url: str, then: str = "", attributes: str = "") -> str:
    return f'<Response><Connect {attributes}><Stream url="{stream_url}"/></Connect>{then}</Response>'


def ask_over(_asked: Asked, stream_url: str) -> str:
    return connect(stream_url, "<Redirect>/over</Redirect>")


def call(
    streams: Streams, talker: Talker, answer, *, token: str | None = None, delays: Delays = QUICK
) -> tuple[Recording, Application, list[LineEvent]]:
    async def run() -> tuple[Recording, Application, list[LineEvent]]:
        async with application(streams, answer=answer) as app:
            dial = Dial(voice_url=f"{app.url}/hook", call_sid=new_call_sid(), token=token, delays=delays)
            return await place(dial, talker, talker.told.append), app, talker.told

    return asyncio.run(run())


def test_a_redirect_after_a_stream_leads_to_the_next_one_and_the_caller_lives_on() -> None:
    def answer(_asked: Asked, stream_url: str) -> str:
        return connect(stream_url, '<Redirect method="POST">/over?x=1</Redirect>')

    streams, talker = Streams(10, 10), Talker(10, *["start"] * 3)
    recording, app, told = call(streams, talker, answer, token="12345", delays=Delays(ask_s=(0.1, 0.1)))

    assert (recording.streams, recording.ended_by, recording.warnings) == (3, "caller", ())
    starts = [messages[1] for messages in streams.messages]
    assert len({start["streamSid"] for start in starts}) == 3
    assert recording.ids.stream_sid == starts[-1]["streamSid"]
    assert {start["start"]["callSid"] for start in starts} == {recording.ids.call_sid}
    for messages in streams.messages:
        assert [message["event"] for message in messages[:3]] == ["connected", "start", "media"]
        assert messages[1]["sequenceNumber"] == "1"
        assert messages[2]["media"]["chunk"] == "1"
        assert int(messages[2]["media"]["timestamp"]) <= 160

    hook, *later = app.asked
    assert hook.form["CallStatus"] == "ringing"
    for asked in later:
        assert (asked.method, urlsplit(asked.url).path, urlsplit(asked.url).query) == ("POST", "/over", "x=1")
        assert asked.form == {**hook.form, "CallStatus": "in-progress"}
        assert RequestValidator("12345").validate(asked.url, asked.form, asked.headers["x-twilio-signature"])

    assert recording.left.size == recording.right.size == len(talker.heard) * FRAME_BYTES
    assert [frame.at_s for frame in talker.heard] == pytest.approx([0.02 * i for i in range(len(talker.heard))])
    assert len(recording.gaps) == 2
    for from_s, to_s in recording.gaps:
        assert from_s < to_s
        silent = recording.right[round(8_000 * from_s) : round(8_000 * to_s)]
        assert not silent.any()
        assert recording.left[round(8_000 * from_s) : round(8_000 * to_s)].all()
    assert [event.what for event in told if event.what in ("start", "closed", "asked")] == [
        *("start", "closed", "asked") * 2,
        "start",
        "closed",
    ]
    times = [round(event.at_s, 3) for event in told]
    assert times == sorted(times)


def test_what_is_said_in_the_gap_is_heard_by_nobody_and_the_old_audio_is_gone() -> None:
    streams, talker = Streams(10), Talker(30, *["start"] * 2)
    recording, _, _ = call(streams, talker, ask_over, delays=Delays(ask_s=(0.1, 0.1)))

    ((from_s, to_s),) = recording.gaps
    spoken = [
        number_in(base64.b64decode(message["media"]["payload"]))
        for message in streams.messages[0] + streams.messages[1]
        if message["event"] == "media"
    ]
    missed = range(round(from_s * 50) + 1, round(to_s * 50) + 1)
    assert spoken[-3:] == [len(talker.heard) - 2, len(talker.heard) - 1, len(talker.heard)]
    assert not set(missed) & set(spoken)
    # Ten seconds of tone were sent on each stream; the gap begins in the middle of the first.
    tone = np.array([frame.audio[0] == TONE[0] for frame in talker.heard])
    assert not tone[missed.start - 1 : missed.stop - 1].any()
    for heard in (tone[: missed.start - 1], tone[missed.stop - 1 :]):
        assert heard.any()
        assert heard[heard.argmax() :].all()


def test_the_action_of_connect_is_asked_instead_of_the_next_verb() -> None:
    def answer(asked: Asked, stream_url: str) -> str:
        if asked.url.endswith("/hook"):
            return connect(stream_url, "<Say>never</Say>", 'action="/done?a=b" method="GET"')
        return "<Response><Say>Good bye.</Say><Hangup/><Say>never</Say></Response>"

    recording, app, _ = call(Streams(5), Talker(), answer, token="12345")

    assert (recording.said, recording.ended_by, recording.close_code) == (("Good bye.",), "application", 1000)
    done = app.asked[1]
    assert (done.method, done.form) == ("GET", {})
    assert dict(parse_qsl(urlsplit(done.url).query))["CallStatus"] == "in-progress"
    assert RequestValidator("12345").validate(done.url, {}, done.headers["x-twilio-signature"])
    from_s, to_s = recording.gaps[-1]
    assert to_s == pytest.approx(recording.left.size / 8_000)
    assert from_s < to_s


def test_words_and_pauses_are_a_call_without_a_stream() -> None:
    def answer(_asked: Asked, _stream_url: str) -> str:
        return '<Response><Say>All are  busy.</Say><Pause length="0.2"/><Hangup/></Response>'

    talker = Talker()
    recording, _, told = call(Streams(), talker, answer)

    assert (recording.streams, recording.said, recording.ended_by) == (0, ("All are busy.",), "application")
    assert (recording.ids.stream_sid, recording.close_code) == ("", 0)
    assert recording.gaps == ((0.0, recording.left.size / 8_000),)
    assert not recording.right.any()
    assert [event.what for event in told] == ["said"]
    assert {frame.audio for frame in talker.heard} == {SILENCE}
    playing = [frame.playing for frame in talker.heard]
    assert (playing[0], playing[-1]) == (True, False)
    assert playing == sorted(playing, reverse=True)


def test_a_call_that_is_only_hung_up_is_one_without_a_sample() -> None:
    recording, _, _ = call(Streams(), Talker(), lambda _asked, _url: "<Response><Hangup/></Response>")

    assert recording.left.size == recording.right.size <= FRAME_BYTES
    assert (recording.streams, recording.ended_by) == (0, "application")


def test_a_caller_who_hangs_up_in_a_gap_ends_the_call_and_nothing_follows() -> None:
    streams, talker = Streams(5), Talker(10, "closed")
    recording, app, _ = call(streams, talker, ask_over, delays=Delays(ask_s=(600.0, 600.0)))

    assert (recording.ended_by, recording.streams, len(app.asked)) == ("caller", 1, 1)
    assert recording.gaps[-1][1] == pytest.approx(len(talker.heard) * 0.02)
    assert "stop" not in [message["event"] for message in streams.messages[0]]


def test_a_caller_who_hangs_up_on_a_stream_ends_the_call_whatever_comes_after_it() -> None:
    streams = Streams()
    recording, app, _ = call(streams, Talker(5), ask_over)

    assert (recording.ended_by, recording.gaps, len(app.asked)) == ("caller", (), 1)
    assert streams.messages[0][-1]["event"] == "stop"


def test_a_socket_that_breaks_is_noticed_when_the_carrier_likes() -> None:
    def lived(talker: Talker, notice_s: float) -> tuple[int, int]:
        delays = Delays(notice_s=notice_s, ask_s=(0.05, 0.05))
        recording, _, _ = call(Streams(5, abort=True), talker, ask_over, delays=delays)
        return recording.streams, len(recording.gaps)

    assert lived(Talker(20, "start", "start"), 0.0) == (2, 1)
    assert lived(Talker(40), 600.0) == (1, 0)


def test_a_line_that_is_cut_on_the_way_leads_to_the_next_document() -> None:
    async def run() -> Recording:
        streams = Streams()
        talker = Talker(20, "start", "start")

        def answer(_asked: Asked, _stream_url: str) -> str:
            return connect(f"ws://127.0.0.1:{line.port}/stream", "<Redirect>/over</Redirect>")

        async with application(streams, answer=answer) as app:
            port = urlsplit(app.stream_url).port
            assert port is not None
            with run_proxy("127.0.0.1", port) as line:
                dial = Dial(voice_url=app.url, call_sid=new_call_sid(), delays=QUICK)
                going = asyncio.create_task(place(dial, talker, talker.told.append))
                await until(lambda: len(talker.heard) >= 10)
                line.cut()
                line.heal()
                return await going

    recording = asyncio.run(run())
    assert (recording.streams, recording.ended_by, len(recording.gaps)) == (2, "caller", 1)


def test_a_stream_that_does_not_open_is_followed_by_the_next_verb() -> None:
    (nobody,) = free_ports(1)

    def answer(asked: Asked, stream_url: str) -> str:
        if asked.url.endswith("/hook"):
            return connect(f"ws://127.0.0.1:{nobody}/x", "<Redirect>/again</Redirect>")
        return connect(stream_url)

    recording, app, _ = call(Streams(5), Talker(), answer)

    assert [urlsplit(asked.url).path for asked in app.asked] == ["/hook", "/again"]
    assert (recording.streams, recording.ended_by) == (1, "application")
    assert [warned.code for warned in recording.warnings] == ["31901"]


@pytest.mark.parametrize(
    ("answered", "code"), [("no TwiML", "12100"), ("<Response><Connect><Stream/></Connect></Response>", "12100")]
)
def test_a_document_that_cannot_be_followed_ends_the_call(answered: str, code: str) -> None:
    def answer(asked: Asked, stream_url: str) -> str:
        return connect(stream_url, "<Redirect>/over</Redirect>") if asked.url.endswith("/hook") else answered

    recording, _, _ = call(Streams(5), Talker(), answer)

    assert (recording.ended_by, recording.streams) == ("application", 1)
    assert [warned.code for warned in recording.warnings] == [code]


def test_a_webhook_that_nobody_answers_ends_the_call() -> None:
    (nobody,) = free_ports(1)

    def answer(_asked: Asked, stream_url: str) -> str:
        return connect(stream_url, f"<Redirect>http://127.0.0.1:{nobody}/over</Redirect>")

    recording, _, _ = call(Streams(5), Talker(), answer)

    assert (recording.ended_by, recording.streams) == ("application", 1)
    (warned,) = recording.warnings
    assert warned.code == "11200"
    assert f"no answer from the webhook http://127.0.0.1:{nobody}/over" in warned.text


def test_a_verb_that_is_not_known_is_passed_over() -> None:
    def answer(_asked: Asked, stream_url: str) -> str:
        return f'<Response><Gather/><Connect><Stream url="{stream_url}"/></Connect></Response>'

    recording, _, _ = call(Streams(5), Talker(), answer)

    assert recording.streams == 1
    assert [warned.code for warned in recording.warnings] == ["12200"]


def test_an_empty_document_is_no_call() -> None:
    with pytest.raises(CallFailed, match="answered nothing and no <Connect><Stream>"):
        call(Streams(), Talker(5), lambda _asked, _url: "<Response/>")


@pytest.mark.parametrize(("scheme", "tries"), [("https", 2), ("http", 1)])
def test_only_a_connection_that_did_not_come_about_is_tried_once_more(scheme: str, tries: int) -> None:
    accepted = 0

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Without TLS that is a connection which broke before the answer, with it one that never was.
        nonlocal accepted
        accepted += 1
        writer.transport.abort()

    async def run() -> Recording:
        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as rude:
            over = f"{scheme}://127.0.0.1:{rude.sockets[0].getsockname()[1]}/over"

            def answer(_asked: Asked, stream_url: str) -> str:
                return connect(stream_url, f"<Redirect>{over}</Redirect>")

            async with application(Streams(3), answer=answer) as app:
                return await place(Dial(voice_url=app.url, call_sid=new_call_sid(), delays=QUICK), Talker())

    recording = asyncio.run(run())

    assert accepted == tries
    assert (recording.ended_by, [warned.code for warned in recording.warnings]) == ("application", ["11200"])
