"""Twilio's side against a real WebSocket server: a peer of the protocol, not a part of Trunkline."""

import asyncio
import base64
import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from twilio.request_validator import RequestValidator

from trunkline.testing.errors import CallFailed
from trunkline.testing.twilio import FRAME_BYTES, SILENCE, Dial, Heard, LineEvent, Uttered, new_call_sid, place
from trunkline.testing.twilio.application import application

pytestmark = pytest.mark.integration


class Talker:
    """Says a numbered frame at every tick, presses keys in the third, and hangs up after so many, if it may."""

    def __init__(self, frames: float = math.inf, digits: str = "", may_leave: Callable[[], object] = lambda: True):
        self.frames = frames
        self.digits = digits
        self.may_leave = may_leave
        self.heard: list[Heard] = []

    def tick(self, heard: Heard) -> Uttered:
        self.heard.append(heard)
        number = len(self.heard)
        over = number >= self.frames and bool(self.may_leave())
        return Uttered(bytes([number % 100]) * FRAME_BYTES, self.digits if number == 3 else "", over)


def dial(url: str, token: str | None = None) -> Dial:
    return Dial(voice_url=url, call_sid=new_call_sid(), token=token)


def test_what_is_said_comes_back_with_marks_and_both_are_recorded() -> None:
    received: list[dict] = []

    async def echo(socket) -> None:
        async for text in socket:
            message = json.loads(text)
            received.append(message)
            if message["event"] == "media" and message["media"]["chunk"] == "10":
                sid = message["streamSid"]
                payload = base64.b64encode(b"\x07" * 800).decode()
                await socket.send(json.dumps({"event": "media", "streamSid": sid, "media": {"payload": payload}}))
                await socket.send(json.dumps({"event": "mark", "streamSid": sid, "mark": {"name": "end"}}))

    async def call():
        told: list[LineEvent] = []
        async with application(echo, parameters={"agent": "sophie"}) as app:
            talker = Talker(40, "1#", lambda: any(event.what == "mark-returned" for event in told))
            return await place(dial(app.url), talker, told.append), talker, told

    recording, talker, told = asyncio.run(call())

    assert [message["event"] for message in received[:3]] == ["connected", "start", "media"]
    assert received[1]["start"]["customParameters"] == {"agent": "sophie"}
    assert [message["dtmf"]["digit"] for message in received if message["event"] == "dtmf"] == ["1", "#"]
    assert [message["mark"]["name"] for message in received if message["event"] == "mark"] == ["end"]
    assert received[-1]["event"] == "stop"
    assert recording.ended_by == "caller"
    assert recording.close_code == 1000
    assert recording.left.size == recording.right.size == len(talker.heard) * FRAME_BYTES
    heard = b"".join(heard.audio for heard in talker.heard)
    assert heard.count(b"\x07") == 800
    assert np.count_nonzero(recording.right) == 800
    what = [event.what for event in told]
    assert what.index("mark-received") < what.index("mark-returned") < what.index("stop") < what.index("closed")
    assert recording.warnings == ()


def test_frames_keep_to_real_time() -> None:
    async def listen(socket) -> None:
        async for _ in socket:
            pass

    async def call() -> float:
        async with application(listen) as app:
            begin = asyncio.get_running_loop().time()
            await place(dial(app.url), Talker(50))
            return asyncio.get_running_loop().time() - begin

    assert asyncio.run(call()) >= 1.0


def test_an_application_that_closes_ends_the_call() -> None:
    async def goodbye(socket) -> None:
        await socket.recv()
        await socket.close(1000, "bye")

    async def call():
        async with application(goodbye) as app:
            return await place(dial(app.url), Talker())

    recording = asyncio.run(call())
    assert (recording.ended_by, recording.close_code, recording.close_reason) == ("application", 1000, "bye")


def test_an_application_that_vanishes_ends_the_call_too() -> None:
    async def vanish(socket) -> None:
        await socket.recv()
        socket.transport.abort()

    async def call():
        async with application(vanish) as app:
            return await place(dial(app.url), Talker())

    recording = asyncio.run(call())
    assert (recording.ended_by, recording.close_code) == ("application", 1006)


def test_nonsense_from_the_application_is_warned_of_and_the_call_goes_on() -> None:
    async def babble(socket) -> None:
        await socket.send("no json")
        await socket.send(b"binary")
        async for _ in socket:
            pass

    async def call():
        told: list[LineEvent] = []
        async with application(babble) as app:
            talker = Talker(10, may_leave=lambda: sum(event.what == "warning" for event in told) == 2)
            return await place(dial(app.url), talker, told.append)

    recording = asyncio.run(call())
    assert sorted(warned.code for warned in recording.warnings) == ["31950", "31951"]
    assert recording.ended_by == "caller"


def test_webhook_and_websocket_are_signed_as_the_official_validator_wants() -> None:
    signatures: list[str] = []

    async def listen(socket) -> None:
        signatures.append(socket.request.headers["X-Twilio-Signature"])
        async for _ in socket:
            pass

    async def call():
        async with application(listen) as app:
            await place(dial(f"{app.url}/hook?agent=sophie&x=%20y", token="12345"), Talker(2))
            return app

    app = asyncio.run(call())
    validator = RequestValidator("12345")
    (asked,) = app.asked
    assert asked.url.endswith("/hook?agent=sophie&x=%20y")
    assert asked.form["CallSid"].startswith("CA")
    assert asked.form["From"] == asked.form["Caller"]
    assert validator.validate(asked.url, asked.form, asked.headers["x-twilio-signature"])
    assert validator.validate(app.stream_url, {}, signatures[0])


def test_without_a_token_nothing_is_signed() -> None:
    async def listen(socket) -> None:
        assert "X-Twilio-Signature" not in socket.request.headers
        async for _ in socket:
            pass

    async def call():
        async with application(listen) as app:
            await place(dial(app.url), Talker(2))
            return app.asked[0].headers

    assert "x-twilio-signature" not in asyncio.run(call())


@pytest.mark.parametrize(
    ("options", "why", "status"),
    [
        ({"status": 403, "twiml": "no signature"}, "answered 403 Answer: no signature", 403),
        ({"twiml": "<Response><Reject/></Response>"}, "answered <Reject> and no <Connect><Stream>", 200),
        ({"twiml": "hello"}, "did not answer TwiML", None),
        (
            {"twiml": '<Response><Connect><Stream url="ws://127.0.0.1:9/x"/></Connect></Response>'},
            "ws://127.0.0.1:9/x of the TwiML did not open",
            None,
        ),
    ],
)
def test_a_call_that_cannot_begin_says_why(options, why: str, status: int | None) -> None:
    async def unused(_socket) -> None:
        pytest.fail("nobody should connect")

    async def call() -> None:
        async with application(unused, **options) as app:
            await place(dial(app.url), Talker(2))

    with pytest.raises(CallFailed, match=why) as failed:
        asyncio.run(call())
    assert failed.value.status == status


def test_nobody_at_the_webhook_says_so() -> None:
    with pytest.raises(CallFailed, match="no answer from the voice webhook"):
        asyncio.run(place(dial("http://127.0.0.1:9/"), Talker(2)))


def test_silence_is_heard_where_nothing_is_sent() -> None:
    async def listen(socket) -> None:
        async for _ in socket:
            pass

    async def call():
        async with application(listen) as app:
            talker = Talker(5)
            await place(dial(app.url), talker)
            return talker.heard

    heard = asyncio.run(call())
    assert {(frame.audio, frame.playing) for frame in heard} == {(SILENCE, False)}
    assert [frame.at_s for frame in heard] == pytest.approx([0.0, 0.02, 0.04, 0.06, 0.08])
