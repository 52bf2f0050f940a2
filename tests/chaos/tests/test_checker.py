"""A checker that cannot fail is worth nothing: every rule is broken once here, and must say so."""

import pytest

from trunkline.chaos.checker import RULES, SEEN, check
from trunkline.chaos.codebook import LINES, answer, words_in
from trunkline.chaos.evidence import CallerRecord, Evidence, Fault
from trunkline.chaos.script import QUESTIONS
from trunkline.proto.events import CallEnded, ToolReturned

from .fabricated import CALL, FRAME_S, FRAMES, but, caller_but, effect, event, good, note, spoke, words_from

pytestmark = pytest.mark.unit

GOOD = good()
CALLER = GOOD.callers[0]
AT = 20
"""The place, among all words heard, of one in the midst of an answer."""
WORD = CALLER.words[AT]


def rules_broken(evidence, **settings):
    return {violation.rule for violation in check(evidence, **settings).violations}


def without(*places):
    return tuple(word for at, word in enumerate(CALLER.words) if at not in places)


def notes_but(change):
    return but(GOOD, notes=tuple(changed for one in GOOD.notes for changed in change(one)))


def with_notes(*more):
    return but(GOOD, notes=tuple(sorted((*GOOD.notes, *more), key=lambda one: one.t)))


def events_but(change):
    return but(GOOD, events=tuple(changed for one in GOOD.events for changed in change(one)))


def test_a_call_in_which_nothing_went_wrong_is_clean():
    findings = check(GOOD)
    assert findings.violations == ()
    assert findings.clean
    assert findings.calls == 1


# --- the agent's words -----------------------------------------------------------------------------------------------


def test_a_word_not_heard():
    assert rules_broken(caller_but(GOOD, words=without(AT))) == {"agent-word-lost"}


def test_a_word_of_which_less_than_half_was_heard():
    words = (*CALLER.words[:AT], WORD._replace(frames=3), *CALLER.words[AT + 1 :])
    assert rules_broken(caller_but(GOOD, words=words)) == {"agent-word-lost"}


def test_the_last_words_not_heard():
    assert rules_broken(caller_but(GOOD, words=CALLER.words[:-3])) == {"agent-word-lost"}


def test_nothing_heard_at_all():
    findings = check(caller_but(GOOD, words=()))
    assert {violation.rule for violation in findings.violations} == {"agent-word-lost"}
    assert findings.vacuous


def test_a_word_heard_twice():
    words = (*CALLER.words[: AT + 1], WORD._replace(at_s=WORD.end_s, end_s=WORD.end_s + 0.16), *CALLER.words[AT + 1 :])
    assert rules_broken(caller_but(GOOD, words=words)) == {"agent-word-twice"}


def test_a_scrap_of_a_word_said_again_is_counted():
    scrap = WORD._replace(at_s=WORD.at_s - 0.5, end_s=WORD.at_s - 0.44, frames=3)
    findings = check(caller_but(GOOD, words=(*CALLER.words[:AT], scrap, *CALLER.words[AT:])))
    assert findings.clean
    assert findings.counts["agent words begun twice"] == 1


def test_words_in_another_order():
    swapped = (*CALLER.words[:AT], CALLER.words[AT + 1], WORD, *CALLER.words[AT + 2 :])
    assert rules_broken(caller_but(GOOD, words=swapped)) == {"agent-word-order"}


def test_another_calls_word():
    stranger = next(word for word in answer("another", 0) if word not in {heard.text for heard in CALLER.words})
    words = (*CALLER.words, *words_from(CALLER.ended_t - 0.4, [stranger]))
    assert rules_broken(caller_but(GOOD, words=words)) == {"agent-word-strange"}


@pytest.mark.parametrize("line", ["apology", "farewell", "busy", "spent", "reprompt", "silence_goodbye", "unasked"])
def test_a_line_that_a_healthy_call_has_no_use_for(line):
    words = (*CALLER.words, *words_from(CALLER.ended_t - 2, words_in(getattr(LINES, line))))
    assert rules_broken(caller_but(GOOD, words=words)) == {f"agent-line-{line}"}


def test_fillers_are_no_harm():
    words = (*CALLER.words, *words_from(CALLER.ended_t - 2, words_in(LINES.filler)))
    findings = check(caller_but(GOOD, words=words))
    assert findings.clean
    assert findings.counts["filler words"] == 2


def test_an_apology_for_a_lost_line_needs_a_lost_line():
    words = (*CALLER.words, *words_from(CALLER.ended_t - 2, words_in(LINES.resumed)))
    assert rules_broken(caller_but(GOOD, words=words)) == {"agent-line-resumed"}
    assert not rules_broken(caller_but(GOOD, words=words, gaps=((5.0, 6.0),)))


def test_two_words_at_once():
    assert rules_broken(caller_but(GOOD, two_voices=((5.0, 5.1),))) == {"two-voices"}


def changed_voice(t):
    return note(t, "edge-1", "assigned", stage="tts", worker="tts-2", epoch=2)


def later_voice(one):
    """Let everything played from `WORD` on be the second voice's."""
    return [but(one, epoch=2)] if one.what == "audio" and one.t > WORD.at_s - 0.15 else [one]


def test_one_word_may_be_lost_with_a_voice():
    evidence = notes_but(later_voice)
    lost = but(evidence, notes=tuple(sorted((*evidence.notes, changed_voice(WORD.at_s - 0.2)), key=lambda n: n.t)))
    one = check(caller_but(lost, words=without(AT)))
    assert one.clean
    assert one.counts["agent words lost with a voice"] == 1
    assert rules_broken(caller_but(lost, words=without(AT, AT + 1))) == {"agent-word-lost"}
    assert rules_broken(caller_but(lost, words=without(AT + 12))) == {"agent-word-lost"}


def test_words_may_be_lost_with_the_line_and_not_elsewhere():
    gap = (WORD.at_s, WORD.at_s + 0.1)
    findings = check(caller_but(GOOD, words=without(AT, AT + 1), gaps=(gap,)))
    assert findings.clean
    assert findings.counts["agent words lost with the line"] == 2
    assert rules_broken(caller_but(GOOD, words=without(AT + 15), gaps=(gap,))) == {"agent-word-lost"}


# --- the caller's words ----------------------------------------------------------------------------------------------


def said_as(*texts):
    def change(one):
        turn = getattr(one.fact, "turn", 0)
        if one.id not in ("2", "3"):
            return [one]
        return [event(one.id, spoke(turn, texts[turn - 1]))] if texts[turn - 1] is not None else []

    return events_but(change)


def test_a_caller_word_lost():
    assert rules_broken(said_as("when are open", "i would like to book a table")) == {"caller-word-lost"}


def test_a_caller_turn_lost():
    assert "caller-word-lost" in rules_broken(said_as(None, "i would like to book a table"))


def test_a_caller_word_told_twice():
    assert rules_broken(said_as("when are you open open", "i would like to book a table")) == {"caller-word-twice"}


def test_a_caller_misheard():
    assert rules_broken(said_as("when are you open", "tomorrow evening")) == {"caller-misheard"}


def test_a_caller_who_could_not_ask_everything():
    assert "script-broken-off" in rules_broken(caller_but(GOOD, problem="no answer"))
    assert "script-broken-off" in rules_broken(caller_but(GOOD, ended_by="application"))


# --- sound on its way ------------------------------------------------------------------------------------------------


def late_audio(**fields):
    last = max(one.t for one in GOOD.notes if one.what == "audio")
    return note(
        last + 0.01,
        "edge-1",
        "audio",
        **{"epoch": 1, "generation": 1, "utterance": 1, "seq": 9_999, "verdict": "played"} | fields,
    )


@pytest.mark.parametrize("fields", [{"seq": 0}, {"utterance": 0}, {"generation": 0}])
def test_sound_that_goes_back(fields):
    assert rules_broken(with_notes(late_audio(**fields))) == {"two-speakers"}


def test_the_edges_own_clips_are_of_no_epoch():
    findings = check(with_notes(late_audio(epoch=0)))
    assert findings.clean
    assert findings.counts["chunks of the edge's own clips played"] == 1


def test_two_epochs_in_turns():
    evidence = with_notes(
        late_audio(epoch=2), but(late_audio(seq=10_000), t=late_audio().t + 0.01), changed_voice(late_audio().t - 0.001)
    )
    assert rules_broken(evidence) == {"two-speakers", "stale-played"}


def test_stale_sound_played():
    assert rules_broken(with_notes(changed_voice(late_audio().t - 0.005), late_audio())) == {"stale-played"}


def test_stale_sound_fenced():
    findings = check(with_notes(changed_voice(late_audio().t - 0.005), late_audio(verdict="stale-epoch")))
    assert findings.clean
    assert findings.counts["chunks fenced: stale-epoch"] == 1


def test_a_frame_nobody_heard():
    evidence = notes_but(lambda one: [] if one.what == "heard" and one.seq == 77 else [one])
    assert rules_broken(evidence) == {"frame-lost"}


def test_a_frame_nobody_heard_but_done_with():
    evidence = notes_but(lambda one: [] if one.what == "heard" and one.seq == 77 else [one])
    done = note(5.0, "stt-1", "final", epoch=1, committed=80)
    assert not rules_broken(but(evidence, notes=(*evidence.notes, done)))


def test_a_frame_that_went_down_with_its_edge():
    evidence = notes_but(lambda one: [] if one.what == "heard" and one.seq == 77 else [one])
    (frame,) = [one for one in evidence.notes if one.what == "frame" and one.seq == 77]
    kill = Fault(t=frame.t + 0.01, kind="edge-kill", service="edge", worker=frame.who)
    findings = check(but(evidence, faults=(kill,)))
    assert findings.clean
    assert findings.counts["frames that went down with their edge"] == 1
    for other in (but(kill, t=frame.t + 0.2), but(kill, worker="edge-2"), but(kill, service="stt")):
        assert rules_broken(but(evidence, faults=(other,))) == {"frame-lost"}


def test_the_frames_of_an_outage_in_which_the_call_ended_need_not_be_heard():
    last = 0.7 + (FRAMES - 1) * FRAME_S
    evidence = notes_but(lambda one: [] if one.what == "heard" and one.t > last - 1.0 else [one])
    assert rules_broken(evidence) == {"frame-lost"}
    outage = Fault(t=last - 0.9, kind="nats-restart", service="nats", until_t=last + 0.1)
    assert not rules_broken(but(evidence, faults=(outage,)))
    assert rules_broken(but(evidence, faults=(but(outage, t=5.0, until_t=5.5),))) == {"frame-lost"}


def test_a_frame_heard_by_the_next_worker():
    def change(one):
        heard_later = one.what == "heard" and one.seq > 300
        return [but(one, who="stt-2", epoch=2, t=one.t + 0.3)] if heard_later else [one]

    assert not rules_broken(notes_but(change))


def test_a_frame_never_sent():
    evidence = notes_but(lambda one: [] if one.what in ("frame", "heard") and one.seq in (77, 78) else [one])
    assert rules_broken(evidence) == {"frame-not-sent"}
    assert not rules_broken(caller_but(evidence, gaps=((2.0, 2.1),)))


def test_the_first_frames_never_sent():
    evidence = notes_but(lambda one: [] if one.what in ("frame", "heard") and one.seq < 5 else [one])
    assert rules_broken(evidence) == {"frame-not-sent"}


def test_the_last_frames_need_not_be_heard():
    assert not rules_broken(notes_but(lambda one: [] if one.what == "heard" and one.seq > FRAMES - 13 else [one]))


# --- tools -----------------------------------------------------------------------------------------------------------


def test_a_tool_that_ran_twice_under_one_key():
    assert rules_broken(but(GOOD, effects=(effect(), effect(t=9.5)))) == {"tool-twice"}


def test_a_tool_that_ran_twice_under_two_keys():
    assert rules_broken(but(GOOD, effects=(effect(), effect(key="a-call:2:led-2", t=9.5)))) == {"tool-twice"}


def test_a_tool_that_never_ran():
    assert "tool-lost" in rules_broken(but(GOOD, effects=()))


def told_unknown(one):
    if not isinstance(one.fact, ToolReturned):
        return [one]
    return [but(one, fact=but(one.fact, result="", error="the outcome is not known"))]


def test_a_tool_whose_outcome_is_not_known():
    unknown = events_but(told_unknown)
    assert not rules_broken(unknown)
    assert not rules_broken(but(unknown, effects=()))
    assert rules_broken(but(unknown, effects=(effect(), effect(t=9.5)))) == {"tool-twice"}


def test_a_tool_nobody_asked_for():
    (first, _) = CALLER.asked
    words = tuple(word for word in CALLER.words if word.at_s < CALLER.asked[1].began_t)
    evidence = caller_but(said_as("when are you open", None), asked=(first,), words=words)
    assert rules_broken(but(evidence, stored=None)) == {"tool-unasked"}


def test_a_tool_that_did_not_return():
    evidence = events_but(lambda one: [] if one.id == "5" else [one])
    assert rules_broken(but(evidence, stored=None)) == {"tool-facts"}


# --- facts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("identity", "kind"), [("1", "call.started"), ("7", "call.ended"), ("6", "call.billed")])
def test_a_fact_missing(identity, kind):
    broken = rules_broken(but(events_but(lambda one: [] if one.id == identity else [one]), stored=None))
    assert f"fact-{kind}" in broken


def test_a_fact_delivered_twice():
    assert rules_broken(but(GOOD, events=(*GOOD.events[:3], *GOOD.events[2:]))) >= {"fact-twice"}


def test_two_ends_of_a_call():
    ends = event("8", CallEnded(reason="customer-ended-call", duration_s=20.0))
    assert "fact-call.ended" in rules_broken(but(GOOD, events=(*GOOD.events, ends)))


def test_a_fact_behind_the_end():
    events = (*GOOD.events[:5], GOOD.events[6], GOOD.events[5])
    assert rules_broken(but(GOOD, events=events)) == {"fact-order"}


def test_a_turn_that_has_no_number():
    def change(one):
        return [event("3", but(one.fact, turn=3))] if one.id == "3" else [one]

    assert rules_broken(events_but(change)) == {"fact-turns"}


def test_a_call_that_ended_for_another_reason():
    def change(one):
        return [event("7", CallEnded(reason="brain-lost", duration_s=20.0))] if one.id == "7" else [one]

    assert rules_broken(events_but(change)) == {"ended-early"}


def test_a_fact_stored_and_not_delivered():
    assert rules_broken(but(GOOD, stored=(*GOOD.stored, "99"))) == {"fact-not-delivered"}


# --- the run as a whole ----------------------------------------------------------------------------------------------


def test_a_call_refused():
    busy = CallerRecord(call="b-call", sid="CA2", questions=(0,), refused="all lines are busy")
    evidence = but(GOOD, callers=(CALLER, busy))
    assert rules_broken(evidence) == {"refused"}
    assert not rules_broken(evidence, may_refuse=True)


def test_a_call_refused_while_nobody_could_take_it():
    busy = CallerRecord(call="b-call", sid="CA2", questions=(0,), refused="all lines are busy", began_t=5.2)
    evidence = but(GOOD, callers=(CALLER, busy))
    away = Fault(t=5.0, kind="nats-restart", service="nats", until_t=5.6)
    assert not rules_broken(but(evidence, faults=(away,)))
    assert rules_broken(but(evidence, faults=(but(away, t=9.0, until_t=9.6),))) == {"refused"}
    assert rules_broken(but(evidence, faults=(but(away, kind="stt-kill"),))) == {"refused"}


def test_nothing_to_look_at_is_no_proof():
    findings = check(Evidence())
    assert not findings.clean
    assert set(findings.vacuous) == set(SEEN.values())


@pytest.mark.parametrize("what", ["audio", "assigned", "frame", "heard"])
def test_a_journal_without_a_kind_of_note_is_no_proof(what):
    assert not check(notes_but(lambda one: [] if one.what == what else [one])).clean


def test_every_rule_says_what_it_promises():
    assert all(rule.__doc__ for rule in RULES)


def test_a_call_is_judged_by_its_own_evidence():
    other = but(CALLER, call="another-call")
    broken = check(but(GOOD, callers=(CALLER, other))).violations
    assert broken
    assert CALL not in {violation.call for violation in broken}


def test_half_a_question_may_be_taken_for_another_and_answered():
    (first, second) = CALLER.asked
    gap = (first.began_t + 0.2, first.ended_t - 0.2)
    other = next(number for number in range(len(QUESTIONS)) if number not in {first.question, second.question})
    heard = tuple(words_from(CALLER.words[-1].end_s + 1.0, answer(CALL, other)))
    evidence = caller_but(events_but(lambda one: [one]), words=(*CALLER.words, *heard))
    half = event("2a", spoke(1, QUESTIONS[other]))
    answered = but(evidence, events=(evidence.events[0], half, *evidence.events[1:]), stored=None)
    rule = "agent-word-strange"
    assert rule in rules_broken(answered)
    assert rule not in rules_broken(caller_but(answered, gaps=(gap,)))
    assert rule in rules_broken(caller_but(evidence, gaps=(gap,)))


def test_a_question_swallowed_by_a_lost_line_may_be_told_or_not():
    (first, second) = CALLER.asked
    gap = (first.began_t + 0.2, first.ended_t + 0.4)
    once_more = but(first, began_t=first.ended_t + 0.5, ended_t=first.ended_t + 1.5)
    for told in ("do you have vegetarian food when are you open", "open when are you open", "when are you open"):
        evidence = caller_but(
            said_as(told, "i would like to book a table"),
            asked=(first, but(once_more, began_t=9.0, ended_t=9.9), second),
        )
        assert not rules_broken(caller_but(evidence, gaps=(gap,)))
    assert "caller-word-lost" in rules_broken(caller_but(evidence, gaps=()))
