"""A breaker: three strikes, half a minute, two proofs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.providers.breaker import Breaker, BreakerRules

pytestmark = pytest.mark.unit
RULES = BreakerRules(failures=3, open_s=30.0, successes=2)


def failed(breaker, times, at):
    for _ in range(times):
        breaker.began(at)
        breaker.failed(at)


def test_three_failures_in_a_row_open_it_and_a_success_between_them_does_not():
    breaker = Breaker(RULES)
    failed(breaker, 2, at=0.0)
    breaker.succeeded(0.0)
    failed(breaker, 2, at=1.0)
    assert breaker.admits(1.0)
    failed(breaker, 1, at=1.0)
    assert not breaker.admits(1.0)
    assert breaker.state(30.9) == "open"
    assert breaker.state(31.0) == "half-open"


def test_half_open_one_request_at_a_time_finds_out_and_two_close_it():
    breaker = Breaker(RULES)
    failed(breaker, 3, at=0.0)
    assert breaker.admits(30.0)
    breaker.began(30.0)
    assert not breaker.admits(30.1)
    breaker.succeeded(30.2)
    assert breaker.state(30.2) == "half-open"
    assert breaker.admits(30.3)
    breaker.began(30.3)
    breaker.succeeded(30.4)
    assert breaker.state(30.4) == "closed"


def test_a_failure_while_finding_out_opens_it_for_another_while():
    breaker = Breaker(RULES)
    failed(breaker, 3, at=0.0)
    breaker.began(30.0)
    breaker.failed(31.0)
    assert breaker.state(60.9) == "open"
    assert breaker.admits(61.0)


def test_a_request_nobody_waits_for_frees_the_place_of_the_one_that_finds_out():
    breaker = Breaker(RULES)
    failed(breaker, 3, at=0.0)
    breaker.began(30.0)
    breaker.abandoned(30.5)
    assert breaker.admits(30.5)


def test_a_provider_that_names_a_time_is_left_alone_for_that_time():
    breaker = Breaker(RULES)
    breaker.began(0.0)
    breaker.failed(0.0, retry_after_s=7.0)
    assert not breaker.admits(6.9)
    assert breaker.admits(7.0)


def test_the_late_answer_to_an_old_request_does_not_close_it():
    breaker = Breaker(RULES)
    failed(breaker, 3, at=0.0)
    breaker.succeeded(1.0)
    assert breaker.state(2.0) == "open"


@given(st.lists(st.tuples(st.sampled_from(["ask", "succeeded", "failed", "abandoned"]), st.floats(0.0, 20.0))))
def test_it_never_stays_shut_for_ever_and_never_lets_two_find_out_at_once(steps):
    breaker, at, asking = Breaker(RULES), 0.0, 0
    for what, later in steps:
        at += later
        if what == "ask":
            if breaker.admits(at):
                half = breaker.state(at) == "half-open"
                breaker.began(at)
                asking += 1
                assert not (half and breaker.admits(at))
        elif asking:
            asking -= 1
            getattr(breaker, what)(at)
    while asking:
        asking -= 1
        breaker.abandoned(at)
    assert breaker.admits(at + 30.0)
