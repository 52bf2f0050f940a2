"""What the service counts. Labels name the sink only, never a call."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from trunkline.bus.media import MediaLane
from trunkline.runtime.metrics import Counts


class Metrics:
    """Counters of all sinks."""

    def __init__(self, registry: CollectorRegistry, media: MediaLane) -> None:
        def counter(what: str, text: str) -> Counter:
            return Counter(f"trunkline_events_{what}", text, ["sink"], registry=registry)

        self.delivered = counter("delivered", "Events a sink has taken")
        self.retried = counter("retried", "Attempts that failed and will be repeated")
        self.given_up = counter("given_up", "Events a sink will never get")
        self.duplicates = counter("duplicates", "Events delivered before, and suppressed")
        self.lag = Gauge("trunkline_events_lag", "Events a sink has not had yet", ["sink"], registry=registry)
        Counts(
            registry,
            "trunkline_events_bus_media",
            "What the bus dropped or could not keep up with",
            lambda: media.counts,
        )
        self.delay = Histogram(
            "trunkline_events_delivery_delay_seconds",
            "From a fact to its delivery",
            ["sink"],
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 300, 3600),
            registry=registry,
        )

    def of(self, sink: str) -> "SinkMetrics":
        """Return the counters of one sink."""
        return SinkMetrics(self, sink)


class SinkMetrics:
    """Counters of one sink, readable for its statistics page."""

    def __init__(self, metrics: Metrics, sink: str) -> None:
        self.delivered_count = 0
        self.retried_count = 0
        self.given_up_count = 0
        self.duplicate_count = 0
        self.lag = metrics.lag.labels(sink)
        self._delivered = metrics.delivered.labels(sink)
        self._retried = metrics.retried.labels(sink)
        self._given_up = metrics.given_up.labels(sink)
        self._duplicates = metrics.duplicates.labels(sink)
        self._delay = metrics.delay.labels(sink)

    def delivered(self, delay_s: float) -> None:
        """Count an event that was taken `delay_s` after it happened."""
        self.delivered_count += 1
        self._delivered.inc()
        self._delay.observe(max(0.0, delay_s))

    def retried(self) -> None:
        """Count an attempt that failed and will be repeated."""
        self.retried_count += 1
        self._retried.inc()

    def given_up(self) -> None:
        """Count an event that will never be delivered."""
        self.given_up_count += 1
        self._given_up.inc()

    def duplicate(self) -> None:
        """Count an event that was suppressed."""
        self.duplicate_count += 1
        self._duplicates.inc()
