"""When to try again, and when to give up: the webhook's retry rules as plain functions of numbers.

No clock, no random source, no network here: the age of an event, the jitter and the receiver's answer are passed in.
The rules are those of Standard Webhooks (spec/standard-webhooks.md, "Deliverability and reliability"): of all statuses
only 410 says stop. Added to it are two that say the body can never be accepted.
"""

from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 30.0
"""A receiver that has come back waits no longer than this for what it missed."""
LONGEST_RETRY_AFTER_S: Final = 3_600.0
GIVE_UP_AFTER_S: Final = 24 * 3_600.0

GIVE_UP_REFUSED_AFTER_S: Final = 3_600.0
"""A proxy answers 401, 403 or 404 while what is behind it is deployed. An event that is at fault itself must not hold
up its call for a day, though."""

_GONE: Final = 410
_FINAL: Final = frozenset({_GONE, 413, 422})
"""The receiver wants no more; or it understood the event and will never take it: too large, or not to be processed."""
_NO_REFUSAL: Final = frozenset({408, 425, 429})
"""Statuses that say "later": request time-out, too early, too many requests."""


class Answered(msgspec.Struct, frozen=True):
    """The receiver answered with an HTTP status; `retry_after_s` is what it asked for, if it did."""

    status: int
    retry_after_s: float | None = None


class Unanswered(msgspec.Struct, frozen=True):
    """No answer: refused, timed out, cut off, not found."""

    why: str


Outcome = Answered | Unanswered


class Delivered(msgspec.Struct, frozen=True):
    """The receiver has it."""


class TryAgain(msgspec.Struct, frozen=True):
    """Not yet; once more in `wait_s`."""

    wait_s: float
    why: str


class GiveUp(msgspec.Struct, frozen=True):
    """Never: it was refused for good, or it is too old."""

    why: str


Verdict = Delivered | TryAgain | GiveUp


def refused(outcome: Outcome) -> bool:
    """Whether the receiver turned the event away without saying that it would do so for ever."""
    match outcome:
        case Answered(status=status):
            return 400 <= status < 500 and status not in _FINAL | _NO_REFUSAL
        case Unanswered():
            return False


def judge(outcome: Outcome, *, attempt: int, age_s: float, refused_s: float, jitter: float) -> Verdict:
    """Decide what becomes of an event after an attempt.

    Args:
        outcome: what came of the attempt.
        attempt: its number, from 1.
        age_s: how long ago the event happened.
        refused_s: for how long it has been `refused`, without another outcome in between. Not its age: what has waited
            for hours already must survive a deploy as well.
        jitter: anywhere in [0, 1); spreads the retries of many events.
    """
    match outcome:
        case Answered(status=status) if 200 <= status < 300:
            return Delivered()
        case Answered(status=status) if status in _FINAL:
            return GiveUp("410: the receiver wants no more" if status == _GONE else f"refused with {status}")
        case Answered(status=status, retry_after_s=asked_s):
            # A redirect is not followed: it may lead anywhere, and a POST may arrive as a GET.
            why = f"redirected with {status}" if 300 <= status < 400 else f"status {status}"
        case Unanswered(why=why):
            asked_s = None
    if age_s > GIVE_UP_AFTER_S:
        return GiveUp(f"{why}, for {GIVE_UP_AFTER_S / 3600:.0f} hours")
    if refused(outcome) and refused_s > GIVE_UP_REFUSED_AFTER_S:
        return GiveUp(f"{why}, for {GIVE_UP_REFUSED_AFTER_S / 3600:.0f} hour")
    return TryAgain(max(wait_s(attempt, jitter), min(asked_s or 0.0, LONGEST_RETRY_AFTER_S)), why)


def wait_s(attempt: int, jitter: float) -> float:
    """Return how long to wait after attempt number `attempt` (from 1): doubling, between half and all of the step."""
    step_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(attempt - 1, 16))
    return step_s * (0.5 + jitter / 2)


def retry_after_s(value: str, wall_at: float) -> float | None:
    """Read a ``Retry-After`` header (RFC 9110 section 10.2.3): seconds or a date. None if it is neither."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - wall_at)
    except (ValueError, OverflowError):
        return None
