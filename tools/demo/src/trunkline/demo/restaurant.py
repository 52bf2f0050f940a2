"""The demo restaurant's booking diary, and the two tools by which an agent reads and writes it.

It takes days and times as people and models write them (``friday``, ``half past seven``, ``19:30``) and answers in
words fit to be said. It lives in the memory of the process that runs the tools; it knows no bus and no call but its id.
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec

from trunkline.runtime.clock import SYSTEM, Clock

DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
CLOSED: Final = frozenset({"monday"})
FIRST: Final = 17 * 60
"""Earliest arrival, in minutes after midnight."""
LAST: Final = 21 * 60 + 30
"""Latest arrival."""
SLOT: Final = 30
"""Minutes for which arrivals are counted together."""
LARGEST_PARTY: Final = 8
KEPT_BOOKINGS: Final = 20
KEPT_ANSWERS: Final = 1_000
SEATS: Final = (KEPT_BOOKINGS + 1) * LARGEST_PARTY
"""Arrivals per slot. Room for all bookings that are kept and one more, so that no number of demo calls fills the house:
what is full is full because of `REGULARS`."""
REGULARS: Final[Mapping[tuple[str, int], int]] = {
    ("friday", 20 * 60): SEATS,
    ("saturday", 19 * 60 + 30): SEATS,
    ("saturday", 20 * 60): SEATS,
}
"""Seats that are always taken: (day, slot) → how many."""

_ONES: Final = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)
_HOUR: Final = "|".join(_ONES[1:])
_SPOKEN: Final = re.compile(
    rf"(?:(half past|quarter past|quarter to) )?({_HOUR})(?: (o'clock|fifteen|thirty|forty five))?"
    rf"(?: (in the morning|a\.?m\b))?"
)
_WRITTEN: Final = re.compile(r"(\d{1,2})(?:[:.h](\d{2}))? ?([ap])?")
_MINUTES: Final = {
    "half past": 30,
    "quarter past": 15,
    "quarter to": -15,
    "fifteen": 15,
    "thirty": 30,
    "forty five": 45,
}


class ToolCall(Protocol):
    """What the diary reads of the tool call it is asked by."""

    @property
    def call(self) -> str:
        """Id of the telephone call."""
        ...

    @property
    def idempotency_key(self) -> str:
        """The same when the same tool call is tried again."""
        ...


class Booking(msgspec.Struct, frozen=True, kw_only=True):
    """A table that is kept."""

    number: int
    day: str
    minute: int
    party: int
    name: str


class Diary:
    """Who comes when. Several threads may ask at once.

    Args:
        seats: arrivals per slot.
        kept: bookings kept; the oldest goes when another comes.
        clock: what ``tonight`` and ``tomorrow`` are reckoned by.
    """

    def __init__(self, seats: int = SEATS, kept: int = KEPT_BOOKINGS, clock: Clock = SYSTEM) -> None:
        self._seats = seats
        self._kept = kept
        self._clock = clock
        self._lock = threading.Lock()
        self._bookings: OrderedDict[str, Booking] = OrderedDict()
        self._answers: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._numbers = 416

    def check(self, call: str, *, party: object, day: object, time: object) -> dict[str, Any]:
        """Tell whether there is room; a booking that `call` has made already does not stand in its own way.

        Returns:
            ``free``; if not, ``why`` and, where there are any, ``alternative`` and ``alternatives``.

        Raises:
            ValueError: one of the three is not understood.
        """
        people, weekday, minute = party_of(party), self._day_of(day), time_of(time)
        with self._lock:
            return self._check(call, people, weekday, minute)

    def book(self, call: ToolCall, *, party: object, day: object, time: object, name: object) -> dict[str, Any]:
        """Keep a table, in place of what the same telephone call booked before.

        The same idempotency key gets the same answer and books once.

        Returns:
            ``booked``, ``number`` as it is said and ``changed``; or what `check` returns, with ``booked`` false.

        Raises:
            ValueError: an argument is not understood.
        """
        people, weekday, minute = party_of(party), self._day_of(day), time_of(time)
        guest = " ".join(str(name).split())
        if not guest:
            raise ValueError("the booking needs a name")
        with self._lock:
            if call.idempotency_key in self._answers:
                return self._answers[call.idempotency_key]
            answer = self._check(call.call, people, weekday, minute)
            answer["booked"] = answer["free"]
            if answer["free"]:
                self._numbers += 1
                answer["number"] = " ".join(_ONES[int(digit)] for digit in str(self._numbers))
                answer["changed"] = self._bookings.pop(call.call, None) is not None
                self._bookings[call.call] = Booking(
                    number=self._numbers, day=weekday, minute=minute, party=people, name=guest
                )
                _keep(self._bookings, self._kept)
            self._answers[call.idempotency_key] = answer
            _keep(self._answers, KEPT_ANSWERS)
            return answer

    def bookings(self) -> list[Booking]:
        """Return what is booked, the oldest first."""
        with self._lock:
            return list(self._bookings.values())

    def _check(self, call: str, party: int, day: str, minute: int) -> dict[str, Any]:
        if day in CLOSED:
            return {"free": False, "why": "closed"}
        if party > LARGEST_PARTY:
            return {"free": False, "why": "large"}
        open_then = FIRST <= minute <= LAST
        if open_then and self._room(call, day, minute) >= party:
            return {"free": True}
        slots = range(FIRST, LAST + 1, SLOT)
        # Of two that are equally near the later one first: whoever asked for eight will not have eaten before.
        nearest = sorted(slots, key=lambda slot: (abs(slot - minute), -slot))
        others = [said(slot) for slot in nearest if self._room(call, day, slot) >= party][:3]
        answer: dict[str, Any] = {"free": False, "why": "full" if open_then else "hours"}
        return answer | ({"alternative": others[0], "alternatives": others} if others else {})

    def _room(self, call: str, day: str, minute: int) -> int:
        slot = minute - minute % SLOT
        taken = sum(
            booking.party
            for caller, booking in self._bookings.items()
            if caller != call and booking.day == day and booking.minute - booking.minute % SLOT == slot
        )
        return self._seats - taken - min(self._seats, REGULARS.get((day, slot), 0))

    def _day_of(self, day: object) -> str:
        words = str(day).lower().split()
        for word in words:
            if word in DAYS:
                return word
        today = datetime.fromtimestamp(self._clock.wall(), UTC).weekday()
        if "tomorrow" in words:
            return DAYS[(today + 1) % 7]
        if {"today", "tonight", "evening"} & {*words}:
            return DAYS[today]
        raise ValueError(f"no day of the week: {day}")


def party_of(party: object) -> int:
    """Return how many people ``4`` or ``four`` are."""
    text = str(party).strip().lower()
    number = int(text) if text.isdecimal() else _ONES.index(text) if text in _ONES else 0
    if number < 1:
        raise ValueError(f"no number of people: {party}")
    return number


def time_of(time: object) -> int:
    """Return the minute of the day of ``19:30``, ``7.30 pm`` or ``half past seven``.

    The house is open in the evening: hours up to eleven are after noon unless something says otherwise.
    """
    text = str(time).strip().lower()
    if (written := _WRITTEN.search(text)) is not None:
        hour, minute, half = int(written[1]), int(written[2] or 0), written[3]
    elif (spoken := _SPOKEN.search(text)) is not None:
        hour, half = _ONES.index(spoken[2]), "a" if spoken[4] else None
        minute = _MINUTES.get(spoken[1] or "", 0) + _MINUTES.get(spoken[3] or "", 0)
    else:
        raise ValueError(f"no time of day: {time}")
    if hour < 12 and half != "a":
        hour += 12
    if hour > 23 or minute > 59:
        raise ValueError(f"no time of day: {time}")
    return hour * 60 + minute


def said(minute: int) -> str:
    """Return a time as it is said: ``half past seven``."""
    hour, past = divmod(minute, 60)
    now, following = _ONES[(hour - 1) % 12 + 1], _ONES[hour % 12 + 1]
    return {0: f"{now} o'clock", 15: f"quarter past {now}", 30: f"half past {now}", 45: f"quarter to {following}"}[past]


def _keep(entries: "OrderedDict[str, Any]", most: int) -> None:
    while len(entries) > most:
        entries.popitem(last=False)


DIARY: Final = Diary()
"""The diary of this process."""


def check_table(arguments: dict[str, Any], call: ToolCall) -> dict[str, Any]:
    """Tool: is there a table for `party` people on `day` at `time`?"""
    return DIARY.check(call.call, party=arguments["party"], day=arguments["day"], time=arguments["time"])


def book_table(arguments: dict[str, Any], call: ToolCall) -> dict[str, Any]:
    """Tool: keep a table for `party` people on `day` at `time` under `name`."""
    return DIARY.book(call, **{name: arguments[name] for name in ("party", "day", "time", "name")})
