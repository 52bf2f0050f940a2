"""What reaches a provider."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.tts.text import MAX_CHARS, speakable

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
