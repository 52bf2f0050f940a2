"""What the process counts, and what `/stats` shows of it."""

from collections import Counter, deque
from collections.abc import Iterable
from statistics import median, quantiles

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client import Counter as PrometheusCounter

from trunkline.runtime.metrics import Counts

_BATCH_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05)
_DELAY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.1, 0.2, 0.5, 1.0, 5.0)
_FINAL_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
_RECENT = 500


class SttMetrics:
    """Counters of one process, over all its calls."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.frames: Counter[str] = Counter()
        """Frames by what became of them, and `missing` ones. Plain numbers, because they are counted per frame."""
        self.counts: Counter[str] = Counter()
        """Everything else that happens now and then."""
        Counts(registry, "trunkline_stt_frames_total", "Frames, by what became of them", lambda: self.frames)
        Counts(registry, "trunkline_stt_occurrences_total", "Things that happened, by kind", lambda: self.counts)
        self._batch = Histogram(
            "trunkline_stt_vad_batch_seconds", "One run of the model", registry=registry, buckets=_BATCH_BUCKETS_S
        )
        self._judged = PrometheusCounter("trunkline_stt_vad_frames_total", "Frames judged", registry=registry)
        self._final = Histogram(
            "trunkline_stt_final_seconds",
            "From the end of an utterance to its words",
            ["provider"],
            registry=registry,
            buckets=_FINAL_BUCKETS_S,
        )
        self._delay = Histogram(
            "trunkline_stt_frame_delay_seconds",
            "From the carrier's socket at the edge to here, of every tenth frame that came as it was spoken",
            registry=registry,
            buckets=_DELAY_BUCKETS_S,
        )
        self._recent_ms: deque[float] = deque(maxlen=_RECENT)
        self._frame_us: deque[float] = deque(maxlen=_RECENT)

    def judged(self, frames: int, took_s: float) -> None:
        """Count a run of the model over `frames`."""
        self._batch.observe(took_s)
        self._judged.inc(frames)
        self._frame_us.append(took_s / frames * 1e6)

    def arrived(self, delay_s: float) -> None:
        """Note how old a frame was when it came."""
        self._delay.observe(delay_s)

    def final(self, provider: str, took_s: float) -> None:
        """Note how long an utterance's words took."""
        self._final.labels(provider).observe(took_s)
        self._recent_ms.append(took_s * 1_000)

    def rows(self) -> Iterable[tuple[str, object]]:
        """Return what people want to see."""
        for what, count in sorted(self.frames.items()):
            yield f"frames {what}", count
        for what, count in sorted(self.counts.items()):
            yield what.replace("_", " "), count
        if self._frame_us:
            yield "voice detection per frame", f"median {median(self._frame_us):.0f} µs"
        if len(self._recent_ms) > 1:
            p95 = quantiles(self._recent_ms, n=20)[-1]
            yield (
                f"words after the end, last {len(self._recent_ms)}",
                f"median {median(self._recent_ms):.0f} ms, p95 {p95:.0f} ms",
            )
