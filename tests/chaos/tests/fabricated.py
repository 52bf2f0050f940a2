"""Evidence of a call in which nothing went wrong, to be falsified by tests."""

import msgspec

from trunkline.chaos.codebook import LINES, WORD_MS, answer, words_in
from trunkline.chaos.ear import WHOLE_FRAMES, HeardWord
from trunkline.chaos.evidence import Asked, CallerRecord, Effect, Evidence, Note
from trunkline.chaos.script import QUESTIONS, WANTS_TOOL
from trunkline.proto.events import (
    CallBilled,
    CallEnded,
    CallerSpoke,
    CallStarted,
    Event,
    ToolCalled,
    ToolReturned,
)
from trunkline.proto.frame import FRAME_MS

CALL = "a-call"
ASKED = (0, WANTS_TOOL)
USUAL_S = 1.0
FRAMES = 625
FRAME_S = FRAME_MS / 1_000


def words_from(at_t, words):
    step = WORD_MS / 1_000
    return [HeardWord(word, at_t + n * step, at_t + n * step + 0.16, WHOLE_FRAMES) for n, word in enumerate(words)]


def caller():
    heard = words_from(1.0, words_in(LINES.greeting))
    asked = []
    t = heard[-1].end_s + 0.5
    for question in ASKED:
        asked.append(Asked(question=question, began_t=t, ended_t=t + 1.0))
        answered = words_from(t + 1.0 + USUAL_S, answer(CALL, question))
        heard += answered
        t = answered[-1].end_s + 0.5
    return CallerRecord(
        call=CALL,
        sid="CA1",
        questions=ASKED,
        asked=tuple(asked),
        words=tuple(heard),
        began_t=0.5,
        ended_t=t,
        ended_by="caller",
    )


def note(t, who, what, **fields):
    return Note(t=t, who=who, what=what, call=CALL, **fields)


def notes():
    found = [
        note(0.6, "edge-1", "assigned", stage="stt", worker="stt-1", epoch=1),
        note(0.6, "edge-1", "assigned", stage="tts", worker="tts-1", epoch=1),
        note(0.6, "edge-1", "assigned", stage="brain", worker="brain-1", epoch=1),
    ]
    found += [note(0.7 + seq * FRAME_S, "edge-1", "frame", epoch=1, seq=seq) for seq in range(FRAMES)]
    found += [note(0.701 + seq * FRAME_S, "stt-1", "heard", epoch=1, seq=seq) for seq in range(FRAMES)]
    found += [
        note(at.at_s - 0.1, "edge-1", "audio", epoch=1, generation=1, utterance=1, seq=n, ms=200, verdict="played")
        for n, at in enumerate(caller().words)
    ]
    return tuple(sorted(found, key=lambda line: line.t))


def event(identity, fact):
    return Event(id=identity, call=CALL, wall_at=0.0, fact=fact)


def spoke(turn, text):
    return CallerSpoke(turn=turn, utterances=(turn,), text=text, onset_at=0, offset_at=0)


def events():
    return (
        event("1", CallStarted(agent="chaos", carrier="twilio", carrier_call="CA1", edge="edge-1")),
        event("2", spoke(1, QUESTIONS[ASKED[0]])),
        event("3", spoke(2, QUESTIONS[ASKED[1]])),
        event("4", ToolCalled(turn=2, tool_call="led-1", name="ledger", arguments="{}")),
        event("5", ToolReturned(turn=2, tool_call="led-1", name="ledger", took_ms=300, result="{}")),
        event("6", CallBilled(items=(), usd=0.0)),
        event("7", CallEnded(reason="customer-ended-call", duration_s=20.0)),
    )


def effect(key="a-call:2:led-1", t=9.0):
    return Effect(key=key, call=CALL, question=WANTS_TOOL, t=t)


def good():
    identities = tuple(one.id for one in events())
    return Evidence(notes=notes(), callers=(caller(),), effects=(effect(),), events=events(), stored=identities)


def but(evidence, **changes):
    return msgspec.structs.replace(evidence, **changes)


def caller_but(evidence, **changes):
    return but(evidence, callers=(but(evidence.callers[0], **changes),))
