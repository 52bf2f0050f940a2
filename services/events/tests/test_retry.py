"""The webhook's retry rules, with neither a clock nor a receiver."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.events.retry import (
    FIRST_WAIT_S,
    GIVE_UP_AFTER_S,
    GIVE_UP_REFUSED_AFTER_S,
    LONGEST_RETRY_AFTER_S,
    LONGEST_WAIT_S,
    Answered,
    Delivered,
    GiveUp,
    Outcome,
    TryAgain,
    Unanswered,
    judge,
    refused,
    retry_after_s,
    wait_s,
)

pytestmark = pytest.mark.unit


def verdict(outcome: Outcome, attempt: int = 1, age_s: float = 1.0, refused_s: float = 0.0, jitter: float = 0.5):
    return judge(outcome, attempt=attempt, age_s=age_s, refused_s=refused_s, jitter=jitter)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_a_delivery_however_late(status):
    assert verdict(Answered(status), age_s=GIVE_UP_AFTER_S * 2) == Delivered()


@pytest.mark.parametrize("status", [410, 413, 422])
def test_a_final_refusal_is_given_up_at_once(status):
    assert isinstance(verdict(Answered(status)), GiveUp)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 499])
def test_any_other_refusal_is_believed_after_an_hour_and_not_before(status):
    outcome = Answered(status)
    assert refused(outcome)
    assert verdict(outcome) == TryAgain(wait_s(1, 0.5), f"status {status}")
    assert isinstance(verdict(outcome, refused_s=GIVE_UP_REFUSED_AFTER_S - 1), TryAgain)
    assert verdict(outcome, refused_s=GIVE_UP_REFUSED_AFTER_S + 1) == GiveUp(f"status {status}, for 1 hour")


def test_an_event_that_waited_for_hours_survives_a_first_refusal_all_the_same():
    assert isinstance(verdict(Answered(404), age_s=20 * 3_600.0, refused_s=20.0), TryAgain)


@pytest.mark.parametrize("outcome", [Answered(408), Answered(429), Answered(503), Answered(307), Unanswered("reset")])
def test_what_is_no_refusal_has_a_day(outcome):
    assert not refused(outcome)
    assert isinstance(verdict(outcome, age_s=GIVE_UP_AFTER_S - 1, refused_s=0.0), TryAgain)


@pytest.mark.parametrize("status", [301, 302, 307, 408, 425, 429, 500, 502, 503, 504, 599])
def test_what_time_may_cure_is_tried_again(status):
    assert isinstance(verdict(Answered(status)), TryAgain)


def test_silence_is_tried_again_and_the_reason_kept():
    assert verdict(Unanswered("ConnectError")) == TryAgain(wait_s(1, 0.5), "ConnectError")


def test_a_day_of_failures_is_enough():
    assert isinstance(verdict(Answered(500), age_s=GIVE_UP_AFTER_S - 1), TryAgain)
    assert verdict(Answered(500), age_s=GIVE_UP_AFTER_S + 1) == GiveUp("status 500, for 24 hours")


def test_the_receiver_may_ask_for_more_time_but_not_for_ever_and_not_for_less():
    assert verdict(Answered(429, retry_after_s=120.0)) == TryAgain(120.0, "status 429")
    assert verdict(Answered(503, retry_after_s=1e9)) == TryAgain(LONGEST_RETRY_AFTER_S, "status 503")
    assert verdict(Answered(503, retry_after_s=0.0), attempt=4) == TryAgain(wait_s(4, 0.5), "status 503")


def test_waits_double_up_to_half_a_minute():
    steps = [wait_s(attempt, jitter=0.999999) for attempt in range(1, 10)]
    assert steps[:3] == pytest.approx([0.5, 1.0, 2.0], rel=1e-3)
    assert steps[-1] == pytest.approx(LONGEST_WAIT_S, rel=1e-3)


@given(attempt=st.integers(1, 10_000), jitter=st.floats(0, 1, exclude_max=True))
def test_every_wait_lies_between_the_first_half_step_and_the_longest(attempt, jitter):
    assert FIRST_WAIT_S / 2 <= wait_s(attempt, jitter) <= LONGEST_WAIT_S


def test_retry_after_is_read_as_seconds_or_as_a_date():
    assert retry_after_s(" 7 ", wall_at=0.0) == 7.0
    assert retry_after_s("Thu, 01 Jan 1970 00:01:00 GMT", wall_at=50.0) == 10.0
    assert retry_after_s("Thu, 01 Jan 1970 00:01:00 GMT", wall_at=90.0) == 0.0
    assert retry_after_s("Thu, 01 Jan 1970 00:01:00 -0000", wall_at=50.0) is not None


@pytest.mark.parametrize("value", ["", "soon", "-5", "1e3", "٣", "Thu, 99 Jan 1970"])
def test_a_retry_after_that_is_neither_is_ignored(value):
    assert retry_after_s(value, wall_at=0.0) is None
