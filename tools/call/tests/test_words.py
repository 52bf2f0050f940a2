import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.call.words import contains, word_error_rate, word_errors, words_of

pytestmark = pytest.mark.unit

some_words = st.lists(st.sampled_from("abcd"), max_size=8)


def test_case_and_punctuation_do_not_count_but_apostrophes_do() -> None:
    assert words_of("Don't, I\N{RIGHT SINGLE QUOTATION MARK}m  SURE - half-past 7!") == [
        "don't",
        "i'm",
        "sure",
        "half",
        "past",
        "7",
    ]


@pytest.mark.parametrize(
    ("said", "written", "rate"),
    [
        ("a table for two", "A table, for two.", 0.0),
        ("a table for two", "a table for four", 0.25),
        ("a table for two", "a table two", 0.25),
        ("a table for two", "a big table for two", 0.25),
        ("a table for two", "", 1.0),
        ("yes", "yes yes yes", 2.0),
        ("", "", 0.0),
        ("", "noise", 1.0),
    ],
)
def test_errors_are_counted_per_word_said(said: str, written: str, rate: float) -> None:
    assert word_error_rate(said, written) == rate


@given(some_words, some_words)
def test_it_is_a_distance(one: list[str], other: list[str]) -> None:
    errors = word_errors(one, other)

    assert errors == word_errors(other, one)
    assert (errors == 0) == (one == other)
    assert abs(len(one) - len(other)) <= errors <= max(len(one), len(other))


def test_a_phrase_is_found_as_words_not_as_letters() -> None:
    assert contains("Your table is booked: half past seven.", "Half past SEVEN")
    assert not contains("for twenty", "for twent")
