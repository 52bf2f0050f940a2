import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.brain.markers import Marker, MarkerFilter, Piece

pytestmark = pytest.mark.unit


def filter_all(deltas: list[str], markers: tuple[str, ...] = ("END_CALL", "VOICEMAIL")) -> tuple[str, list[Marker]]:
    sieve = MarkerFilter(markers)
    pieces: list[Piece] = [piece for delta in deltas for piece in sieve.feed(delta)]
    pieces += sieve.flush()
    return "".join(p for p in pieces if isinstance(p, str)), [p for p in pieces if isinstance(p, Marker)]


def test_a_marker_is_taken_out_and_reported_where_it_stood() -> None:
    sieve = MarkerFilter()
    assert sieve.feed("Goodbye! [END_CALL]") == ["Goodbye! ", Marker("END_CALL", 9)]
    assert sieve.feed(" More.") == [" More."]


def test_a_marker_split_over_deltas_and_in_any_case_is_found() -> None:
    assert filter_all(["Bye", " [", "end", "_Ca", "LL", "]", "!"]) == ("Bye !", [Marker("END_CALL", 4)])


def test_other_brackets_are_spoken() -> None:
    text = "See [1], [END CALL], [[END_CALL and [voicemails] [VOICEMAIL"
    assert filter_all(list(text)) == (text, [])


def test_a_marker_right_behind_a_false_start_is_found() -> None:
    assert filter_all(["[[END", "_CALL]"]) == ("[", [Marker("END_CALL", 1)])


def test_no_more_is_held_back_than_may_become_a_marker() -> None:
    sieve = MarkerFilter()
    assert sieve.feed("one [E") == ["one "]
    assert sieve.feed("at") == ["[Eat"]


def test_the_set_of_markers_can_be_extended() -> None:
    assert filter_all(["a [hold] b"], ("HOLD",)) == ("a  b", [Marker("HOLD", 2)])


@given(
    parts=st.lists(st.sampled_from(["[END_CALL]", "[voicemail]", "[", "]", "END", "_CALL", "hi ", "[x]"]), max_size=12),
    cuts=st.lists(st.integers(0, 60), max_size=8),
)
def test_how_the_text_is_cut_does_not_matter(parts: list[str], cuts: list[int]) -> None:
    text = "".join(parts)
    places = sorted({0, *(min(cut, len(text)) for cut in cuts), len(text)})
    deltas = [text[a:b] for a, b in itertools.pairwise(places)]
    assert filter_all(deltas) == filter_all([text]) == filter_all(list(text))
