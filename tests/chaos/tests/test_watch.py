import asyncio
import random

import msgspec
import pytest

from trunkline.chaos.watch import Watch
from trunkline.proto.events import CallEnded, CallStarted, Event, StageAssigned, ToolCalled, ToolReturned
from trunkline.proto.messages import Assigned, PlayoutFinished, PlayoutStarted, SpeechStarted, TurnEnded

pytestmark = pytest.mark.unit

CALL = "a-call"


def told(watch, *facts):
    for number, fact in enumerate(facts):
        event = Event(id=str(number), call=CALL, wall_at=0.0, fact=fact)
        watch.on_event("events.x", msgspec.json.encode(event))


def said(watch, topic, message):
    watch.on_story(f"call.{CALL}.{topic}", msgspec.json.encode(message))
    return watch.calls[CALL].state


def watching():
    watch = Watch()
    told(
        watch,
        CallStarted(agent="chaos", carrier="twilio", carrier_call="CA1", edge="edge-1"),
        StageAssigned(stage="tts", worker="tts-1", epoch=1, claim_ms=1),
    )
    return watch


def test_a_call_goes_through_its_states():
    watch = watching()
    assert said(watch, "speech", SpeechStarted(epoch=1, utterance=5, onset_at=0)) == "hearing"
    ended = TurnEnded(epoch=1, utterance=5, speech_ended_at=0, endpoint_at=0, final_at=0)
    assert said(watch, "speech", ended) == "thinking"
    told(watch, ToolCalled(turn=1, tool_call="t", name="ledger", arguments="{}"))
    assert watch.calls[CALL].state == "tool"
    told(watch, ToolReturned(turn=1, tool_call="t", name="ledger", took_ms=1))
    started = PlayoutStarted(generation=1, utterance=1, synthesised_at=0, sent_at=0)
    assert said(watch, "playout", started) == "speaking"
    assert said(watch, "playout", PlayoutFinished(generation=1, utterance=1, heard_ms=1)) == "idle"
    told(watch, CallEnded(reason="x", duration_s=1))
    assert watch.calls == {}


def test_who_was_assigned_last_serves():
    watch = watching()
    said(watch, "assigned", Assigned(stage="tts", epoch=2, worker="tts-2"))
    said(watch, "assigned", Assigned(stage="tts", epoch=1, worker="tts-1"))
    assert watch.calls[CALL].worker("tts") == "tts-2"


def test_nobody_in_that_state_is_waited_for_in_vain():
    with pytest.raises(TimeoutError):
        asyncio.run(watching().ripe("speaking", "tts", random.SystemRandom(), timeout_s=0.01))


def test_what_is_no_message_is_passed_over():
    watch = watching()
    watch.on_story(f"call.{CALL}.speech", b"{}")
    watch.on_event("events.x", b"nonsense")
