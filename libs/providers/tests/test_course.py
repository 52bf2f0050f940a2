"""The way through the providers: who is tried, when again, and when it is given up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.providers.course import Course, Memory, RetryRules
from trunkline.providers.errors import Rejected, Throttled, Transient, Unauthorised

pytestmark = pytest.mark.unit
RULES = RetryRules(tries=2, backoff_s=0.1, longest_backoff_s=2.0, give_up_s=8.0)


def everybody(_):
    return True


def course(candidates=2, memory=None, rules=RULES, spread=0.5, began_at=100.0):
    return Course((1.5,) * candidates, rules, memory or Memory(), began_at, lambda: spread)


def test_what_failed_quickly_is_tried_once_more_after_a_moment_and_then_the_next_is():
    way = course()
    assert way.next(100.0, everybody) == (0, 0.0, 1.5)
    way.failed(0, Transient("no", "connect"), 100.01)
    again = way.next(100.01, everybody)
    assert (again.candidate, again.wait_s) == (0, 0.05)
    way.failed(0, Transient("no", "server"), 100.1)
    assert way.next(100.1, everybody).candidate == 1


def test_what_was_slow_is_not_tried_again_while_there_is_anybody_else():
    way = course()
    way.next(100.0, everybody)
    way.failed(0, Transient("slow", "first-byte"), 101.5)
    assert way.next(101.5, everybody) == (1, 0.0, pytest.approx(6.5))


def test_the_last_resort_may_take_all_the_time_that_is_left():
    assert course(candidates=1).next(100.0, everybody) == (0, 0.0, 8.0)


@pytest.mark.parametrize("error", [Unauthorised("who?"), Rejected("what?")])
def test_who_refuses_is_not_asked_again(error):
    way = course()
    way.next(100.0, everybody)
    way.failed(0, error, 100.0)
    assert way.next(100.0, everybody).candidate == 1
    way.failed(1, error, 100.0)
    assert way.next(100.0, everybody) is None


def test_who_throttles_is_asked_after_the_others_and_not_before_its_time():
    way = course()
    way.next(100.0, everybody)
    way.failed(0, Throttled("slow down", 3.0), 100.0)
    assert way.next(100.0, everybody).candidate == 1
    way.failed(1, Transient("slow", "stall"), 101.5)
    assert way.next(101.5, everybody).candidate == 1  # the other may not be asked yet
    way.failed(1, Transient("slow", "stall"), 103.5)
    assert way.next(103.5, everybody).candidate == 0


def test_a_closed_door_is_walked_past():
    way = course()
    assert way.next(100.0, lambda n: n == 1).candidate == 1
    assert course().next(100.0, lambda _: False) is None


def test_a_provider_that_failed_in_this_call_lately_comes_after_the_others():
    memory = Memory()
    way = course(memory=memory)
    way.next(100.0, everybody)
    way.failed(0, Transient("slow", "first-byte"), 101.5)
    assert course(memory=memory, began_at=105.0).next(105.0, everybody).candidate == 1
    assert course(memory=memory, began_at=140.0).next(140.0, everybody).candidate == 0


@given(
    st.integers(1, 4),
    st.lists(
        st.tuples(
            st.sampled_from(
                [Transient("x", "connect"), Transient("x", "first-byte"), Throttled("x", 2.0), Rejected("x")]
            ),
            st.floats(0.0, 2.0),
        ),
        max_size=80,
    ),
    st.floats(0.0, 0.99),
)
def test_it_ends_and_nothing_begins_after_the_time_to_give_up(candidates, failures, spread):
    way, at = course(candidates=candidates, spread=spread), 100.0
    for error, took_s in failures:
        step = way.next(at, everybody)
        if step is None:
            return
        at += step.wait_s
        assert at < 108.0
        assert at + step.first_s <= 108.0 + 1e-6
        at += min(took_s, step.first_s)
        way.failed(step.candidate, error, at)


@given(st.floats(0.0, 0.99))
def test_a_dead_provider_alone_is_asked_a_bounded_number_of_times(spread):
    way, at, asked = course(candidates=1, spread=spread), 100.0, 0
    while (step := way.next(at, everybody)) is not None and asked < 10_000:
        asked += 1
        at += step.wait_s + 0.001
        way.failed(0, Transient("refused", "connect"), at)
    if spread >= 0.2:
        assert asked <= 40
