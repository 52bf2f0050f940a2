import threading
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.demo.restaurant import DAYS, FIRST, LARGEST_PARTY, LAST, Diary, book_table, check_table, said, time_of

pytestmark = pytest.mark.unit

THURSDAY_NOON = 12 * 3_600.0  # 1 January 1970


@dataclass(frozen=True)
class Asked:
    call: str
    tool_call: str = "t1-1"

    @property
    def idempotency_key(self) -> str:
        return f"{self.call}:1:{self.tool_call}"


class StoppedClock:
    def monotonic(self) -> float:
        return 0.0

    def wall(self) -> float:
        return THURSDAY_NOON


def diary(seats: int = 10, kept: int = 100) -> Diary:
    return Diary(seats=seats, kept=kept, clock=StoppedClock())


def test_a_table_is_free_until_the_slot_is_full() -> None:
    book = diary()
    assert book.check("a", party="four", day="on Friday", time="half past seven") == {"free": True}
    book.book(Asked("a"), party=6, day="friday", time="19:30", name="Miller")
    assert book.check("b", party="four", day="friday", time="half past seven") == {"free": True}
    full = book.check("b", party="five", day="friday", time="quarter to eight")
    assert full == {
        "free": False,
        "why": "full",
        "alternative": "half past eight",
        "alternatives": ["half past eight", "seven o'clock", "nine o'clock"],
    }


def test_regulars_have_friday_at_eight() -> None:
    answer = diary().check("a", party=2, day="friday", time="eight o'clock")
    assert (answer["free"], answer["why"], answer["alternative"]) == (False, "full", "half past eight")


def test_closed_days_hours_and_large_parties_are_named() -> None:
    assert diary().check("a", party=2, day="Monday", time="seven") == {"free": False, "why": "closed"}
    assert diary().check("a", party=9, day="sunday", time="seven") == {"free": False, "why": "large"}
    early = diary().check("a", party=2, day="sunday", time="12:00")
    assert (early["why"], early["alternative"]) == ("hours", "five o'clock")
    late = diary().check("a", party=2, day="sunday", time="eleven o'clock")
    assert (late["why"], late["alternative"]) == ("hours", "half past nine")


def test_tonight_and_tomorrow_are_days_of_the_week() -> None:
    book = diary()
    book.book(Asked("a"), party=2, day="tonight", time="seven", name="A")
    book.book(Asked("b"), party=2, day="tomorrow evening", time="seven", name="B")
    assert [booking.day for booking in book.bookings()] == ["thursday", "friday"]


def test_the_same_key_books_once_and_gets_the_same_answer() -> None:
    book = diary()
    first = book.book(Asked("a"), party=4, day="sunday", time="seven", name="Miller")
    assert first == {"free": True, "booked": True, "number": "four one seven", "changed": False}
    assert book.book(Asked("a"), party=4, day="sunday", time="seven", name="Miller") == first
    assert len(book.bookings()) == 1


def test_a_second_booking_of_a_call_takes_the_place_of_the_first() -> None:
    book = diary()
    book.book(Asked("a", "t1-1"), party=6, day="sunday", time="seven", name="Miller")
    second = book.book(Asked("a", "t2-2"), party=8, day="sunday", time="seven", name="Miller")
    assert (second["booked"], second["changed"]) == (True, True)
    assert [booking.party for booking in book.bookings()] == [8]


def test_a_booking_that_finds_no_room_is_answered_like_a_question() -> None:
    answer = diary().book(Asked("a"), party=2, day="friday", time="eight", name="Miller")
    assert (answer["booked"], answer["why"], answer["alternative"]) == (False, "full", "half past eight")


def test_many_calls_at_once_never_overbook_a_slot() -> None:
    book = diary(seats=10)
    table = {"party": 4, "day": "sunday", "time": "seven", "name": "X"}
    callers = [threading.Thread(target=book.book, args=(Asked(f"call-{n}"),), kwargs=table) for n in range(20)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert sum(booking.party for booking in book.bookings()) == 8


def test_demo_calls_never_fill_the_house() -> None:
    book = Diary(clock=StoppedClock())
    for n in range(200):
        answer = book.book(Asked(f"call-{n}"), party=LARGEST_PARTY, day="friday", time="half past seven", name="X")
        assert answer["booked"]
    assert len(book.bookings()) == 20


@pytest.mark.parametrize(
    ("text", "minute"),
    [
        ("half past seven", 1170),
        ("at quarter to nine", 1245),
        ("quarter past six", 1095),
        ("seven thirty", 1170),
        ("eight o'clock", 1200),
        ("eight", 1200),
        ("19:30", 1170),
        ("7.30 pm", 1170),
        ("7pm", 1140),
        ("9 a.m.", 540),
        ("nine in the morning", 540),
    ],
)
def test_times_are_understood_as_people_and_models_write_them(text: str, minute: int) -> None:
    assert time_of(text) == minute


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"party": "many", "day": "friday", "time": "seven"}, "no number of people: many"),
        ({"party": 0, "day": "friday", "time": "seven"}, "no number of people: 0"),
        ({"party": 2, "day": "someday", "time": "seven"}, "no day of the week: someday"),
        ({"party": 2, "day": "friday", "time": "late"}, "no time of day: late"),
        ({"party": 2, "day": "friday", "time": "25:00"}, "no time of day: 25:00"),
    ],
)
def test_what_is_not_understood_is_refused_in_words(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        diary().check("a", **arguments)


@given(day=st.sampled_from(DAYS), slot=st.integers(FIRST // 30, LAST // 30), party=st.integers(1, LARGEST_PARTY))
def test_every_alternative_that_is_offered_is_free(day: str, slot: int, party: int) -> None:
    answer = diary().check("a", party=party, day=day, time=said(slot * 30))
    for other in answer.get("alternatives", []):
        assert diary().check("a", party=party, day=day, time=other) == {"free": True}


def test_the_tools_speak_to_the_diary_of_the_process() -> None:
    call = Asked("tool-test")
    arguments = {"party": "two", "day": "sunday", "time": "nine", "name": "Miller"}
    assert check_table(arguments, call) == {"free": True}
    assert book_table(arguments, call)["booked"]
