import numpy as np
import pytest

from trunkline.call.judge import BusRecord, Evidence, audible, judge
from trunkline.call.scenario import Expect
from trunkline.call.seen import Spoken, Verdict

pytestmark = pytest.mark.unit


def spoke(start_s: float, end_s: float, words: str | None = "hello", *, barge_in: bool = False) -> Spoken:
    return Spoken(step=0, words=words, start_s=start_s, end_s=end_s, barge_in=barge_in)


def evidence(**fields) -> Evidence:
    usual = {"duration_s": 20.0, "ended_by_agent": False, "agent": [], "spoken": [], "last_act_s": 0.0}
    return Evidence(**(usual | fields))


def only(expect: Expect, seen: Evidence) -> list[Verdict]:
    """Leave out the verdict on the steps."""
    return judge(expect, seen)[1:]


def test_nothing_expected_is_nothing_judged_but_the_steps() -> None:
    (verdict,) = judge(Expect(), evidence())

    assert (verdict.name, verdict.passed) == ("scenario played", True)


def test_a_scenario_that_was_cut_short_fails_with_the_reason() -> None:
    (verdict,) = judge(Expect(), evidence(problem="step 1 (say): nobody there"))

    assert (verdict.found, verdict.passed) == ("step 1 (say): nobody there", False)


@pytest.mark.parametrize(
    ("agent", "passed", "found"), [([(1.5, 2)], True, "1.50 s"), ([(4, 5)], False, "4.00 s"), ([], False, "never")]
)
def test_the_agents_first_sound(agent, passed, found: str) -> None:
    (verdict,) = only(Expect(agent_speaks_within_s=2), evidence(agent=agent))

    assert (verdict.passed, verdict.found, verdict.expected) == (passed, found, "≤ 2 s")


def test_answers_are_counted_from_the_callers_last_sound() -> None:
    seen = evidence(agent=[(0, 1), (3.5, 4), (9, 10)], spoken=[spoke(2, 3), spoke(5, 6)])
    first, second = only(Expect(answers_within_s=1), seen)

    assert (first.passed, first.found) == (True, "0.50 s")
    assert (second.passed, second.found) == (False, "3.00 s")


def test_an_agent_that_talks_on_answers_at_once() -> None:
    (verdict,) = only(Expect(answers_within_s=1), evidence(agent=[(0, 8)], spoken=[spoke(2, 3)]))

    assert verdict.found == "0.00 s"


def test_no_answer_is_due_to_a_barge_in_to_words_that_more_words_follow_or_right_before_hanging_up() -> None:
    seen = evidence(
        agent=[(0, 1), (6, 7)],
        spoken=[spoke(1, 2), spoke(3, 4), spoke(6.5, 7.5, barge_in=True), spoke(18, 19.5)],
    )
    (verdict,) = only(Expect(answers_within_s=3), seen)

    assert verdict.found == "2.00 s"


def test_an_answer_that_never_comes_is_missed() -> None:
    (verdict,) = only(Expect(answers_within_s=3), evidence(spoken=[spoke(1, 2)]))

    assert (verdict.passed, verdict.found) == (False, "never")


def test_speech_is_added_up() -> None:
    (verdict,) = only(Expect(agent_speech_at_least_s=3), evidence(agent=[(0, 1), (2, 3.5)]))

    assert (verdict.passed, verdict.found) == (False, "2.50 s")


@pytest.mark.parametrize(
    ("agent", "stop"),
    [
        ([(1, 5.4), (8, 9)], "400 ms"),
        ([(1, 5.1), (5.3, 5.6), (8, 9)], "600 ms"),
        ([(1, 4.9), (8, 9)], "0 ms"),
        ([(1, 4.9), (5.1, 5.2), (8, 9)], "200 ms"),
    ],
    ids=["cut", "a short gap is no stop", "quiet already", "between two sentences"],
)
def test_the_stop_after_a_barge_in_is_the_first_long_pause(agent, stop: str) -> None:
    seen = evidence(agent=agent, spoken=[spoke(2, 3), spoke(5, 7, barge_in=True)])
    (verdict,) = only(Expect(stops_within_ms=500), seen)

    assert verdict.found == stop


def test_hanging_up_is_counted_from_the_callers_last_act() -> None:
    expect = Expect(agent_hangs_up_within_s=5)

    (verdict,) = only(expect, evidence(ended_by_agent=True, last_act_s=16.0))
    assert (verdict.passed, verdict.found) == (True, "4.00 s")
    (verdict,) = only(expect, evidence(ended_by_agent=True, last_act_s=10.0))
    assert verdict.passed is False
    (verdict,) = only(expect, evidence(last_act_s=19.0))
    assert (verdict.passed, verdict.found) == (False, "the caller hung up")


def test_transcripts_belong_to_the_words_before_them() -> None:
    bus = BusRecord(finals=((3.2, "a table"), (3.4, "for two"), (8.0, "no")))
    seen = evidence(spoken=[spoke(1, 3, "a table for two"), spoke(6, 7, "yes"), spoke(7, 7.5, None)], bus=bus)
    first, second = only(Expect(word_error_rate_at_most=0.2), seen)

    assert (first.passed, first.found) == (True, "0% “a table for two”")
    assert (second.passed, second.found) == (False, "100% “”")


def test_what_the_bus_tells_is_judged() -> None:
    expect = Expect(tools=("find", "book"), ended_reason="completed", agent_says=("half past seven", "eight"))
    bus = BusRecord(tools=("find", "book"), said=("Half past", "seven it is."), ended_reason="caller-hung-up")

    verdicts = only(expect, evidence(bus=bus))
    assert [(verdict.name, verdict.passed) for verdict in verdicts] == [
        ("tools", True),
        ("ended reason", False),
        ("agent says", True),
        ("agent says", False),
    ]


def test_no_tools_can_be_expected_too() -> None:
    (verdict,) = only(Expect(tools=()), evidence(bus=BusRecord(tools=("book",))))

    assert (verdict.passed, verdict.expected, verdict.found) == (False, "none", "book")


def test_without_the_bus_it_is_not_judged_rather_than_failed() -> None:
    expect = Expect(word_error_rate_at_most=0.2, tools=("a",), ended_reason="x", agent_says=("y",))

    verdicts = only(expect, evidence(spoken=[spoke(1, 2)]))
    assert [verdict.passed for verdict in verdicts] == [None, None, None, None]


def test_sound_is_found_in_a_recording() -> None:
    samples = np.zeros(16_000, np.int16)
    samples[8_000:12_000] = 3_000 * np.sign(np.sin(np.arange(4_000)))

    assert audible(samples) == [(1.0, 1.5)]
