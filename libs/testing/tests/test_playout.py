import pytest

from trunkline.testing.twilio import Playout

pytestmark = pytest.mark.unit


def test_audio_is_played_in_order_whatever_the_sizes_it_came_in() -> None:
    playout = Playout()
    playout.queue(b"ab")
    playout.queue(b"cdefg")

    assert [playout.take(3), playout.take(3), playout.take(3)] == [b"abc", b"def", b"g"]


def test_a_mark_with_nothing_before_it_comes_back_at_once() -> None:
    playout = Playout()

    assert playout.mark("now") == ["now"]


def test_a_mark_waits_until_the_audio_before_it_has_been_played_not_just_handed_out() -> None:
    playout = Playout()
    playout.queue(b"abcd")
    assert playout.mark("after abcd") == []
    playout.queue(b"ef")
    assert playout.mark("after ef") == []

    assert playout.take(4) == b"abcd"
    assert playout.mark("late") == []
    assert playout.pass_time() == ["after abcd"]
    assert playout.take(4) == b"ef"
    assert playout.pass_time() == ["after ef", "late"]
    assert playout.idle


def test_clear_drops_what_waits_and_returns_every_mark() -> None:
    playout = Playout()
    playout.queue(b"abcdef")
    playout.mark("one")
    playout.mark("two")
    playout.take(2)

    assert playout.clear() == ["one", "two"]
    assert playout.take(2) == b""
    assert playout.clear() == []


def test_what_comes_after_a_clear_plays_from_its_beginning() -> None:
    playout = Playout()
    playout.queue(b"abcdef")
    playout.take(4)
    playout.clear()
    playout.queue(b"xy")
    playout.mark("x")

    playout.pass_time()
    assert playout.take(4) == b"xy"
    assert playout.pass_time() == ["x"]


def test_empty_audio_is_nothing() -> None:
    playout = Playout()
    playout.queue(b"")

    assert playout.idle
    assert playout.waiting_bytes == 0
