"""The contract, byte for byte.

``golden/`` holds one file per message and frame, as the first release wrote them. A change that breaks one of these
breaks every process that is one version older. New messages are added with ``UPDATE_GOLDEN=1 make unit``; a diff of an
existing file is a breaking change and needs a new name instead (see libs/proto/README.md).
"""

import os
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.proto import codec, events, messages, records, subjects
from trunkline.proto.agent import Agent, Llm, Rule, Script, Slot, Stt, Tool, Tts
from trunkline.proto.errors import BadFrame, BadMessage
from trunkline.proto.frame import (
    AUDIO_HEADER_BYTES,
    MEDIA_HEADER_BYTES,
    AudioChunk,
    Codec,
    Flag,
    MediaFrame,
    pack_audio,
    pack_media,
    unpack_audio,
    unpack_media,
)
from trunkline.proto.ids import call_id_of, new_worker_id

pytestmark = pytest.mark.unit

GOLDEN = Path(__file__).with_name("golden")
CALL = call_id_of("twilio", "CA00000000000000000000000000000001")
AGENT = Agent(
    name="golden",
    greeting="Hello.",
    stt=Stt(grammar="#JSGF V1.0;"),
    llm=Llm(script=Script(slots={"day": Slot(hear="friday")}, rules=(Rule(known=("day",), say="On {day}."),))),
    tts=Tts(voice="en-gb"),
    tools=(Tool(name="check_table", parameters={"type": "object"}),),
)

MESSAGES = [
    messages.Claim(call=CALL, stage="stt", epoch=1, edge="edge-aaaaaaaa", agent=AGENT, generation=2, started_at=1.5),
    messages.Claimed(worker="stt-aaaaaaaa", free=9),
    messages.Refused(worker="stt-aaaaaaaa", reason="full"),
    messages.Release(call=CALL, epoch=1),
    messages.Released(known=True),
    messages.Missed(call=CALL, epoch=1, seq=7),
    messages.Holds(worker="stt-aaaaaaaa", stage="stt", calls=((CALL, 2),)),
    messages.Disowned(calls=(CALL,)),
    messages.HandOver(call=CALL, stage="stt", epoch=1, worker="stt-aaaaaaaa"),
    messages.HandedOver(problem=""),
    messages.Assigned(stage="stt", epoch=2, worker="stt-bbbbbbbb"),
    messages.VoiceChanged(
        voice=2, reached=(messages.Reached(generation=2, utterance=3, queued_ms=400, complete=False),)
    ),
    messages.Alive(worker="stt-aaaaaaaa", stage="stt", calls=3, capacity=10),
    messages.SpeechStarted(epoch=1, utterance=40, onset_at=10.25),
    messages.PartialTranscript(epoch=1, utterance=40, text="a table"),
    messages.FinalTranscript(
        epoch=1, utterance=40, text="a table for two", committed=120, onset_at=10.25, offset_at=11.5, confidence=0.5
    ),
    messages.TurnEnded(epoch=1, utterance=40, speech_ended_at=11.5, endpoint_at=12.0, final_at=12.25),
    messages.Say(epoch=1, generation=2, utterance=3, text="For which day?"),
    messages.Interrupt(epoch=1, generation=3, reason="barge-in", onset_at=13.0),
    messages.PlayoutStarted(generation=2, utterance=3, synthesised_at=12.5, sent_at=12.75),
    messages.PlayoutFinished(generation=2, utterance=3, heard_ms=900),
    messages.PlayoutCut(generation=2, utterance=3, heard_ms=400, total_ms=900, complete=True),
    messages.HangUp(epoch=1, generation=3, reason="assistant-ended-call"),
    messages.DigitPressed(digit="5", at=14.0),
    messages.SpeechStopped(epoch=1, utterance=40, endpoint_at=12.0),
    messages.WordsTimed(epoch=1, generation=2, utterance=3, points=((3, 120), (9, 480))),
    messages.SpeakingFailed(epoch=1, generation=2, utterance=3, instead="apology"),
    messages.Used(stage="brain", epoch=1, provider="openai", model="m", input_tokens=9, output_tokens=2, usd=0.5),
    messages.WindUp(reason="exceeded-max-cost"),
    messages.Ringing(agent=AGENT),
    messages.MakeClip(tts=AGENT.tts, text="Hello."),
    messages.ClipMade(problem=""),
]

RECORD = records.CallRecord(
    call=CALL,
    state="live",
    edge="edge-aaaaaaaa",
    written_at=2.5,
    agent=AGENT,
    carrier="twilio",
    carrier_call="CA1",
    started_at=1.5,
    epochs={"stt": 2},
    next_seq=50,
    used=(messages.Used(stage="brain", epoch=1, provider="openai", model="m", input_tokens=9, usd=0.5),),
)
RECAP = messages.Recap(
    speech=(messages.SpeechStarted(epoch=1, utterance=40, onset_at=10.25),),
    said=(messages.Uttered(generation=2, utterance=3, text="For which day?", fate="playing", queued_ms=400),),
    digits=(messages.DigitPressed(digit="5", at=14.0),),
)

FACTS = [
    events.CallStarted(agent="golden", carrier="twilio", carrier_call="CA1", edge="edge-aaaaaaaa"),
    events.StageAssigned(stage="stt", worker="stt-aaaaaaaa", epoch=1, claim_ms=1.5),
    events.StageLost(stage="stt", worker="stt-aaaaaaaa", epoch=1, reason="silent"),
    events.CallResumed(edge="edge-bbbbbbbb", before="edge-aaaaaaaa", away_ms=900, planned=False),
    events.StageSettled(stage="stt", epoch=1, used=(messages.Used(stage="stt", epoch=1, provider="acme", usd=0.5),)),
    events.CallerSpoke(turn=1, utterances=(40,), text="a table for two", onset_at=10.25, offset_at=11.5),
    events.AgentSpoke(
        turn=1, generation=2, said="For which day?", heard="For", interrupted=True, started_at=12.75, ended_at=13.0
    ),
    events.CallerBargedIn(turn=1, generation=3, onset_at=13.0, at=13.25),
    events.ToolCalled(turn=1, tool_call="t1", name="check_table", arguments="{}"),
    events.ToolReturned(turn=1, tool_call="t1", name="check_table", took_ms=3.5, result='{"free":true}'),
    events.TurnMeasured(
        turn=1,
        generation=2,
        endpoint_delay_ms=500.0,
        stt_final_ms=20.0,
        llm_ttft_ms=1.0,
        first_sentence_ms=1.0,
        tts_ttfb_ms=5.0,
        edge_ms=1.0,
        turn_latency_ms=528.0,
    ),
    events.KeyPressed(digit="5", at=14.0),
    events.ProviderFailed(
        stage="tts", provider="acme", model="m", kind="stall", text="silent", attempt=1, then="fallback", to="local"
    ),
    events.CallBilled(items=(events.CostItem(stage="stt", provider="acme", audio_s=2.5, usd=0.25),), usd=0.25),
    events.CallEnded(reason="assistant-ended-call", duration_s=20.5, frames_in=1000, audio_ms_out=8000),
]

MEDIA = MediaFrame(Codec.PCM16, 8000, Flag.REPLAY, 1, 40, 1_700_000_000_000_000, bytes(range(8)))
AUDIO = AudioChunk(Codec.MULAW, 8000, Flag.LAST, 1, 7, 1_700_000_000_000_000, 2, 3, bytes(range(8)))


def golden(name: str, written: bytes) -> bytes:
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN") and not path.exists():
        path.write_bytes(written)
    return path.read_bytes()


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_is_written_as_ever_and_read_back(message):
    written = golden(f"{type(message).__name__}.json", codec.encode(message))
    assert codec.encode(message) == written
    assert msgspec.json.decode(written, type=type(message)) == message


def test_a_record_and_a_recap_are_written_as_ever_and_read_back():
    record = golden("CallRecord.json", codec.encode(RECORD))
    assert codec.encode(RECORD) == record
    assert codec.decode(codec.RECORD, record) == RECORD
    takes_over = messages.Claim(call=CALL, stage="brain", epoch=2, edge="edge-aaaaaaaa", agent=AGENT, recap=RECAP)
    claim = golden("Claim.takes-over.json", codec.encode(takes_over))
    assert codec.encode(takes_over) == claim
    assert codec.decode(codec.CLAIM, claim) == takes_over


@pytest.mark.parametrize("fact", FACTS, ids=lambda f: type(f).__name__)
def test_a_fact_is_written_as_ever_and_read_back(fact):
    event = events.Event(id="e1", call=CALL, wall_at=1.5, fact=fact)
    written = golden(f"event.{events.kind_of(fact)}.json", codec.encode(event))
    assert codec.encode(event) == written
    assert codec.decode(codec.EVENT, written) == event


@pytest.mark.parametrize("path", sorted((GOLDEN / "older").iterdir()), ids=lambda path: path.name)
def test_what_an_older_process_writes_is_read_as_it_meant_it(path):
    name = path.name.partition(".")[0]
    meant = next(message for message in MESSAGES if type(message).__name__ == name)
    assert msgspec.json.decode(path.read_bytes(), type=type(meant)) == meant


def test_frames_are_written_as_ever_and_read_back():
    assert pack_media(MEDIA) == golden("media.bin", pack_media(MEDIA))
    assert unpack_media(pack_media(MEDIA)) == MEDIA
    assert pack_audio(AUDIO) == golden("audio.bin", pack_audio(AUDIO))
    assert unpack_audio(pack_audio(AUDIO)) == AUDIO
    assert (MEDIA_HEADER_BYTES, AUDIO_HEADER_BYTES) == (24, 32)


def test_every_message_and_fact_has_a_golden_file():
    assert {type(fact) for fact in FACTS} == set(get_args(events.Fact))
    unions = (
        messages.SpeechMessage,
        messages.PlayoutMessage,
        messages.ClaimReply,
        messages.SpokenMessage,
        messages.ControlMessage,
    )
    assert {kind for union in unions for kind in get_args(union)} <= {type(message) for message in MESSAGES}


@given(st.binary(max_size=80))
def test_no_bytes_do_more_harm_than_a_bad_frame(data):
    for unpack in (unpack_media, unpack_audio):
        try:
            unpack(data)
        except BadFrame:
            continue


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "0 bytes, shorter"),
        (b"\x02" + pack_media(MEDIA)[1:], "version 2"),
        (b"\x01\x09" + pack_media(MEDIA)[2:], "codec 9"),
        (pack_media(MEDIA)[:-1], "no whole number"),
        (pack_media(MEDIA._replace(sample_rate_hz=0)), "sample rate 0"),
        (pack_media(MEDIA._replace(payload=bytes(70_000))), "more than 65536"),
    ],
)
def test_a_bad_frame_says_what_is_wrong(data, why):
    with pytest.raises(BadFrame, match=why):
        unpack_media(data)


def test_a_newer_sender_may_add_fields():
    newer = b'{"type":"say","epoch":1,"generation":2,"utterance":3,"text":"Hi","mood":"merry"}'
    assert codec.decode_story("speak", newer) == messages.Say(epoch=1, generation=2, utterance=3, text="Hi")


@pytest.mark.parametrize(
    ("topic", "data"),
    [("speak", b"{"), ("speak", b'{"type":"say"}'), ("speech", b'{"type":"sang"}'), ("song", b"{}")],
)
def test_what_is_no_message_says_where(topic, data):
    with pytest.raises(BadMessage):
        codec.decode_story(topic, data)


def test_the_id_of_a_call_follows_from_the_carriers_and_tells_nothing_of_it():
    assert call_id_of("twilio", "CA1") == call_id_of("twilio", "CA1") != call_id_of("twilio", "CA2")
    assert len(call_id_of("twilio", "a.b *>")) == 26
    assert subjects.media(new_worker_id("stt"), call_id_of("twilio", "a.b *>")).count(".") == 2


@pytest.mark.parametrize("token", ["", "a.b", "*", ">", "a b", "x" * 65, "é"])
def test_no_outside_text_becomes_a_subject_token(token):
    with pytest.raises(ValueError, match="subject token"):
        subjects.speech(token)
