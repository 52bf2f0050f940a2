"""A made-up call, told as a log and a recording, becomes a report."""

import msgspec
import numpy as np
import pytest

from trunkline.call import CallResult, Seen, Spoken, Verdict
from trunkline.demo.build import build, with_verdicts
from trunkline.demo.expect import promises
from trunkline.demo.hearing import Channel
from trunkline.demo.report import Report
from trunkline.demo.watch import record_of, utterance_of
from trunkline.proto.events import (
    AgentSpoke,
    CallEnded,
    CallerBargedIn,
    CallerSpoke,
    CallStarted,
    Event,
    ToolCalled,
    ToolReturned,
    TurnMeasured,
    kind_of,
)
from trunkline.proto.messages import (
    FinalTranscript,
    Interrupt,
    PartialTranscript,
    PlayoutCut,
    PlayoutStarted,
    Say,
)

pytestmark = pytest.mark.unit

BEGAN_AT = 1_700_000_000.0


def tone(*stretches_s, seconds=12.0, amplitude=6_000):
    samples = np.zeros(int(seconds * 8_000), np.int16)
    for begin_s, end_s in stretches_s:
        time_s = np.arange(int((end_s - begin_s) * 8_000)) / 8_000
        at = int(begin_s * 8_000)
        samples[at : at + time_s.size] = amplitude * np.cos(2 * np.pi * 500 * time_s)
    return samples


def story(at_s, message):
    return Seen(at_s, "bus", "story", str(type(message).__struct_config__.tag), message)


def event(at_s, fact):
    return Seen(at_s, "bus", "event", kind_of(fact), Event(id="e", call="c", wall_at=BEGAN_AT + at_s, fact=fact))


def line(at_s, what, text=""):
    return Seen(at_s, "line", what, text)


def measured(turn, generation):
    parts = [600.0, 20.0, 2.0, 1.0, 30.0, 7.0]
    return TurnMeasured(
        turn=turn,
        generation=generation,
        endpoint_delay_ms=parts[0],
        stt_final_ms=parts[1],
        llm_ttft_ms=parts[2],
        first_sentence_ms=parts[3],
        tts_ttfb_ms=parts[4],
        edge_ms=parts[5],
        turn_latency_ms=sum(parts),
    )


# The greeting is heard from 0.5 to 1.5 s. The caller speaks from 2 to 3 s and is answered at 3.7 s with two sentences,
# the first until 5 s. At 5.6 s the caller barges in, the clear comes at 5.9 s. The last answer lasts from 7.5 to 9 s.
LOG = (
    line(0.0, "start"),
    event(0.0, CallStarted(agent="restaurant", carrier="twilio", carrier_call="CA1", edge="edge-1")),
    story(0.3, Say(epoch=1, generation=1, utterance=1, text="Hello there.")),
    story(0.5, PlayoutStarted(generation=1, utterance=1, synthesised_at=BEGAN_AT, sent_at=BEGAN_AT + 0.48)),
    line(0.6, "mark-received", "1.1"),
    line(1.5, "mark-returned", "1.1"),
    event(1.6, AgentSpoke(turn=0, generation=1, said="Hello there.", heard="Hello there.", interrupted=False,
                          started_at=BEGAN_AT + 0.5, ended_at=BEGAN_AT + 1.5)),
    story(2.5, PartialTranscript(epoch=1, utterance=90, text="a table")),
    story(3.62, FinalTranscript(epoch=1, utterance=90, text="a table please", committed=1,
                                onset_at=BEGAN_AT + 2.05, offset_at=BEGAN_AT + 2.98)),
    event(3.63, CallerSpoke(turn=1, utterances=(90,), text="a table please",
                            onset_at=BEGAN_AT + 2.05, offset_at=BEGAN_AT + 2.98)),
    event(3.64, ToolCalled(turn=1, tool_call="t1", name="check_table", arguments='{"party": "two"}')),
    event(3.65, ToolReturned(turn=1, tool_call="t1", name="check_table", took_ms=4.2, result='{"free": "yes"}')),
    story(3.66, Say(epoch=1, generation=2, utterance=2, text="With pleasure, of course.")),
    story(3.66, Say(epoch=1, generation=2, utterance=3, text="For which day would you like the table to be kept?")),
    story(3.66, Say(epoch=1, generation=2, utterance=4, text="We open at six.")),
    story(3.7, PlayoutStarted(generation=2, utterance=2, synthesised_at=BEGAN_AT + 3.6, sent_at=BEGAN_AT + 3.68)),
    event(3.7, measured(1, 2)),
    story(3.8, PlayoutStarted(generation=2, utterance=3, synthesised_at=BEGAN_AT + 3.7, sent_at=BEGAN_AT + 3.8)),
    line(5.0, "mark-returned", "2.2"),
    line(5.9, "clear", "2000 ms dropped"),
    line(5.9, "mark-returned", "2.3"),
    story(5.9, Interrupt(epoch=1, generation=3, reason="barge-in", onset_at=BEGAN_AT + 5.6)),
    story(5.91, PlayoutCut(generation=2, utterance=3, heard_ms=880, total_ms=2_900, complete=True)),
    event(5.92, CallerBargedIn(turn=1, generation=3, onset_at=BEGAN_AT + 5.62, at=BEGAN_AT + 5.9)),
    event(5.93, AgentSpoke(turn=1, generation=2,
                           said="With pleasure, of course. For which day would you like the table to be kept?",
                           heard="With pleasure, of course. For which day", interrupted=True,
                           started_at=BEGAN_AT + 3.7, ended_at=BEGAN_AT + 5.9)),
    story(7.2, FinalTranscript(epoch=1, utterance=280, text="no tree", committed=2,
                               onset_at=BEGAN_AT + 5.65, offset_at=BEGAN_AT + 6.8)),
    event(7.3, CallerSpoke(turn=2, utterances=(280,), text="no tree",
                           onset_at=BEGAN_AT + 5.65, offset_at=BEGAN_AT + 6.8)),
    story(7.4, Say(epoch=1, generation=3, utterance=5, text="Goodbye!")),
    story(7.5, PlayoutStarted(generation=3, utterance=5, synthesised_at=BEGAN_AT + 7.4, sent_at=BEGAN_AT + 7.48)),
    event(7.5, measured(2, 3)),
    line(9.0, "mark-returned", "3.5"),
    event(9.1, AgentSpoke(turn=2, generation=3, said="Goodbye!", heard="Goodbye!", interrupted=False,
                          started_at=BEGAN_AT + 7.5, ended_at=BEGAN_AT + 9.0)),
    event(9.2, CallEnded(reason="agent-hung-up", duration_s=9.4)),
)  # fmt: skip

RIGHT_S = [(0.5, 1.5), (3.7, 5.0), (5.02, 5.92), (7.5, 8.98)]
LEFT_S = [(2.0, 3.0), (5.6, 6.8)]


def result_of(log=LOG, right=None):
    return CallResult(
        scenario="booking",
        call="c",
        call_sid="CA1",
        started_at=BEGAN_AT,
        duration_s=9.4,
        ended_by="agent",
        close_code=1000,
        problem=None,
        spoken=(
            Spoken(step=1, words="a table please", start_s=2.0, end_s=3.0),
            Spoken(step=2, words="no three", start_s=5.6, end_s=6.8, barge_in=True),
        ),
        verdicts=(Verdict(name="scenario played", expected="to its end", found="to its end", passed=True),),
        log=log,
        latest_ms=3.0,
        left=tone(*LEFT_S, seconds=9.4),
        right=tone(*RIGHT_S, seconds=9.4) if right is None else right,
    )


class TestChannels:
    side = Channel(tone((1.0, 2.0), (3.0, 3.5)), 8_000)

    def test_sounds_are_found_to_the_sample(self):
        assert self.side.first_sound(0, 12_000) == 1_000
        assert self.side.last_sound(0, 12_000) == 3_500
        assert self.side.last_sound(0, 2_500) == 2_000
        assert self.side.first_sound(2_200, 2_900) is None

    def test_voice_is_counted_between_two_moments(self):
        assert self.side.audible_ms(1_500, 3_200) == 700
        assert self.side.audible_ms(2_100, 2_900) == 0

    def test_the_level_is_that_of_the_voice_not_of_the_pauses(self):
        level = self.side.level()
        assert level.voiced_ms == 1_500
        assert level.rms_dbfs == pytest.approx(-17.8, abs=0.2)
        assert Channel(tone(), 8_000).level().rms_dbfs == -120.0


class TestRecords:
    record = record_of(LOG, BEGAN_AT)

    def test_an_utterance_is_played_when_its_mark_came_back(self):
        assert self.record.utterances[2].played_ms == 5_000

    def test_a_mark_that_a_clear_returned_was_not_played(self):
        assert self.record.utterances[3].played_ms is None
        assert self.record.utterances[3].cut.heard_ms == 880

    def test_marks_name_their_utterance(self):
        assert [utterance_of(mark) for mark in ("3.12", "x.y", "", "4")] == [12, -1, -1, -1]


class TestReports:
    report = build(result_of())

    def test_turns_are_those_of_the_call(self):
        assert [turn.turn for turn in self.report.turns] == [0, 1, 2]
        greeting, first, second = self.report.turns
        assert greeting.caller is None
        assert greeting.latency is None
        assert first.caller.said_by_scenario == first.caller.transcript == "a table please"
        assert (first.caller.wer, second.caller.wer) == (0.0, 0.5)

    def test_words_so_far_and_words_that_stand_are_told_apart(self):
        caller = self.report.turns[1].caller
        assert [(partial.at_ms, partial.text) for partial in caller.partials] == [(2_500, "a table")]
        assert caller.final_ms == 3_620

    def test_latency_is_measured_on_the_recording_too(self):
        latency = self.report.turns[1].latency
        assert latency.measured_ms == 700
        assert latency.turn_latency_ms == 660.0

    def test_sentences_stand_where_they_were_heard(self):
        sentences = self.report.turns[1].agent.sentences
        assert [(s.starts_ms, s.ends_ms) for s in sentences[:2]] == [(3_700, 5_000), (5_020, 5_920)]
        assert sentences[0].unheard_ms == 0
        assert sentences[1].unheard_ms == 2_900 - 900

    def test_a_sentence_that_never_began_is_all_unheard(self):
        last = self.report.turns[1].agent.sentences[2]
        assert last.starts_ms == last.ends_ms == 5_900
        assert 500 < last.unheard_ms < 1_500

    def test_a_barge_in_has_its_moments(self):
        (cut,) = self.report.interrupts
        assert (cut.turn, cut.at_ms, cut.cleared_ms, cut.stopped_after_ms) == (1, 5_600, 5_900, 320)
        assert cut.old_generation_audio_after_clear_ms == 0

    def test_old_audio_after_the_clear_is_found(self):
        leaky = build(result_of(right=tone(*RIGHT_S, (6.2, 6.5), seconds=9.4)))
        assert leaky.interrupts[0].old_generation_audio_after_clear_ms == 300
        assert any("old audio" in verdict.name and not verdict.passed for verdict in promises(leaky))

    def test_tools_are_told_with_what_went_in_and_came_out(self):
        (tool,) = self.report.tools
        assert (tool.arguments, tool.result, tool.took_ms, tool.error) == ({"party": "two"}, {"free": "yes"}, 4.2, "")

    def test_totals_add_up(self):
        totals = self.report.totals
        assert (totals.caller_turns, totals.barge_ins, totals.tool_calls) == (2, 1, 1)
        assert (totals.mean_wer, totals.worst_wer) == (0.25, 0.5)
        assert totals.p50_measured_latency_ms == 700.0

    def test_it_survives_the_way_through_json(self):
        assert msgspec.json.decode(msgspec.json.encode(self.report), type=Report) == self.report

    def test_a_call_of_which_nothing_was_seen_still_has_a_report(self):
        empty = build(result_of(log=()))
        assert empty.turns == ()
        assert empty.totals.p50_turn_latency_ms is None


class TestPromises:
    def verdicts(self, report):
        return {verdict.name: verdict.passed for verdict in promises(report)}

    def test_what_held_and_what_did_not(self):
        verdicts = self.verdicts(build(result_of()))
        assert not verdicts.pop("caller turns")
        assert not verdicts.pop("every turn transcribed as spoken")
        assert all(verdicts.values())

    def test_a_goodbye_that_was_cut_is_no_goodbye(self):
        cut = tuple(
            event(9.1, msgspec.structs.replace(seen.message.fact, heard="Good", interrupted=True))
            if seen.text == "agent.spoke" and seen.at_s > 9
            else seen
            for seen in LOG
        )
        assert not self.verdicts(build(result_of(log=cut)))["goodbye heard in full before hanging up"]

    def test_a_call_that_ended_twice_breaks_one(self):
        assert not self.verdicts(build(result_of(log=(*LOG, LOG[-1]))))["call.ended"]

    def test_a_report_passes_only_if_every_verdict_does(self):
        report = build(result_of())
        assert report.passed
        assert not with_verdicts(report, promises(report)).passed
