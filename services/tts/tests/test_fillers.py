"""When a silence is filled."""

import pytest

from trunkline.tts.fillers import Fillers

pytestmark = pytest.mark.unit


def test_the_first_comes_when_it_is_due_and_the_others_after_silence():
    fillers = Fillers(10.0, 1.8, 2)
    assert fillers.wait_s(9.0) == 1.0
    assert fillers.due(9.99) is None
    assert fillers.due(10.0) == 0
    fillers.said(10.0, 0.9)
    assert fillers.due(12.6) is None
    assert fillers.wait_s(12.6) == pytest.approx(0.1)
    assert fillers.due(12.71) == 1
    fillers.said(12.71, 1.0)
    assert fillers.due(15.52) == 1  # the last one again and again


def test_one_that_was_due_before_is_due_at_once():
    assert Fillers(1.0, 1.0, 1).wait_s(10.0) == 0
    assert Fillers(1.0, 1.0, 1).due(10.0) == 0


def test_without_fillers_or_after_a_stop_none_is_ever_due():
    none, stopped = Fillers(1.0, 1.0, 0), Fillers(1.0, 1.0, 1)
    stopped.stop()
    for fillers in (none, stopped):
        assert fillers.wait_s(10.0) is None
        assert fillers.due(10.0) is None
