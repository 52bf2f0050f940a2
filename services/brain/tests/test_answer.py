"""An answer is given out as early as can be, and as the same text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.brain.answer import Answer, Said
from trunkline.brain.sentences import SentenceSplitter

pytestmark = pytest.mark.unit


def test_a_sentence_begins_to_be_said_before_it_is_whole():
    answer = Answer()
    assert answer.read("We have a table ") == []
    assert answer.read("for two at ") == [Said("We have a table for two at", goes_on=True)]
    assert answer.read("eight. ") == [Said(" eight.", goes_on=False)]


def test_sentences_are_whole_if_so_wished():
    answer = Answer(in_pieces=False)
    assert answer.read("We have a table for two at eight, and one at nine") == []
    assert answer.read(". ") == [Said("We have a table for two at eight, and one at nine.", goes_on=False)]


def test_the_longest_sentence_takes_four_messages():
    answer = Answer()
    said = [piece for _ in range(66) for piece in answer.read("ab ")]
    assert len([*said, *answer.end()]) <= 4


def test_of_an_answer_that_breaks_off_no_half_word_is_said():
    answer = Answer()
    (piece,) = answer.read("It is open and the price is twen")
    assert piece == Said("It is open and the price is", goes_on=True)
    assert answer.break_off() == [Said("", goes_on=False)]


def test_of_a_sentence_that_was_not_begun_nothing_is_said_when_it_breaks_off():
    answer = Answer()
    assert answer.read("It is. The pri") == [Said("It is.", goes_on=False)]
    assert answer.break_off() == []


TEXT = st.text(alphabet="abc D.,!? \n5[E", max_size=400)


@settings(max_examples=300)
@given(TEXT, st.lists(st.integers(1, 60), min_size=1, max_size=30))
def test_pieces_put_together_are_the_sentences_a_whole_answer_would_have_been_cut_into(text, sizes):
    answer, out, at, n = Answer(), [], 0, 0
    while at < len(text):
        out += answer.read(text[at : at + sizes[n % len(sizes)]])
        at, n = at + sizes[n % len(sizes)], n + 1
    out += answer.end()
    sentences, open_sentence = [], ""
    for said in out:
        open_sentence += said.text
        if not said.goes_on:
            sentences.append(open_sentence)
            open_sentence = ""
    assert open_sentence == ""
    whole = SentenceSplitter()
    assert sentences == [*whole.feed(text), *whole.flush()]
