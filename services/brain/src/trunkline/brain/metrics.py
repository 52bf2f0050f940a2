"""What Prometheus sees of the brain's turns."""

from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, Histogram

from trunkline.proto.events import TurnMeasured

_BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 4.0)
_PARTS: Final = tuple(name for name in TurnMeasured.__struct_fields__ if name.endswith("_ms"))


class TurnParts:
    """Where the time between the caller's last sound and the agent's first went: a histogram for each part and the sum.

    ``trunkline_brain_turn_seconds{part="llm_ttft"}``; parts are named as in the fact ``turn.measured``.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "trunkline_brain_turn_seconds", "Parts of a turn's latency", ["part"], buckets=_BUCKETS, registry=registry
        )

    def measured(self, turn: TurnMeasured) -> None:
        """Take in one turn."""
        values = msgspec.structs.asdict(turn)
        for name in _PARTS:
            self._seconds.labels(name.removesuffix("_ms")).observe(max(0.0, values[name]) / 1_000)
