"""What the messages of a call read like."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.cli.screen import row
from trunkline.cli.story import Line, clean, of_event, of_message
from trunkline.proto import events, messages
from trunkline.proto.codec import encode
from trunkline.proto.ids import CallId, Epoch, Generation, Seq, ToolCallId, TurnId, UtteranceId, WorkerId

pytestmark = pytest.mark.unit

CALL = "abcdefghijklmnopqrstuvwxyz"
E1, G2, U3, T4 = Epoch(1), Generation(2), UtteranceId(3), TurnId(4)


def told(topic: str, message: object) -> tuple[str, str]:
    line = of_message(f"call.{CALL}.{topic}", encode(message))
    assert (line.call, line.topic) == (CALL, topic)
    return line.text, line.style


def happened(fact: events.Fact) -> tuple[str, str]:
    event = events.Event(id="e1", call=CallId(CALL), wall_at=1.0, fact=fact)
    line = of_message(f"events.{events.kind_of(fact).replace('.', '-')}.{CALL}", encode(event))
    assert (line.call, line.topic) == (CALL, events.kind_of(fact))
    return line.text, line.style


@pytest.mark.parametrize(
    ("topic", "message", "text", "style"),
    [
        ("speech", messages.SpeechStarted(epoch=E1, utterance=U3, onset_at=1.0), "caller begins to speak", "faint"),
        ("speech", messages.PartialTranscript(epoch=E1, utterance=U3, text="a tab"), "caller … a tab", "faint"),
        (
            "speech",
            messages.FinalTranscript(
                epoch=E1, utterance=U3, text="a table", committed=Seq(9), onset_at=1.0, offset_at=2.0, confidence=0.9
            ),
            'caller: "a table" (confidence 0.90)',
            "caller",
        ),
        (
            "speech",
            messages.TurnEnded(epoch=E1, utterance=U3, speech_ended_at=1.0, endpoint_at=1.6, final_at=1.7),
            "caller has finished; silence took 600 ms",
            "faint",
        ),
        (
            "speak",
            messages.Say(epoch=E1, generation=G2, utterance=U3, text="For how many?"),
            'agent is to say #3: "For how many?" (generation 2)',
            "agent",
        ),
        (
            "interrupt",
            messages.Interrupt(epoch=E1, generation=G2, reason="barge-in"),
            "INTERRUPT (barge-in): speech below generation 2 is void",
            "interrupt",
        ),
        (
            "playout",
            messages.PlayoutStarted(generation=G2, utterance=U3, synthesised_at=1.0, sent_at=1.004),
            "#3 begins to play; 4 ms from synthesis to carrier",
            "playout",
        ),
        (
            "playout",
            messages.PlayoutFinished(generation=G2, utterance=U3, heard_ms=1840),
            "#3 was heard in full, 1.8 s",
            "playout",
        ),
        (
            "playout",
            messages.PlayoutCut(generation=G2, utterance=U3, heard_ms=700, total_ms=2100, complete=False),
            "#3 was cut: 0.7 of 2.1 s so far heard",
            "interrupt",
        ),
        (
            "control",
            messages.HangUp(epoch=E1, generation=G2, reason="agent-ended"),
            "hang up: agent-ended",
            "interrupt",
        ),
        ("dtmf", messages.DigitPressed(digit="#", at=1.0), "caller pressed #", "caller"),
    ],
)
def test_every_message_of_a_call_is_told_in_words(topic, message, text, style):
    assert told(topic, message) == (text, style)


@pytest.mark.parametrize(
    ("fact", "text", "style"),
    [
        (
            events.CallStarted(agent="demo", carrier="twilio", carrier_call="CA1", edge=WorkerId("edge-1")),
            "inbound call for demo, twilio CA1, at edge-1",
            "fact",
        ),
        (
            events.StageAssigned(stage="stt", worker=WorkerId("stt-1"), epoch=E1, claim_ms=0.42),
            "stt is stt-1 (epoch 1), claimed in 0.4 ms",
            "fact",
        ),
        (
            events.StageLost(stage="tts", worker=WorkerId("tts-1"), epoch=E1, reason="silent"),
            "tts lost tts-1 (epoch 1): silent",
            "trouble",
        ),
        (
            events.CallerSpoke(turn=T4, utterances=(U3,), text="hello", onset_at=1.0, offset_at=2.5),
            'turn 4, caller: "hello" (1.5 s)',
            "caller",
        ),
        (
            events.CallerSpoke(turn=T4, utterances=(U3,), text="", onset_at=1.0, offset_at=2.5),
            "turn 4, caller: something without words (1.5 s)",
            "caller",
        ),
        (
            events.AgentSpoke(
                turn=T4,
                generation=G2,
                said="Hello there",
                heard="Hello",
                interrupted=True,
                started_at=1.0,
                ended_at=2.0,
            ),
            'turn 4, agent: "Hello there", cut off after "Hello"',
            "agent",
        ),
        (
            events.CallerBargedIn(turn=T4, generation=G2, onset_at=1.0, at=1.11),
            "turn 4, caller barged in; below generation 2 void 110 ms after onset",
            "interrupt",
        ),
        (
            events.ToolCalled(turn=T4, tool_call=ToolCallId("t"), name="book", arguments='{"size":4}'),
            'turn 4, tool book({"size":4})',
            "tool",
        ),
        (
            events.ToolReturned(turn=T4, tool_call=ToolCallId("t"), name="book", took_ms=12.4, result='{"ok":true}'),
            'turn 4, tool book returned {"ok":true} after 12 ms',
            "tool",
        ),
        (
            events.ToolReturned(turn=T4, tool_call=ToolCallId("t"), name="book", took_ms=12.4, error="full"),
            "turn 4, tool book failed after 12 ms: full",
            "trouble",
        ),
        (
            events.TurnMeasured(
                turn=T4,
                generation=G2,
                endpoint_delay_ms=600,
                stt_final_ms=30,
                llm_ttft_ms=2,
                first_sentence_ms=1,
                tts_ttfb_ms=20,
                edge_ms=7,
                turn_latency_ms=660,
            ),
            "turn 4 answered in 660 ms = endpoint 600 + stt 30 + llm 2 + sentence 1 + tts 20 + edge 7",
            "fact",
        ),
        (events.KeyPressed(digit="7", at=1.0), "caller pressed 7", "caller"),
        (
            events.CallEnded(reason="agent-ended", duration_s=31.04, frames_in=970, audio_ms_out=12_300),
            "call ended after 31.0 s: agent-ended (970 frames in, 12.3 s of agent out)",
            "fact",
        ),
    ],
)
def test_every_fact_is_told_in_words(fact, text, style):
    assert happened(fact) == (text, style)


def test_the_unknown_is_shown_raw():
    assert of_message(f"call.{CALL}.levitate", b'{"type":"up"}').text == '{"type":"up"}'
    assert of_message(f"call.{CALL}.speech", b'{"type":"hum"}').style == "raw"
    future = b'{"id":"e","call":"c1","wall_at":1,"fact":{"type":"call.levitated"}}'
    line = of_event(future)
    assert (line.call, line.topic, line.text, line.style) == ("c1", "call.levitated", future.decode(), "raw")


@given(subject=st.text(min_size=1), data=st.binary(max_size=300))
def test_nothing_on_the_bus_makes_it_fail_or_steer_the_terminal(subject, data):
    for head in ("", "call.c1.", "events.x."):
        line = of_message(head + subject, data)
        assert (line.call + line.topic + line.text).isprintable()
        assert row(line, 0.0).plain


def test_what_could_steer_a_terminal_is_made_visible():
    assert clean("a\x1b[31mred\r\n\u202e é ✓") == "a\\x1b[31mred\\r\\n\\u202e é ✓"


def test_a_long_unknown_message_is_cut():
    assert of_message("call.c1.odd", b"x" * 100_000).text.endswith("… (100000 bytes)")


def test_a_row_has_time_call_topic_and_words_in_columns():
    line = Line(call=CALL, topic="speech", text="caller begins to speak", style="faint")
    plain = row(line, 0.123).plain
    assert plain[8:] == ".123  abcdefgh  speech            caller begins to speak"
    assert row(line, 0.0, day=True, call=False).plain[4] == "-"
    assert "abcdefgh" not in row(line, 0.0, call=False).plain
