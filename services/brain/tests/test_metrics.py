"""Every part of a turn's latency can be watched."""

import pytest
from prometheus_client import CollectorRegistry

from trunkline.brain.metrics import TurnParts
from trunkline.proto.events import TurnMeasured

pytestmark = pytest.mark.unit


def test_a_turn_is_a_sample_of_each_part_and_of_the_sum():
    registry = CollectorRegistry()
    TurnParts(registry).measured(
        TurnMeasured(
            turn=1,
            generation=2,
            endpoint_delay_ms=250.0,
            stt_final_ms=20.0,
            llm_ttft_ms=350.0,
            first_sentence_ms=0.0,
            tts_ttfb_ms=100.0,
            edge_ms=1.0,
            turn_latency_ms=721.0,
        )
    )

    def total(part):
        return registry.get_sample_value("trunkline_brain_turn_seconds_sum", {"part": part})

    parts = ("endpoint_delay", "stt_final", "llm_ttft", "first_sentence", "tts_ttfb", "edge")
    assert sum(total(part) for part in parts) == pytest.approx(total("turn_latency")) == pytest.approx(0.721)
