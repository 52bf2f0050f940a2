"""What the process counts, and what `/stats` shows of it."""

from collections import deque
from collections.abc import Iterable
from enum import StrEnum
from statistics import median
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
_RECENT = 500


class Outcome(StrEnum):
    """How a sentence ended."""

    SPOKEN = "spoken"
    CUT = "cut"
    EMPTY = "empty"
    FAILED = "failed"


class TtsMetrics:
    """Counters of one process, over all its calls."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._sentences = Counter(
            "trunkline_tts_sentences_total", "Sentences, by how they ended", ["provider", "outcome"], registry=registry
        )
        self._dropped = Counter(
            "trunkline_tts_dropped_total",
            "Messages, sentences and audio not used, by reason",
            ["reason"],
            registry=registry,
        )
        self._chunks = Counter("trunkline_tts_chunks_total", "Audio chunks published", registry=registry)
        self._audio = Counter("trunkline_tts_audio_seconds_total", "Speech published", registry=registry)
        self._first_audio = Histogram(
            "trunkline_tts_first_audio_seconds",
            "From a sentence's turn to its first chunk",
            ["provider"],
            registry=registry,
            buckets=_BUCKETS_S,
        )
        self._clips = Counter("trunkline_tts_clips_total", "Clips, by what became of them", ["what"], registry=registry)
        self._outcomes = dict.fromkeys(Outcome, 0)
        self._reasons: dict[str, int] = {}
        self._clip_counts: dict[str, int] = {}
        self._recent_ms: deque[float] = deque(maxlen=_RECENT)

    def sentence(self, provider: str, outcome: Outcome) -> None:
        """Count a sentence that is over."""
        self._sentences.labels(provider, outcome.value).inc()
        self._outcomes[outcome] += 1

    def dropped(self, reason: str, count: int = 1) -> None:
        """Count what was not used."""
        if count:
            self._dropped.labels(reason).inc(count)
            self._reasons[reason] = self._reasons.get(reason, 0) + count

    def clip(self, what: Literal["played", "filler", "fetched", "made", "failed"]) -> None:
        """Count what became of a clip."""
        self._clips.labels(what).inc()
        self._clip_counts[what] = self._clip_counts.get(what, 0) + 1

    def chunk(self, duration_s: float) -> None:
        """Count a published chunk."""
        self._chunks.inc()
        self._audio.inc(duration_s)

    def first_audio(self, provider: str, took_s: float) -> None:
        """Note how long a sentence took to be heard first."""
        self._first_audio.labels(provider).observe(took_s)
        self._recent_ms.append(took_s * 1_000)

    def rows(self) -> Iterable[tuple[str, object]]:
        """Return what people want to see."""
        for outcome, count in self._outcomes.items():
            yield f"sentences {outcome}", count
        for reason, count in sorted(self._reasons.items()):
            yield f"dropped: {reason}", count
        for what, count in sorted(self._clip_counts.items()):
            yield f"clips {what}", count
        if self._recent_ms:
            yield (
                f"first audio, last {len(self._recent_ms)}",
                (f"median {median(self._recent_ms):.1f} ms, worst {max(self._recent_ms):.1f} ms"),
            )
