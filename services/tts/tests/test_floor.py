"""What may be said, and in which order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.proto.messages import Interrupt, Say
from trunkline.tts.floor import MOST_GIVEN_UP, Cut, Floor, Verdict

pytestmark = pytest.mark.unit


def say(utterance, generation=1, epoch=3):
    return Say(epoch=epoch, generation=generation, utterance=utterance, text="Hello.")


def interrupt(generation, epoch=3):
    return Interrupt(epoch=epoch, generation=generation, reason="barge-in")


def drained(floor):
    said = []
    while (sentence := floor.next()) is not None:
        said.append(sentence.utterance)
    return said


def test_sentences_come_out_in_the_order_in_which_they_came():
    floor = Floor(0)
    assert [floor.take(say(utterance)) for utterance in (1, 2, 3)] == [Verdict.TAKEN] * 3
    assert drained(floor) == [1, 2, 3]


def test_a_new_turn_does_not_silence_the_one_before():
    floor = Floor(0)
    floor.take(say(1, generation=1))
    floor.take(say(2, generation=2))
    assert drained(floor) == [1, 2]


def test_an_interrupt_stops_the_sentence_and_drops_what_waits():
    floor = Floor(0)
    for utterance in (1, 2, 3):
        floor.take(say(utterance))
    speaking = floor.next()
    assert floor.interrupt(interrupt(2)) == Cut(Verdict.TAKEN, stop=True, dropped=2)
    assert not floor.stands(speaking)
    assert floor.next() is None


def test_an_interrupt_that_comes_after_the_next_answer_leaves_it_alone():
    floor = Floor(0)
    floor.take(say(1, generation=1))
    floor.next()
    floor.take(say(2, generation=2))
    assert floor.interrupt(interrupt(2)) == Cut(Verdict.TAKEN, stop=True, dropped=0)
    assert drained(floor) == [2]


def test_an_interrupt_between_sentences_stops_nothing():
    floor = Floor(0)
    assert floor.interrupt(interrupt(2)) == Cut(Verdict.TAKEN)
    assert floor.take(say(1, generation=1)) is Verdict.STALE_GENERATION
    assert floor.take(say(2, generation=2)) is Verdict.TAKEN


def test_an_interrupt_is_heard_once():
    floor = Floor(0)
    floor.interrupt(interrupt(4))
    floor.take(say(1, generation=4))
    floor.next()
    assert floor.interrupt(interrupt(4)) == Cut(Verdict.TAKEN)
    assert floor.interrupt(interrupt(3)) == Cut(Verdict.STALE_GENERATION)


def test_a_worker_that_takes_over_starts_at_the_generation_of_its_claim():
    floor = Floor(5)
    assert floor.take(say(1, generation=4)) is Verdict.STALE_GENERATION
    assert floor.take(say(2, generation=5)) is Verdict.TAKEN


def test_a_deposed_brain_is_not_listened_to():
    floor = Floor(0)
    floor.take(say(1, epoch=4))
    assert floor.take(say(2, epoch=3)) is Verdict.STALE_EPOCH
    assert floor.interrupt(interrupt(9, epoch=3)) == Cut(Verdict.STALE_EPOCH)
    assert drained(floor) == [1]


def test_what_a_deposed_brain_left_in_line_is_said_all_the_same():
    floor = Floor(0)
    for utterance in (1, 2, 3):
        floor.take(say(utterance, epoch=3))
    speaking = floor.next()
    floor.take(say(4, epoch=5))
    assert floor.take(say(5, epoch=3)) is Verdict.STALE_EPOCH
    assert floor.stands(speaking)
    assert drained(floor) == [2, 3, 4]


def test_an_interrupt_of_a_new_brain_voids_what_the_old_one_left_by_generation_alone():
    floor = Floor(0)
    floor.take(say(1, generation=1, epoch=3))
    floor.take(say(2, generation=2, epoch=3))
    assert floor.interrupt(interrupt(2, epoch=5)) == Cut(Verdict.TAKEN, stop=False, dropped=1)
    assert drained(floor) == [2]


def test_news_of_a_new_brain_end_what_the_old_one_was_writing_and_fence_it():
    floor = Floor(0)
    floor.take(piece(1, "Hello, this", epoch=3))
    floor.take(piece(2, "And more", epoch=3))
    speaking = floor.next()
    floor.follow(5)
    assert (speaking.text, speaking.complete) == ("Hello, this", True)
    assert floor.take(piece(2, " to come", epoch=3)) is Verdict.STALE_EPOCH
    assert floor.take(piece(2, "Mine", epoch=5)) is Verdict.TAKEN
    waiting = floor.next()
    assert (waiting.epoch, waiting.text, waiting.complete) == (3, "And more", True)
    assert floor.next().epoch == 5


def test_old_news_change_nothing():
    floor = Floor(0)
    floor.take(piece(1, "Hello ", epoch=5))
    floor.follow(5)
    floor.follow(4)
    floor.take(piece(1, "there.", epoch=5, goes_on=False))
    assert floor.next().text == "Hello there."


def test_what_is_remembered_of_refused_sentences_is_bounded():
    floor = Floor(0, capacity=1)
    floor.take(say(0))
    for utterance in range(1, MOST_GIVEN_UP + 10):
        assert floor.take(piece(utterance, "on and on")) is Verdict.FULL
    assert len(floor._given_up) == MOST_GIVEN_UP
    assert floor.take(piece(MOST_GIVEN_UP + 9, ".")) is Verdict.GIVEN_UP


def test_a_full_line_refuses_the_newest():
    floor = Floor(0, capacity=2)
    verdicts = [floor.take(say(utterance)) for utterance in (1, 2, 3)]
    assert verdicts == [Verdict.TAKEN, Verdict.TAKEN, Verdict.FULL]
    assert floor.waiting == 2
    assert drained(floor) == [1, 2]


def piece(utterance, text, *, goes_on=True, generation=1, epoch=3):
    return Say(epoch=epoch, generation=generation, utterance=utterance, text=text, goes_on=goes_on)


def test_pieces_join_their_sentence_wherever_it_is_in_the_line():
    floor = Floor(0, capacity=2)
    floor.take(piece(1, "He"))
    floor.take(piece(2, "And"))
    assert floor.take(piece(1, "llo ")) is Verdict.TAKEN
    first = floor.next()
    assert (first.text, first.complete) == ("Hello", False)
    floor.take(piece(2, " you?", goes_on=False))
    floor.take(piece(1, "there.", goes_on=False))
    assert (first.text, first.complete) == ("Hello there.", True)
    assert floor.next().text == "And you?"


def test_nothing_is_spoken_from_its_midst():
    floor = Floor(0, capacity=1)
    floor.take(say(1))
    assert floor.take(piece(2, "Re")) is Verdict.FULL
    floor.next()
    assert floor.take(piece(2, "fused")) is Verdict.GIVEN_UP
    assert floor.take(piece(2, ".", goes_on=False)) is Verdict.GIVEN_UP
    floor.take(piece(3, "Over "))
    floor.next()
    floor.next()  # the speaker was done with it early
    assert floor.take(piece(3, "and out.", goes_on=False)) is Verdict.GIVEN_UP
    assert drained(floor) == []


def test_what_waits_of_a_turn_nobody_can_speak_is_dropped_with_its_pieces():
    floor = Floor(0)
    floor.take(say(1))
    floor.take(piece(2, "And "))
    floor.take(say(3, generation=2))
    floor.next()
    assert floor.drop(1) == 1
    assert floor.take(piece(2, "more.", goes_on=False)) is Verdict.GIVEN_UP
    assert drained(floor) == [3]


def test_the_sentence_of_a_deposed_brain_is_complete_as_it_is():
    floor = Floor(0)
    floor.take(piece(1, "Hello, this", epoch=3))
    speaking = floor.next()
    floor.take(say(2, epoch=4))
    assert (speaking.text, speaking.complete) == ("Hello, this", True)
    assert floor.take(piece(1, " is", epoch=3)) is Verdict.STALE_EPOCH


numbers = st.integers(0, 4)
orders = st.one_of(
    st.tuples(st.just("say"), numbers, numbers),
    st.tuples(st.just("piece"), numbers, numbers),
    st.tuples(st.just("drop"), numbers, numbers),
    st.tuples(st.just("interrupt"), numbers, numbers),
    st.tuples(st.just("next"), numbers, numbers),
)


@given(st.lists(orders, max_size=60))
def test_whatever_comes_nothing_void_is_spoken_and_the_floor_never_falls(story):
    floor = Floor(0, capacity=5)
    floors, spoken = [floor.generation], []
    for utterance, (kind, generation, epoch) in enumerate(story):
        match kind:
            case "say":
                floor.take(say(100 + utterance, generation, epoch))
            case "piece":
                floor.take(piece(utterance // 3, "a", generation=generation, epoch=epoch))
            case "drop":
                floor.drop(generation)
            case "interrupt":
                floor.interrupt(interrupt(generation, epoch))
            case _:
                sentence = floor.next()
                if sentence is not None:
                    assert sentence.generation >= floor.generation
                    assert sentence.complete or sentence.epoch == floor.epoch
                    spoken.append(sentence.key)
        floors.append(floor.generation)
        assert floor.waiting <= 5
    assert floors == sorted(floors)
    assert len(spoken) == len(set(spoken))
