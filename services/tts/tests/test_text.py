"""What reaches a provider."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.tts.text import MAX_CHARS, Cleaning, speakable

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Hello, this is Sophie.", "Hello, this is Sophie."),
        ("  two\n lines\tof\r\ntext ", "two lines of text"),
        ("a\x00b\x07c\x9bd", "a b c d"),
        ("lone \ud800 surrogate, private \ue000 use", "lone surrogate, private use"),
        ("می‌خواهم", "می‌خواهم"),
        ("\x00\n\t", ""),
        ("", ""),
    ],
)
def test_only_one_clean_line_is_spoken(text, spoken):
    assert speakable(text) == (spoken, 0)


def test_too_long_a_text_ends_with_a_word():
    text = "word " * 300
    cut = speakable(text)
    assert len(cut.text) <= MAX_CHARS
    assert cut.text.endswith("word")
    assert cut.dropped_chars == len(text.strip()) - len(cut.text)


def test_a_word_without_end_is_cut_anyway():
    assert speakable("x" * 5_000) == ("x" * MAX_CHARS, 4_000)


@given(st.text(max_size=2_000))
def test_anything_can_be_encoded_and_holds_no_terminator(text):
    spoken = speakable(text).text
    assert len(spoken) <= MAX_CHARS
    assert b"\0" not in spoken.encode()


texts = st.lists(st.text(alphabet=st.sampled_from("ab \n\t\0\ue000\u0301."), max_size=9), max_size=9)
long_texts = st.lists(st.sampled_from(["word ", "x" * 400, " ", "y"]), max_size=30)


@given(texts | long_texts)
def test_pieces_become_what_the_whole_would(pieces):
    cleaning, so_far = Cleaning(), ""
    for piece in pieces:
        cleaning.push(piece)
        assert cleaning.text.startswith(so_far)
        so_far = cleaning.text
    cleaning.end()
    rest = cleaning.text[len(so_far) :]
    assert not rest or not so_far or rest.startswith(" ")  # pieces end where words do
    assert (cleaning.text, cleaning.dropped_chars) == speakable("".join(pieces))


@given(texts)
def test_every_place_in_the_line_is_known_in_the_text_it_came_from(pieces):
    text = "".join(pieces)
    cleaning = Cleaning()
    cleaning.push(text)
    cleaning.end()
    ends = [cleaning.original(count) for count in range(len(cleaning.text) + 1)]
    assert ends == sorted(ends)
    assert ends[0] == 0
    for count, end in enumerate(ends):
        assert speakable(text[:end]).text.replace(" ", "") == cleaning.text[:count].replace(" ", "") or cleaning.text[
            :count
        ].endswith(" ")
