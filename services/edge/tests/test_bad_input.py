"""Nonsense on one socket, a good call on another: a clear answer for the one, not a frame lost for the other."""

import asyncio
import base64
import contextlib
import json

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from trunkline.proto.ids import call_id_of
from trunkline.testing.patience import PATIENCE_S, until
from trunkline.testing.twilio import new_call_sid

from .conftest import hears

pytestmark = pytest.mark.integration

SID = "MZ" + "e" * 32


def start(agent="restaurant", call_sid=None, **changes):
    body = {
        "accountSid": "AC1",
        "streamSid": SID,
        "callSid": call_sid or new_call_sid(),
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"agent": agent},
    }
    return json.dumps({"event": "start", "sequenceNumber": "1", "streamSid": SID, "start": body | changes})


def media(payload=None, sid=SID, **changes):
    payload = base64.b64encode(b"\xff" * 160).decode() if payload is None else payload
    body = {"track": "inbound", "chunk": "1", "timestamp": "20", "payload": payload} | changes
    return json.dumps({"event": "media", "sequenceNumber": "2", "streamSid": sid, "media": body})


CONNECTED = json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"})
LIVE_SID = new_call_sid()
LIVE = [CONNECTED, start(call_sid=LIVE_SID)]

CLOSED = {
    "binary instead of text": ([CONNECTED, b"\x00" * 160], 1003, "binary-message"),
    "binary in a live call": ([*LIVE, b"\x00" * 160], 1003, "binary-message"),
    "10 MB of JSON": ([CONNECTED, json.dumps({"event": "media", "x": "x" * 10_000_000})], 1009, "oversize-message"),
    "10 MB of JSON in a live call": ([*LIVE, media("A" * 10_000_000)], 1009, "oversize-message"),
    "no JSON at all": (["GET / HTTP/1.1"], 1007, "malformed-json"),
    "media before start": ([CONNECTED, media()], 1008, "media-before-start"),
    "another media format": (
        [CONNECTED, start(mediaFormat={"encoding": "audio/x-mulaw", "sampleRate": 16000, "channels": 1})],
        1003,
        "media-format",
    ),
    "a start without callSid": ([CONNECTED, start(callSid=None)], 1007, "bad-start"),
    "an agent that does not exist": ([CONNECTED, start(agent="nobody")], 1008, "no-such-agent"),
    "more nonsense than is bearable": ([*LIVE, *["{"] * 51], 1008, "too-many-bad-messages"),
    "connects and says nothing": ([], 1008, "no-start"),
    "connects and never starts": ([CONNECTED], 1008, "no-start"),
}

IGNORED = {
    "a malformed frame": (media("*"), "bad-base64"),
    "a frame without payload": (json.dumps({"event": "media", "streamSid": SID, "media": {}}), "bad-field"),
    "an unknown event": (json.dumps({"event": "brand-new", "streamSid": SID}), "unknown-event"),
    "a wrong streamSid": (media(sid="MZ" + "d" * 32), "wrong-stream-sid"),
    "malformed JSON": ('{"event":', "malformed-json"),
    "brackets without end": ('{"event":"mark","x":' + "[" * 60_000, "malformed-json"),
}


async def close_of(socket):
    with contextlib.suppress(ConnectionClosed):
        while True:
            await socket.recv()
    return socket.close_code, socket.close_reason


async def beside_a_good_call(rig, nonsense):
    """Run `nonsense` in the middle of a good call, and assert that the call did not notice."""
    dial = rig.dial()
    call = rig.call_of(dial)
    over = asyncio.Event()
    good = asyncio.create_task(
        rig.good_call(1.2, dial=dial, until=lambda speaker: over.is_set() and hears(400)(speaker))
    )
    await until(lambda: rig.told(call, "playout"))
    result = await nonsense
    over.set()
    _, recording = await good
    await until(lambda: not rig.edge.exchange.calls)
    frames = rig.ears.frames[call]
    await until(lambda: len(frames) >= 36)  # of 1.2 s, in which the last 20 ms may have been under way
    assert [frame.seq for frame in frames] == list(range(len(frames)))
    assert rig.ears.heard(call) == recording.left.tobytes()[: 512 * len(frames)]
    assert sum(recording.right != 0) == 8 * rig.voice.tone_ms
    assert recording.ended_by == "caller"
    assert recording.warnings == ()
    return result


@pytest.mark.parametrize("name", CLOSED)
def test_fatal_is_closed_with_a_code_one_line_and_one_count(edge_rig, warnings_of, name):
    messages, code, reason = CLOSED[name]

    async def nonsense(rig):
        async with connect(rig.ws, compression=None) as socket:
            with contextlib.suppress(ConnectionClosed):
                for message in messages:
                    await socket.send(message)
            return await close_of(socket)

    async def story():
        async with edge_rig(EDGE_START_TIMEOUT_S="5.0") as rig:
            closed, text = await beside_a_good_call(rig, nonsense(rig))
            assert closed == code
            assert text
            assert rig.metrics.refused[reason] == 1
            assert sum(rig.metrics.refused.values()) == 1

    asyncio.run(story())
    assert warnings_of().count("stream refused") == 1


@pytest.mark.parametrize("name", IGNORED)
def test_harmless_is_ignored_logged_once_and_always_counted(edge_rig, warnings_of, name):
    message, reason = IGNORED[name]
    live = call_id_of("twilio", LIVE_SID)

    async def nonsense(rig):
        async with connect(rig.ws, compression=None) as socket:
            for each in (*LIVE, media(), message, message, message, media()):
                await socket.send(each)
            await until(lambda: rig.metrics.bad[reason] == 3)
            # Two messages of 20 ms are a frame and a bit.
            await until(lambda: len(rig.ears.frames[live]) == 1)
            await socket.send(json.dumps({"event": "stop", "streamSid": SID, "stop": {}}))
            return await close_of(socket)

    async def story():
        async with edge_rig() as rig:
            closed, _ = await beside_a_good_call(rig, nonsense(rig))
            assert closed == 1000
            assert len(rig.ears.frames[live]) == 1
            assert rig.metrics.ended == {"customer-ended-call": 2}

    asyncio.run(story())
    assert warnings_of() == ["bad message ignored"]


def test_a_socket_that_vanishes_in_mid_word_ends_its_call_and_no_other(edge_rig):
    async def nonsense(rig):
        socket = await connect(rig.ws, compression=None)
        for message in (*LIVE, media(), media()):
            await socket.send(message)
        await until(lambda: len(rig.edge.exchange.calls) == 2)
        socket.transport.abort()
        await until(lambda: len(rig.edge.exchange.calls) == 1)

    async def story():
        async with edge_rig() as rig:
            await beside_a_good_call(rig, nonsense(rig))
            assert rig.metrics.ended == {"phone-call-provider-closed-websocket": 1, "customer-ended-call": 1}

    asyncio.run(story())


def test_a_socket_that_does_not_read_keeps_only_its_own_call_waiting(edge_rig, warnings_of):
    async def nonsense(rig):
        socket = await connect(rig.ws, compression=None, max_queue=1)
        call_sid = new_call_sid()
        for message in (CONNECTED, start(call_sid=call_sid)):
            await socket.send(message)
        await until(lambda: len(rig.mind.held) == 2)
        rig.voice.tone_ms = 60_000
        deaf = list(rig.mind.held)[-1]
        for _ in range(10):  # ten minutes of speech for somebody who does not listen
            await rig.mind.say(deaf, 1)
        await until(lambda: rig.metrics.dropped["audio_line_slow"] > 0)
        rig.voice.tone_ms = 400
        socket.transport.abort()

    async def story():
        async with edge_rig(EDGE_UNSENT_BYTES="65536") as rig:
            await beside_a_good_call(rig, nonsense(rig))

    asyncio.run(story())
    assert warnings_of().count("line does not read; agent audio dropped") == 1


def test_a_second_stream_of_a_live_call_is_refused(edge_rig):
    async def story():
        async with edge_rig() as rig:
            dial = rig.dial()
            answered = asyncio.Event()
            good = asyncio.create_task(rig.good_call(dial=dial, until=lambda _: answered.is_set()))
            await until(lambda: rig.edge.exchange.calls)
            async with connect(rig.ws, compression=None) as socket:
                await socket.send(start(call_sid=dial.call_sid))
                assert await close_of(socket) == (1008, "this call has a live stream already")
            answered.set()
            _, recording = await good
            assert recording.ended_by == "caller"

    asyncio.run(story())


def test_a_call_too_many_is_told_to_try_again_later(edge_rig):
    async def story():
        async with edge_rig(EDGE_CAPACITY="1") as rig:
            answered = asyncio.Event()
            good = asyncio.create_task(rig.good_call(until=lambda _: answered.is_set()))
            await until(lambda: rig.edge.exchange.calls)
            async with connect(rig.ws, compression=None) as socket:
                await socket.send(start())
                assert await close_of(socket) == (1013, "all lines are busy")
            answered.set()
            await good

    asyncio.run(story())


def test_a_webhook_without_a_signature_is_refused_when_a_token_is_set(edge_rig, warnings_of):
    async def nonsense(rig):
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client:
            answer = await client.post(f"{rig.http}/twilio/voice-hook", data={"CallSid": "CA1"})
        assert answer.status_code == 403
        assert "X-Twilio-Signature" in answer.text
        with pytest.raises(InvalidStatus) as refused:
            await connect(rig.ws, compression=None)
        assert refused.value.response.status_code == 403
        assert b"X-Twilio-Signature" in refused.value.response.body

    async def story():
        async with edge_rig(TWILIO_AUTH_TOKEN="12345") as rig:
            plain = rig.dial
            rig.dial = lambda: plain(token="12345")
            await beside_a_good_call(rig, nonsense(rig))
            assert rig.metrics.refused == {"webhook-not-allowed": 1, "socket-not-allowed": 1}

    asyncio.run(story())
    assert sorted(warnings_of()) == ["request refused", "socket refused"]
