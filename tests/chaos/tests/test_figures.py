import pytest

from trunkline.chaos.evidence import Evidence, Fault, by_call
from trunkline.chaos.figures import costs, latencies, percentile, slope, spread

from .fabricated import USUAL_S, but, caller_but, good, note

pytestmark = pytest.mark.unit

GOOD = good()
CALLER = GOOD.callers[0]
MIDST = CALLER.words[15]


def killed(service, worker, t):
    return Fault(t=t, kind=f"{service}-kill", service=service, worker=worker)


def after(t, late_s):
    """Let every word from `t` on be heard later."""
    words = tuple(
        word._replace(at_s=word.at_s + late_s, end_s=word.end_s + late_s) if word.at_s >= t else word
        for word in CALLER.words
    )
    return caller_but(GOOD, words=words, ended_t=CALLER.ended_t + late_s)


def cost_of(evidence, fault):
    (cost,) = costs(but(evidence, faults=(fault,)))
    return cost


def test_a_fault_nobody_noticed_costs_nothing():
    cost = cost_of(GOOD, killed("tts", "tts-1", MIDST.at_s - 0.01))
    assert cost.extra_silence_ms == pytest.approx(0, abs=1)


def test_a_gap_within_an_answer_is_the_faults():
    cost = cost_of(after(MIDST.at_s, 0.4), killed("tts", "tts-1", MIDST.at_s - 0.1))
    assert cost.extra_silence_ms == pytest.approx(400, abs=1)


def test_a_late_answer_is_the_faults():
    asked = CALLER.asked[1]
    fault = killed("brain", "brain-1", asked.ended_t + 0.2)
    evidence = after(asked.ended_t, 2.0)
    assert pytest.approx(latencies(by_call(GOOD)[0])[0][1]) == USUAL_S
    cost = cost_of(evidence, fault)
    assert cost.extra_silence_ms == pytest.approx(
        1_400, abs=1
    )  # 600 ms of it are usual for a question that wants the tool


def test_only_calls_of_the_worker_are_hit():
    assert costs(but(GOOD, faults=(killed("tts", "tts-9", MIDST.at_s),))) == []
    assert costs(but(GOOD, faults=(killed("edge", "edge-9", MIDST.at_s),))) == []
    assert costs(but(GOOD, faults=(killed("tts", "tts-1", CALLER.ended_t + 1),))) == []
    everybody = Fault(t=MIDST.at_s, kind="nats-restart", service="nats")
    assert len(costs(but(GOOD, faults=(everybody,)))) == 1


def test_times_of_the_take_over():
    t = MIDST.at_s
    more = (
        note(t + 0.25, "edge-1", "assigned", stage="stt", worker="stt-2", epoch=2),
        note(t + 0.28, "stt-2", "heard", epoch=2, seq=5),
    )
    evidence = but(GOOD, notes=tuple(sorted((*GOOD.notes, *more), key=lambda one: one.t)))
    cost = cost_of(evidence, killed("stt", "stt-1", t))
    assert cost.reclaim_ms == pytest.approx(250)
    assert cost.first_frame_ms == pytest.approx(280)


def test_what_the_next_fault_did_is_not_this_ones():
    t = MIDST.at_s
    later = note(t + 0.4, "edge-1", "assigned", stage="stt", worker="stt-2", epoch=2)
    evidence = but(GOOD, notes=tuple(sorted((*GOOD.notes, later), key=lambda one: one.t)))
    faults = (killed("stt", "stt-1", t), killed("stt", "stt-1", t + 0.2))
    first, second = costs(but(evidence, faults=faults))
    assert first.reclaim_ms is None
    assert second.reclaim_ms == pytest.approx(200)


def test_another_edge_takes_over():
    t = MIDST.at_s
    notes = tuple(but(one, who="edge-2") if one.t > t + 2 and one.who == "edge-1" else one for one in GOOD.notes)
    assert cost_of(but(GOOD, notes=notes), killed("edge", "edge-1", t)).reclaim_ms > 2_000


def test_percentiles():
    assert percentile([3, 1, 2], 50) == 2
    assert percentile(range(1, 101), 95) == 95
    assert spread([None, None]) is None
    assert spread([1.0, None, 3.0]).n == 2
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_a_leak_has_a_slope_above_nothing():
    wobble = (0.3, -0.2, 0.1, -0.4, 0.2)
    leaking = slope([(60.0 * at, 100 + at + wobble[at % 5]) for at in range(60)])
    steady = slope([(60.0 * at, 100 + wobble[at % 5]) for at in range(60)])
    assert leaking.low > 50
    assert leaking.per_hour == pytest.approx(60, rel=0.05)
    assert steady.low < 0 < steady.high
    assert slope([(0.0, 1.0)]) is None


def test_nothing_happened():
    assert costs(Evidence()) == []
