"""Where a sentence goes on after a provider broke off."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.tts.resume import BRISK_MS, Pace, Timing, resume_at

pytestmark = pytest.mark.unit

TEXT = "one two three four"
POINTS = [(3, 300), (7, 600), (13, 900), (18, 1_200)]


@pytest.mark.parametrize(
    ("spoken_ms", "rest"),
    [
        (0, "one two three four"),
        (1, "two three four"),
        (300, "two three four"),
        (301, "three four"),
        (900, "four"),
        (901, ""),
        (5_000, ""),
    ],
)
def test_with_points_the_rest_begins_behind_the_word_that_was_being_said(spoken_ms, rest):
    assert TEXT[resume_at(TEXT, spoken_ms, POINTS, 60)] == rest[0] if rest else True
    assert TEXT[resume_at(TEXT, spoken_ms, POINTS, 60) :] == rest


def test_behind_the_last_point_known_the_pace_tells():
    assert TEXT[resume_at(TEXT, 650, POINTS[:2], 60) :] == "four"
    assert TEXT[resume_at(TEXT, 600, POINTS[:2], 60) :] == "three four"


def test_without_points_a_word_that_may_have_been_begun_was_said():
    assert TEXT[resume_at(TEXT, 180, [], 60) :] == "two three four"
    assert TEXT[resume_at(TEXT, 241, [], 60) :] == "three four"
    assert TEXT[resume_at(TEXT, 1_100, [], 60) :] == ""


words = st.lists(st.tuples(st.integers(1, 12), st.integers(30, 900)), min_size=1, max_size=20)


@given(words, st.floats(0, 1.2), st.integers(0, 20))
def test_no_word_is_said_twice_and_with_all_points_none_is_lost(spoken, share, known):
    text = " ".join("x" * characters for characters, _ in spoken)
    starts, points, at, ms = [], [], 0, 0
    for characters, word_ms in spoken:
        starts.append((at, ms))
        ms += word_ms
        points.append((at + characters, ms))
        at += characters + 1
    heard_ms = round(share * ms)
    begun = [start for start, from_ms in starts if from_ms < heard_ms]
    first_untouched = len(begun)
    exact = resume_at(text, heard_ms, points, 60)
    assert exact == (starts[first_untouched][0] if first_untouched < len(starts) else len(text))
    slowest_still_safe = min(word_ms / (characters + 1) for characters, word_ms in spoken)
    guessed = resume_at(text, heard_ms, points[:known], slowest_still_safe)
    assert guessed >= exact or guessed == len(text)
    assert guessed == len(text) or any(guessed == start for start, _ in starts)


def test_a_pace_is_measured_once_there_is_enough_and_is_rather_too_brisk():
    pace = Pace(speed=2.0)
    pace.heard(10, 10_000)
    assert pace.ms_per_character == BRISK_MS / 2
    pace.heard(90, 0)
    assert pace.ms_per_character == pytest.approx(90)


def test_points_that_make_no_sense_are_not_believed():
    timing = Timing()
    hostile = [(3, 300), (2, 400), (5, 100), (99, 500), "x", (None, 1), (4, 300, 1), (True, 300), (7, 600)]
    assert timing.push(hostile, 10) == [(3, 300), (7, 600)]
    assert timing.push([(7, 700), (8, 700)], 10) == [(8, 700)]
    assert timing.points == [(3, 300), (7, 600), (8, 700)]
