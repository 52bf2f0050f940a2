"""What a run came to, put together from made-up figures."""

import msgspec
import pytest

from trunkline.bench import report
from trunkline.bench.measure import Column, Flow, Growth, Spread, growth
from trunkline.bench.parts import Parts, mean, measured, split
from trunkline.bench.plot import draw
from trunkline.bench.report import knee, moved, outcome_of, rows, show, write
from trunkline.bench.scrape import Bounds, Traffic, bounds, read
from trunkline.proto.events import Event, TurnMeasured

pytestmark = pytest.mark.unit

TURN = TurnMeasured(
    turn=1,
    generation=2,
    endpoint_delay_ms=204.0,
    stt_final_ms=1.0,
    llm_ttft_ms=2.0,
    first_sentence_ms=0.5,
    tts_ttfb_ms=3.0,
    edge_ms=1.5,
    turn_latency_ms=212.0,
)
PAGE = """# HELP trunkline_gc_pause_seconds One run
# TYPE trunkline_gc_pause_seconds histogram
trunkline_gc_pause_seconds_bucket{le="0.001"} 3.0
trunkline_gc_pause_seconds_bucket{le="+Inf"} 4.0
trunkline_gc_pause_seconds_count 4.0
trunkline_gc_pause_seconds_sum 0.5
# HELP other A number
# TYPE other gauge
other 1.0
"""


def a_column(calls, p99, **changes):
    column = Column(
        calls=calls,
        core_percent_per_call={"edge": 0.2, "stt": 0.1, "callers": 0.5},
        mib_per_call={"edge": 0.25, "stt": 0.25},
        response_ms=Spread(100, 330.0, 325.0, 350.0, p99, p99, p99),
        parts_ms=mean([split(TURN, 200.0)], 330.0),
        platform_ms=Spread(100, 20.0, 20.0, 20.0, 20.0, 20.0, 20.0),
        answering_ms=Spread(100, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0),
        interrupt_ms=Spread(),
        gaps=Spread(),
        told={"trunkline_gc_pause_seconds": {"edge": Bounds(3, 1.0, 2.0, 2.0), "stt": Bounds(0, 0.0, 0.0, 0.0)}},
        flow=Flow(50.0, 51.0, 20.0, 21.0),
        heard_s=10.0,
        lag_ms=Spread(100, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0),
        unanswered=0,
        closed_early=0,
        failed=0,
    )
    return msgspec.structs.replace(column, **changes)


def test_the_parts_of_a_response_sum_to_it():
    parts = mean([split(TURN, 200.0), split(TURN, 200.0)], 330.0)
    assert sum(msgspec.structs.astuple(parts)) == pytest.approx(330.0)
    assert (parts.silence, parts.judging, parts.hang_over) == (192.0, 12.0, 118.0)
    assert parts.platform == pytest.approx(20.0)


def test_no_turns_have_no_parts():
    assert mean([], 0.0) == Parts(
        hang_over=0.0, silence=0.0, judging=0.0, words=0.0, thinking=0.0, voicing=0.0, sending=0.0
    )


def test_turns_are_read_from_the_facts_of_their_time(tmp_path):
    path = tmp_path / "events.jsonl"
    events = [Event(id=str(at), call="call-a", wall_at=at, fact=TURN) for at in (9.0, 10.0, 11.0, 12.5)]
    path.write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in events) + b'{"no": "turn.measured"}\n')
    assert list(measured(path, 10.0, 12.0)) == [TURN, TURN]


def test_only_the_histograms_that_matter_are_read():
    assert read(PAGE) == {"trunkline_gc_pause_seconds": {0.001: 3.0, float("inf"): 4.0}}


def test_a_percentile_is_the_bound_it_lies_below():
    before = {0.001: 10.0, 0.01: 10.0, float("inf"): 10.0}
    after = {0.001: 60.0, 0.01: 109.0, float("inf"): 110.0}
    assert bounds(before, after) == Bounds(100, 1.0, 10.0, 100.0)
    assert bounds(after, after) == Bounds(0, 0.0, 0.0, 0.0)


def test_traffic_is_what_came_since():
    assert Traffic(10, 20, 30, 40).since(Traffic(1, 2, 3, 4)) == Traffic(9, 18, 27, 36)


def test_growth_is_a_slope_with_its_doubt():
    steady = growth([0.0, 1.0, 2.0, 3.0], [10.0, 12.0, 14.0, 16.0])
    assert (steady.mib_per_100_calls, steady.within) == (pytest.approx(2.0), pytest.approx(0.0, abs=1e-9))
    assert growth([0.0, 1.0, 2.0, 3.0], [10.0, 12.0, 9.0, 11.0]).within > 1.0


def test_the_knee_is_before_the_first_that_is_not_served():
    good = [a_column(10, 350.0), a_column(100, 400.0)]
    assert knee([*good, a_column(200, 421.0), a_column(300, 400.0)]) == 100
    assert knee([*good, a_column(200, 400.0, unanswered=1)]) == 100
    assert knee([*good, a_column(200, 400.0, lag_ms=Spread(p99=11.0))]) == 100
    assert knee([a_column(10, 350.0, gaps=Spread(n=1))]) == 0


def test_what_moved_beyond_noise_is_told():
    before = [a_column(100, 400.0)]
    assert list(moved(before, [a_column(100, 405.0)])) == []
    slower = list(moved(before, [a_column(100, 500.0, core_percent_per_call={"edge": 0.3, "stt": 0.1})]))
    assert slower == [
        "100 calls: edge, of a core per call: 0.200 -> 0.300 %",
        "100 calls: platform and bus, of a core per call: 0.300 -> 0.400 %",
        "100 calls: response, p99: 400.0 -> 500.0 ms",
    ]
    assert list(moved(before, [a_column(200, 900.0)])) == []


def test_a_machine_on_which_everything_costs_twice_as_much_moved_no_share():
    before = [a_column(100, 400.0), a_column(200, 400.0)]
    twice = {"edge": 0.4, "stt": 0.2, "callers": 1.0}
    (told,) = moved(before, [a_column(100, 400.0, core_percent_per_call=twice)])
    assert "cost 2.00 times as much" in told
    cheaper_for_its_pace = twice | {"edge": 0.2}
    told = list(moved(before, [a_column(100, 400.0, core_percent_per_call=cheaper_for_its_pace)]))
    assert told[1:] == [
        "100 calls: edge, of a core per call: 0.400 -> 0.200 %",
        "100 calls: platform and bus, of a core per call: 0.600 -> 0.400 %",
    ]


def test_a_table_has_a_row_for_what_any_column_has(capsys):
    show("title", [a_column(10, 350.0), a_column(20, 350.0, growth={"edge": Growth(0.1, 0.2)})])
    printed = capsys.readouterr().out
    assert "edge: memory per 100 calls more, MiB" in printed
    assert len({len(line) for line in printed.splitlines() if line.startswith(("calls at", "stt,", "callers in"))}) == 1
    assert not [name for name, _, _ in rows(a_column(1, 1.0)) if name.startswith("stt: gc")]


def test_what_is_written_is_read_and_drawn(tmp_path):
    outcome = outcome_of("Trunkline", [a_column(10, 350.0), a_column(100, 400.0)])
    write([outcome, outcome_of("A peer", [a_column(5, 380.0)])], tmp_path / "load.json")
    assert report.load(tmp_path / "load.json")[0] == outcome
    draw(report.load(tmp_path / "load.json"), tmp_path / "load.svg")
    assert (tmp_path / "load.svg").stat().st_size > 5_000
