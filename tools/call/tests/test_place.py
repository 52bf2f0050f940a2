"""Whole simulated calls against an application of the test: a tone for an agent, a real bus, the real command."""

import asyncio
import base64
import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

from trunkline.audio import wav
from trunkline.audio.g711 import pcm16_to_mulaw
from trunkline.bus import Bus
from trunkline.call import CallResult, NoVoice, Seen, Target, parse_scenario, place_call
from trunkline.call.command import main
from trunkline.proto import events, messages, subjects
from trunkline.proto.ids import CallId, Epoch, Generation, Seq, ToolCallId, TurnId, UtteranceId, call_id_of
from trunkline.testing.nats_server import run_nats
from trunkline.testing.twilio.application import Asked, application

pytestmark = pytest.mark.integration

SECOND = pcm16_to_mulaw((6_000 * np.sin(np.arange(8_000) * 2 * np.pi * 440 / 8_000)).astype("<i2").tobytes())
HANGS_UP_AFTER = 3


class ToneAgent:
    """Greets with a second of tone, answers the caller's words with two, falls silent when spoken over."""

    def __init__(self, answers: int = HANGS_UP_AFTER) -> None:
        self.answers = answers

    async def __call__(self, socket) -> None:
        voiced, quiet, outstanding, answered = 0, 0, False, 0
        sid = ""

        async def say(seconds: int) -> None:
            nonlocal outstanding
            payload = base64.b64encode(SECOND * seconds).decode()
            await socket.send(json.dumps({"event": "media", "streamSid": sid, "media": {"payload": payload}}))
            await socket.send(json.dumps({"event": "mark", "streamSid": sid, "mark": {"name": "end"}}))
            outstanding = True

        async for text in socket:
            message = json.loads(text)
            match message["event"]:
                case "start":
                    sid = message["streamSid"]
                    await say(1)
                case "mark":
                    outstanding = False
                    if answered >= self.answers:
                        return
                case "media":
                    loud = max(abs(b - 256) & 0x7F for b in base64.b64decode(message["media"]["payload"])) > 0x30
                    voiced, quiet = (voiced + 1, 0) if loud else (voiced, quiet + 1)
                    if loud and outstanding and voiced > 2:
                        await socket.send(json.dumps({"event": "clear", "streamSid": sid}))
                    if voiced > 2 and quiet > 20:
                        voiced, answered = 0, answered + 1
                        await say(2)


def scenario(text: str):
    return parse_scenario(f'name = "test"\n{text}', "test")


def call(text: str, agent: ToneAgent | None = None, observe=None) -> CallResult:
    async def run() -> CallResult:
        async with application(agent or ToneAgent()) as app:
            return await place_call(Target(url=app.url), scenario(text), observe=observe)

    return asyncio.run(run())


def test_a_call_is_spoken_heard_judged_and_recorded() -> None:
    seen: list[Seen] = []
    result = call(
        """
        [[steps]]
        wait_for_agent = { quiet_ms = 300 }
        [[steps]]
        say = "hello there"
        [[steps]]
        press = "1"
        [[steps]]
        barge_in = { after_s = 0.5, say = "stop that now" }
        [[steps]]
        wait_for_agent = { quiet_ms = 300 }
        [expect]
        agent_speaks_within_s = 30.0
        answers_within_s = 30.0
        agent_speech_at_least_s = 3.0
        stops_within_ms = 10000
        tools = ["none to be seen"]
        """,
        observe=seen.append,
    )

    found = {verdict.name: verdict.passed for verdict in result.verdicts}
    assert found == {
        "scenario played": True,
        "agent speaks": True,
        "answers “hello there”": True,
        "agent speech": True,
        "stops for “stop that now”": True,
        "tools": None,
    }
    assert result.passed
    assert result.ended_by == "caller"
    assert result.left.size == result.right.size == round(8_000 * result.duration_s)
    assert [spoken.words for spoken in result.spoken] == ["hello there", "stop that now"]
    assert result.log == tuple(seen)
    assert {"clear", "mark-received", "mark-returned", "dtmf"} <= {one.what for one in seen if one.who == "line"}
    for spoken in result.spoken:
        loudest = np.abs(result.left[round(8_000 * spoken.start_s) : round(8_000 * spoken.end_s)]).max()
        assert loudest > 1_000


def test_an_agent_that_hangs_up_too_soon_fails_the_call() -> None:
    result = call(
        """
        [[steps]]
        say = "hello"
        [[steps]]
        wait_for_agent = {}
        [[steps]]
        say = "are you there"
        """,
        ToneAgent(answers=1),
    )

    assert result.ended_by == "agent"
    assert result.problem == "the far side hung up (close code 1000) before say = 'are you there'"
    assert not result.passed


def test_an_agent_that_hangs_up_when_it_should_passes() -> None:
    result = call(
        """
        [[steps]]
        say = "goodbye"
        [[steps]]
        wait_for_end_s = 30.0
        [expect]
        agent_hangs_up_within_s = 30.0
        """,
        ToneAgent(answers=1),
    )

    assert result.passed
    assert result.log[-1].what == "hung-up"


def test_an_unknown_voice_is_named() -> None:
    with pytest.raises(NoVoice, match="atlantean"):
        call('caller = { voice = "atlantean" }\n[[steps]]\nsay = "nuqneH"')


def test_the_bus_is_watched_and_judged() -> None:
    sid = "CA" + 32 * "5"
    name = call_id_of("twilio", sid)

    async def converse(nats_url: str) -> CallResult:
        async def with_story(socket) -> None:
            bus = await Bus.connect(nats_url, name="agent", on_lost=pytest.fail)
            teller = asyncio.create_task(tell(bus, name))
            with contextlib.suppress(asyncio.CancelledError):
                await ToneAgent(answers=1)(socket)
            await teller
            await bus.close()

        async with application(with_story) as app:
            target = Target(url=app.url, nats_url=nats_url)
            return await place_call(
                target,
                scenario(
                    """
                    [[steps]]
                    say = "a table for two"
                    [[steps]]
                    wait_for_end_s = 30.0
                    [expect]
                    word_error_rate_at_most = 0.25
                    tools = ["book_table"]
                    ended_reason = "completed"
                    agent_says = ["your table is booked"]
                    """
                ),
                call_sid=sid,
            )

    with run_nats() as server:
        result = asyncio.run(converse(server.url))

    assert result.call == name
    assert [(verdict.name, verdict.passed) for verdict in result.verdicts] == [
        ("scenario played", True),
        ("hears “a table for two”", True),
        ("tools", True),
        ("ended reason", True),
        ("agent says", True),
    ]
    on_the_bus = [(seen.what, seen.text) for seen in result.log if seen.who == "bus"]
    assert [text for what, text in on_the_bus if what == "story"] == ["final", "say"]
    assert [text for what, text in on_the_bus if what == "event"] == ["tool.called", "call.ended"]


async def tell(bus: Bus, call_id: CallId) -> None:
    """Put on the bus what the services would, for one turn."""

    async def happen(fact: events.Fact) -> None:
        kind = events.kind_of(fact)
        event = events.Event(id=kind, call=call_id, wall_at=0.0, fact=fact)
        await bus.publish(subjects.event(kind, call_id), event)

    await bus.publish(
        subjects.speech(call_id),
        messages.FinalTranscript(
            epoch=Epoch(1),
            utterance=UtteranceId(0),
            text="a table for you",
            committed=Seq(9),
            onset_at=0.0,
            offset_at=0.0,
        ),
    )
    called = events.ToolCalled(turn=TurnId(1), tool_call=ToolCallId("t"), name="book_table", arguments="{}")
    await happen(called)
    await bus.publish(
        subjects.speak(call_id),
        messages.Say(
            epoch=Epoch(1), generation=Generation(1), utterance=UtteranceId(1), text="Your table is booked, goodbye."
        ),
    )
    await happen(events.CallEnded(reason="completed", duration_s=1.0))


def test_a_call_that_goes_on_after_its_stream_is_one_call() -> None:
    def answer(asked: Asked, stream_url: str) -> str:
        if asked.url.endswith("/over"):
            return "<Response><Say>Sorry.</Say><Hangup/></Response>"
        redirect = "/over" if "again" in asked.url else "/again"
        return f'<Response><Connect><Stream url="{stream_url}"/></Connect><Redirect>{redirect}</Redirect></Response>'

    async def run() -> CallResult:
        async with application(ToneAgent(answers=0), answer=answer) as app:
            return await place_call(Target(url=app.url), scenario("[[steps]]\nwait_for_end_s = 30.0"))

    result = asyncio.run(run())

    assert (result.streams, result.said, result.ended_by, result.problem) == (2, ("Sorry.",), "agent", None)
    assert [seen.what for seen in result.log if seen.what in ("start", "asked", "said")] == [
        *("start", "asked") * 2,
        "said",
    ]
    assert len(result.gaps) == 2
    assert result.gaps[-1][1] == pytest.approx(result.duration_s)
    assert result.left.size == result.right.size == round(8_000 * result.duration_s)
    first_ended, second_began = (round(8_000 * at_s) for at_s in result.gaps[0])
    assert result.right[:first_ended].any()
    assert not result.right[first_ended:second_began].any()
    assert result.right[second_began:].any()


SHORT = """
name = "short"
[[steps]]
say = "hello"
[[steps]]
wait_for_agent = { quiet_ms = 200 }
[expect]
answers_within_s = %s
"""


def run_command(*arguments: str, agent: ToneAgent | None = None) -> int:
    """Run the command beside an application that answers it."""

    async def run() -> int:
        async with application(agent or ToneAgent()) as app:
            return await asyncio.to_thread(main, [app.url, *arguments])

    return asyncio.run(run())


def test_the_command_writes_its_files_and_returns_0_when_all_is_met(tmp_path: Path, capsys) -> None:
    file = tmp_path / "short.toml"
    file.write_text(SHORT % 30.0)

    assert run_command("--scenario", str(file), "--out", str(tmp_path / "out")) == 0
    printed = capsys.readouterr().out
    assert "✓ answers “hello”" in printed.replace("  ", " ")
    assert "agent  speech-started" in printed
    recorded = wav.read(tmp_path / "out" / "call.wav")
    assert recorded.rate_hz == 8_000
    assert recorded.samples.shape[1] == 2
    record = json.loads((tmp_path / "out" / "call.json").read_text())
    assert record["passed"] is True
    assert record["spoken"][0]["words"] == "hello"
    assert record["duration_s"] * 8_000 == pytest.approx(recorded.samples.shape[0])


def test_the_command_returns_1_when_something_is_missed(tmp_path: Path, capsys) -> None:
    file = tmp_path / "short.toml"
    file.write_text(SHORT % 0.01)

    assert run_command("--scenario", str(file), "--quiet") == 1
    printed = capsys.readouterr().out
    assert "✗ answers “hello”" in printed.replace("  ", " ")
    assert "speech-started" not in printed


def test_many_calls_at_once_are_summed_up(tmp_path: Path, capsys) -> None:
    file = tmp_path / "short.toml"
    file.write_text(SHORT % 30.0)

    assert run_command("--scenario", str(file), "--calls", "5", "--quiet", "--out", str(tmp_path)) == 0
    assert "5 of 5 calls passed" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.glob("*/call.wav")) == ["call.wav"] * 5


def test_nobody_there_is_said_in_a_sentence(capsys) -> None:
    assert main(["http://127.0.0.1:9"]) == 2
    said = capsys.readouterr().err
    assert "no answer from the voice webhook http://127.0.0.1:9/twilio/voice-hook" in said
    assert "make dev" in said
    assert "Traceback" not in said


def test_a_bus_that_is_not_there_is_said_too(capsys) -> None:
    assert run_command("--nats", "nats://127.0.0.1:9") == 2
    assert "cannot reach NATS at" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://h:1", "http://h:1/twilio/voice-hook?agent=bench"),
        ("https://h/", "https://h/twilio/voice-hook?agent=bench"),
        ("http://h/other?x=1", "http://h/other?x=1&agent=bench"),
    ],
)
def test_an_origin_is_enough_to_find_the_webhook(url: str, asked: str) -> None:
    assert Target(url=url, agent="bench").voice_url(scenario("[[steps]]\nhang_up = true")) == asked


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://h", "http://", "http://[::1"])
def test_what_is_no_url_is_refused(url: str, capsys) -> None:
    assert main([url]) == 2
    assert "is no URL to call" in capsys.readouterr().err
