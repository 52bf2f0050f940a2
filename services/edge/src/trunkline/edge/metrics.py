"""What the edge counts. Plain integers, because some of it is counted per frame; a scrape reads them."""

from collections import Counter as Tally
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, Histogram

from trunkline.bus import EventLog
from trunkline.bus.media import MediaLane
from trunkline.proto.messages import SpeechStarted
from trunkline.runtime.metrics import Counts

_CLAIM_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

_BARGE_IN_BUCKETS: Final = (0.08, 0.09, 0.1, 0.11, 0.12, 0.13, 0.14, 0.16, 0.2, 0.3, 0.5, 1.0, 2.0)
_CLEAR_BUCKETS: Final = (0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.5)


class EdgeMetrics:
    """All of them, by label."""

    def __init__(self, registry: CollectorRegistry, live_calls: Callable[[], int]) -> None:
        self.traffic: Tally[str] = Tally()
        """``frames_in``, ``audio_ms_out`` and the like."""
        self.bad: Tally[str] = Tally()
        """Messages of a carrier that were ignored, by reason."""
        self.refused: Tally[str] = Tally()
        """Requests and sockets turned away or closed for cause, by reason."""
        self.fenced: Tally[str] = Tally()
        """Messages of an earlier epoch or generation, by what they were."""
        self.dropped: Tally[str] = Tally()
        """Audio and messages that could not be used or sent, by reason."""
        self.claims: Tally[str] = Tally()
        """Outcomes of claims, ``<stage>_<outcome>``."""
        self.ended: Tally[str] = Tally()
        """Calls that are over, by reason."""
        for name, text, tally in (
            ("trunkline_edge_traffic", "Frames, audio and messages carried", self.traffic),
            ("trunkline_edge_bad_messages", "Messages of a carrier that were ignored", self.bad),
            ("trunkline_edge_refused", "Requests and sockets refused", self.refused),
            ("trunkline_edge_fenced", "Messages of an earlier epoch or generation", self.fenced),
            ("trunkline_edge_dropped", "Audio and messages that could not be used or sent", self.dropped),
            ("trunkline_edge_claims", "Outcomes of claims", self.claims),
            ("trunkline_edge_calls_ended", "Calls that are over", self.ended),
        ):
            Counts(registry, name, text, _reader(tally))
        Gauge("trunkline_edge_calls", "Calls that are live", registry=registry).set_function(live_calls)
        self.claim_seconds = Histogram(
            "trunkline_edge_claim_seconds",
            "From asking for a worker to having one",
            ["stage"],
            buckets=_CLAIM_BUCKETS,
            registry=registry,
        )
        self._barge_in = Histogram(
            "trunkline_edge_barge_in_seconds",
            "From the first sound of a caller who interrupts to the order that empties the carrier's buffer",
            buckets=_BARGE_IN_BUCKETS,
            registry=registry,
        )
        self._clear = Histogram(
            "trunkline_edge_clear_seconds",
            "From when it was sure that the caller speaks to that order",
            buckets=_CLEAR_BUCKETS,
            registry=registry,
        )

    def barged_in(self, began: SpeechStarted, cleared_at: float) -> None:
        """Note that the agent fell silent at `cleared_at` because the caller began to speak."""
        self._barge_in.observe(cleared_at - began.onset_at)
        if began.judged_at:
            self._clear.observe(cleared_at - began.judged_at)


def show_bus(registry: CollectorRegistry, media: MediaLane, events: EventLog) -> None:
    """Publish what the bus counts by itself."""
    Counts(
        registry, "trunkline_edge_bus_media", "Frames on the media lane, and what became of them", lambda: media.counts
    )
    Counts(registry, "trunkline_edge_event_log", "Facts stored and given up", lambda: events.counts)
    pending = Gauge("trunkline_edge_event_log_pending", "Facts that are not stored yet", registry=registry)
    pending.set_function(lambda: events.pending)


def _reader(tally: Tally[str]) -> Callable[[], Tally[str]]:
    return lambda: tally
