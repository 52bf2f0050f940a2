from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.stt.providers.automaton import Arc, compact, probability_of

pytestmark = pytest.mark.unit

START, FINAL = 0, 5


def phrases_of(start, final, arcs, longest=4):
    """Return every phrase of up to `longest` words with its best score."""
    best = {}
    todo = [(start, (), 0.0, 0)]
    while todo:
        state, words, score, steps = todo.pop()
        if state == final:
            best[words] = max(best.get(words, -1e9), score)
        for arc in arcs:
            if arc.source == state and steps < 2 * longest and len(words) + (arc.word is not None) <= longest:
                spoken = (*words, arc.word) if arc.word is not None else words
                todo.append((arc.target, spoken, score + log(arc.probability), steps + 1))
    return best


def arcs_of(automaton):
    end = 10_000
    arcs = [Arc(s, t, probability_of(weight), automaton.words[word]) for s, t, weight, word in automaton.arcs]
    return end, arcs + [Arc(state, end, probability_of(weight), None) for state, weight in automaton.finals]


def test_two_ways_to_say_the_same_become_one():
    arcs = [
        Arc(0, 1, 0.5, None),
        Arc(0, 2, 0.5, None),
        Arc(1, 3, 1.0, "for"),
        Arc(2, 4, 1.0, "for"),
        Arc(3, 5, 1.0, "two"),
        Arc(4, 5, 1.0, "three"),
    ]
    automaton = compact(START, FINAL, arcs)
    assert automaton is not None
    assert len([arc for arc in automaton.arcs if automaton.words[arc[3]] == "for"]) == 1
    end, small = arcs_of(automaton)
    assert set(phrases_of(0, end, small)) == {("for", "two"), ("for", "three")}


def test_a_loop_stays_a_loop():
    automaton = compact(0, 1, [Arc(0, 0, 0.5, "very"), Arc(0, 1, 0.5, "good")])
    assert automaton is not None
    assert sorted(automaton.words) == ["good", "very"]
    assert len(automaton.arcs) == 2


def test_likelier_phrases_stay_likelier():
    automaton = compact(0, 1, [Arc(0, 1, 0.9, "a"), Arc(0, 1, 0.1, "uh")])
    assert automaton is not None
    weights = {automaton.words[word]: weight for _, _, weight, word in automaton.arcs}
    assert probability_of(weights["a"]) == pytest.approx(0.9, abs=0.15)
    assert probability_of(weights["uh"]) == pytest.approx(0.1, abs=0.03)


forward_arcs = st.lists(
    st.builds(
        lambda pair, probability, word: Arc(min(pair), max(pair), probability, word),
        st.lists(st.integers(0, 5), min_size=2, max_size=2, unique=True),
        st.sampled_from([0.25, 0.5, 1.0]),
        st.sampled_from([None, "a", "b", "c"]),
    ),
    max_size=14,
)


@given(forward_arcs)
def test_the_small_graph_says_exactly_what_the_large_one_does_about_as_likely(arcs):
    automaton = compact(START, FINAL, arcs)
    assert automaton is not None
    end, small = arcs_of(automaton)
    expected = phrases_of(START, FINAL, arcs, longest=6)
    found = phrases_of(0, end, small, longest=6)
    assert found.keys() == expected.keys()
    for phrase, score in expected.items():
        assert found[phrase] == pytest.approx(score, abs=1.0)


@given(forward_arcs)
def test_no_state_has_two_ways_on_for_one_word(arcs):
    automaton = compact(START, FINAL, arcs)
    assert automaton is not None
    ways = [(source, word) for source, _, _, word in automaton.arcs]
    assert len(ways) == len(set(ways))
