"""What the caller has heard: the ledger, with time as a number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.edge.playout import Cut, PlayoutLedger, Speech, Taken, Void
from trunkline.proto.ids import Generation, UtteranceId
from trunkline.proto.messages import PlayoutCut, PlayoutFinished, PlayoutStarted

pytestmark = pytest.mark.unit

WALL = 1_700_000_000.0


def take(ledger, utterance, audio_ms, *, at, last=False, generation=1):
    speech = Speech(Generation(generation), UtteranceId(utterance), audio_ms, last, WALL - 1)
    return ledger.take(speech, at=at, wall_at=WALL + at)


def cut(heard_ms, total_ms, *, utterance=1, generation=1, complete=True):
    return PlayoutCut(
        generation=Generation(generation),
        utterance=UtteranceId(utterance),
        heard_ms=heard_ms,
        total_ms=total_ms,
        complete=complete,
    )


def finished(heard_ms, *, utterance=1, generation=1):
    return PlayoutFinished(generation=Generation(generation), utterance=UtteranceId(utterance), heard_ms=heard_ms)


class TestAnUndisturbedUtterance:
    def test_starts_with_its_first_audio_only(self):
        ledger = PlayoutLedger()
        started = PlayoutStarted(
            generation=Generation(1), utterance=UtteranceId(1), synthesised_at=WALL - 1, sent_at=WALL + 10
        )
        assert take(ledger, 1, 200, at=10.0) == Taken(started, None)
        assert take(ledger, 1, 200, at=10.1) == Taken(None, None)

    def test_gets_its_mark_behind_its_last_audio_and_is_finished_when_that_returns(self):
        ledger = PlayoutLedger()
        take(ledger, 1, 200, at=0.0)
        assert take(ledger, 1, 300, at=0.1, last=True).mark == "1.1"
        assert ledger.returned("1.1", at=0.53) == (finished(500),)
        assert ledger.returned("1.1", at=0.54) == ()

    def test_without_any_audio_is_marked_and_finished_all_the_same(self):
        ledger = PlayoutLedger()
        assert take(ledger, 1, 0, at=0.0, last=True) == Taken(None, "1.1")
        assert ledger.returned("1.1", at=0.0) == (finished(0),)

    def test_takes_nothing_after_its_end(self):
        ledger = PlayoutLedger()
        take(ledger, 1, 200, at=0.0, last=True)
        assert take(ledger, 1, 200, at=0.1) == Void("utterance-over")

    def test_a_returned_mark_finishes_what_came_before_it_as_well(self):
        ledger = PlayoutLedger()
        take(ledger, 1, 200, at=0.0, last=True)
        take(ledger, 2, 300, at=0.0, last=True)
        assert ledger.returned("1.2", at=0.5) == (finished(200), finished(300, utterance=2))

    def test_one_that_stopped_coming_is_cut_when_the_next_one_has_played(self):
        ledger = PlayoutLedger()
        take(ledger, 1, 200, at=0.0)
        take(ledger, 2, 300, at=0.0, last=True)
        assert take(ledger, 1, 100, at=0.1) == Void("utterance-over")
        assert ledger.returned("1.2", at=0.5) == (cut(200, 200, complete=False), finished(300, utterance=2))


class TestAnInterrupt:
    def test_cuts_at_what_has_played_since_the_buffer_began_to_fill(self):
        ledger = PlayoutLedger()
        take(ledger, 1, 2_000, at=10.0, last=True)
        assert ledger.interrupt(Generation(2), at=10.75) == Cut(clear=True, messages=(cut(750, 2_000),))

    def test_never_counts_more_than_there_was(self):
        ledger = PlayoutLedger()
        take(ledger, 1, 500, at=0.0)
        assert ledger.interrupt(Generation(2), at=9.0).messages == (cut(500, 500, complete=False),)

    def test_counts_from_the_last_time_the_buffer_ran_dry(self):
        ledger = PlayoutLedger()
        take(ledger, 1, 500, at=0.0)
        take(ledger, 1, 500, at=3.0)
        assert ledger.interrupt(Generation(2), at=3.1).messages == (cut(600, 1_000, complete=False),)

    def test_does_not_believe_in_what_lies_behind_a_mark_that_is_still_out(self):
        ledger = PlayoutLedger()
        take(ledger, 1, 500, at=0.0, last=True)
        take(ledger, 2, 500, at=0.0, last=True)
        assert ledger.interrupt(Generation(2), at=0.9).messages == (cut(500, 500), cut(0, 500, utterance=2))

    def test_believes_a_mark_more_than_the_clock(self):
        ledger = PlayoutLedger()
        take(ledger, 1, 500, at=0.0, last=True)
        take(ledger, 2, 1_000, at=0.0, last=True)
        ledger.returned("1.1", at=0.8)  # the carrier began 300 ms late
        assert ledger.interrupt(Generation(2), at=1.0).messages == (cut(200, 1_000, utterance=2),)

    def test_makes_marks_that_come_back_meaningless(self):
        ledger = PlayoutLedger()
        take(ledger, 1, 2_000, at=0.0, last=True)
        ledger.interrupt(Generation(2), at=0.1)
        assert ledger.returned("1.1", at=0.15) == ()

    def test_voids_what_still_comes_of_the_old_generation_and_not_of_the_new(self):
        ledger = PlayoutLedger()
        take(ledger, 1, 200, at=0.0)
        ledger.interrupt(Generation(2), at=0.1)
        assert take(ledger, 1, 200, at=0.2) == Void("old-generation")
        assert take(ledger, 7, 200, at=0.2) == Void("old-generation")
        assert isinstance(take(ledger, 8, 200, at=0.2, generation=2), Taken)
        assert ledger.floor == 2

    def test_is_nothing_new_the_second_time(self):
        ledger = PlayoutLedger()
        take(ledger, 1, 200, at=0.0)
        ledger.interrupt(Generation(3), at=0.1)
        take(ledger, 2, 200, at=0.2, generation=3)
        assert ledger.interrupt(Generation(3), at=0.3) == Cut(clear=False, messages=())
        assert ledger.interrupt(Generation(2), at=0.3) == Cut(clear=False, messages=())

    def test_clears_nothing_when_only_the_new_generation_plays(self):
        ledger = PlayoutLedger()
        take(ledger, 1, 200, at=0.0, generation=2)
        assert ledger.interrupt(Generation(2), at=0.1) == Cut(clear=False, messages=())
        assert ledger.interrupt(Generation(3), at=0.15).clear

    def test_takes_the_new_generation_with_it_when_both_are_in_the_buffer(self):
        ledger = PlayoutLedger()
        take(ledger, 1, 200, at=0.0, generation=1, last=True)
        take(ledger, 2, 200, at=0.0, generation=2)
        interrupted = ledger.interrupt(Generation(2), at=0.1)
        assert interrupted.clear
        assert interrupted.messages == (cut(100, 200), cut(0, 200, utterance=2, generation=2, complete=False))
        assert take(ledger, 2, 200, at=0.2, generation=2) == Void("utterance-over")

    def test_starts_the_next_utterance_at_its_own_beginning(self):
        ledger = PlayoutLedger()
        take(ledger, 1, 5_000, at=0.0, last=True)
        ledger.interrupt(Generation(2), at=1.0)
        take(ledger, 2, 1_000, at=1.5, generation=2)
        messages = ledger.interrupt(Generation(3), at=1.7).messages
        assert messages == (cut(200, 1_000, utterance=2, generation=2, complete=False),)


class TestALostTts:
    def test_what_had_come_is_marked_and_reported_as_cut_once_heard(self):
        ledger = PlayoutLedger()
        take(ledger, 1, 200, at=0.0, last=True)
        take(ledger, 2, 300, at=0.0)
        assert ledger.abandon() == ("1.2",)
        assert ledger.abandon() == ()
        assert take(ledger, 2, 300, at=0.1) == Void("utterance-over")
        assert ledger.returned("1.1", at=0.2) == (finished(200),)
        assert ledger.returned("1.2", at=0.5) == (cut(300, 300, utterance=2, complete=False),)


class TestASecondBrain:
    def test_may_number_its_utterances_from_one_again(self):
        ledger = PlayoutLedger()
        take(ledger, 1, 200, at=0.0, last=True)
        ledger.returned("1.1", at=0.2)
        assert isinstance(take(ledger, 1, 300, at=0.3, generation=2), Taken)
        assert take(ledger, 1, 0, at=0.3, last=True, generation=2) == Taken(None, "2.1")
        assert take(ledger, 1, 100, at=0.3, generation=2) == Void("utterance-over")
        assert ledger.returned("2.1", at=0.6) == (finished(300, generation=2),)

    def test_does_not_go_on_with_an_utterance_the_first_one_left_open(self):
        ledger = PlayoutLedger()
        take(ledger, 1, 200, at=0.0)
        assert take(ledger, 1, 300, at=0.1, last=True, generation=2).mark == "2.1"
        assert ledger.returned("2.1", at=0.5) == (cut(200, 200, complete=False), finished(300, generation=2))


# --- any order of anything ------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.floats(0, 2, allow_nan=False),
        st.one_of(
            st.tuples(
                st.just("take"),
                st.integers(1, 6),
                st.sampled_from([0.0, 20.0, 160.0, 400.0]),
                st.booleans(),
                st.integers(0, 4),
            ),
            st.tuples(st.just("return"), st.integers(0, 4), st.integers(1, 6)),
            st.tuples(st.just("interrupt"), st.integers(0, 5)),
            st.tuples(st.just("abandon")),
        ),
    ),
    max_size=60,
)


def key_of(message):
    return (message.generation, message.utterance)


class Witness:
    """Watches one ledger and checks what must hold whatever happens."""

    def __init__(self):
        self.ledger = PlayoutLedger()
        self.at = 0.0
        self.started = {}
        self.over = set()
        self.marks = set()
        self.taken_ms = {}

    def step(self, after_s, step):
        self.at += after_s
        getattr(self, step[0].replace("return", "give_back"))(*step[1:])

    def take(self, utterance, audio_ms, last, generation):
        verdict = take(self.ledger, utterance, audio_ms, at=self.at, last=last, generation=generation)
        if isinstance(verdict, Void):
            return
        assert generation >= self.ledger.floor
        key = (generation, utterance)
        assert key not in self.over
        self.taken_ms[key] = self.taken_ms.get(key, 0) + audio_ms
        if verdict.started is not None:
            assert key not in self.started
            self.started[key] = self.at
        if verdict.mark is not None:
            assert verdict.mark not in self.marks
            self.marks.add(verdict.mark)

    def give_back(self, generation, utterance):
        for message in self.ledger.returned(f"{generation}.{utterance}", at=self.at):
            self.ended(message)

    def interrupt(self, generation):
        for message in self.ledger.interrupt(Generation(generation), at=self.at).messages:
            assert message.heard_ms <= round((self.at - self.started.get(key_of(message), self.at)) * 1000) + 1
            self.ended(message)

    def abandon(self):
        self.marks.update(self.ledger.abandon())

    def ended(self, message):
        key = key_of(message)
        assert key not in self.over
        self.over.add(key)
        assert 0 <= message.heard_ms <= self.taken_ms[key]
        if isinstance(message, PlayoutCut):
            assert message.heard_ms <= message.total_ms == self.taken_ms[key]


@given(STEPS)
def test_utterances_end_once_and_are_never_heard_longer_than_they_played(steps):
    witness = Witness()
    for after_s, step in steps:
        witness.step(after_s, step)
