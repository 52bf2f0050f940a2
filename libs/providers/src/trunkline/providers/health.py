"""How a process's providers are doing: a breaker for each, shared by its calls, and figures to show."""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from trunkline.proto.agent import Choice
from trunkline.proto.events import ProviderFailed
from trunkline.providers.breaker import Breaker, BreakerRules
from trunkline.providers.errors import ProviderError, Rejected, Throttled

log = logging.getLogger("trunkline.providers")

_QUOTING = frozenset({"rejected", "malformed"})
_STATES = {"closed": 0, "half-open": 1, "open": 2}
_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2, 2, 4, 8)
Outcome = Literal["answered", "failed", "broke-off", "abandoned"]


def label_of(choice: Choice) -> str:
    """Return what a provider goes by in records and metrics: its name, and the endpoint where it has several."""
    return f"{choice.provider}/{choice.endpoint}" if choice.endpoint else choice.provider


class Health:
    """The providers of one stage in one process.

    Args:
        stage: for the names of metrics.
        rules: of every breaker.
        now: monotonic seconds.
        registry: where metrics go.
    """

    def __init__(self, stage: str, rules: BreakerRules, now: Callable[[], float], registry: CollectorRegistry) -> None:
        self.stage = stage
        self._rules = rules
        self._now = now
        self._breakers: dict[str, Breaker] = {}
        prefix = f"trunkline_{stage}_provider"
        self._attempts = Counter(
            f"{prefix}_attempts", "Attempts by how they ended", ["provider", "outcome"], registry=registry
        )
        self._failures = Counter(f"{prefix}_failures", "Failures by kind", ["provider", "kind"], registry=registry)
        self._usd = Counter(f"{prefix}_usd", "Cost by the price table, US dollars", ["provider"], registry=registry)
        self._first = Histogram(
            f"{prefix}_first_seconds",
            "From the request to the first of the answer",
            ["provider"],
            buckets=_BUCKETS,
            registry=registry,
        )
        registry.register(_States(prefix, self.states))

    def admits(self, label: str) -> bool:
        """Tell whether `label` may be asked now."""
        return self._breaker(label).admits(self._now())

    def began(self, label: str) -> None:
        """An attempt begins."""
        self._breaker(label).began(self._now())

    def first(self, label: str, took_s: float) -> None:
        """The first of an answer came."""
        self._first.labels(label).observe(took_s)

    def answered(self, label: str) -> None:
        """An attempt ended well."""
        self._breaker(label).succeeded(self._now())
        self._attempts.labels(label, "answered").inc()

    def abandoned(self, label: str) -> None:
        """Nobody waits for an attempt any more."""
        self._breaker(label).abandoned(self._now())
        self._attempts.labels(label, "abandoned").inc()

    def failed(self, label: str, error: ProviderError, *, midway: bool = False) -> None:
        """An attempt failed; `midway` when something of its answer had been used."""
        breaker, at = self._breaker(label), self._now()
        before = breaker.state(at)
        if isinstance(error, Rejected):
            breaker.abandoned(at)  # one request's fault says nothing about the next
        else:
            breaker.failed(at, error.retry_after_s if isinstance(error, Throttled) else None)
        if breaker.state(at) == "open" and before != "open":
            log.error(
                "provider given up for a while", extra={"stage": self.stage, "provider": label, "kind": error.kind}
            )
        self._attempts.labels(label, "broke-off" if midway else "failed").inc()
        self._failures.labels(label, error.kind).inc()

    def spent(self, label: str, usd: float) -> None:
        """Count a cost."""
        self._usd.labels(label).inc(usd)

    def record(self, call: str, tenant: str, fact: ProviderFailed) -> None:
        """Log a failure as one structured record."""
        log.warning(
            "provider failed",
            extra={
                "call": call,
                "tenant": tenant,
                "stage": fact.stage,
                "provider": fact.provider,
                "model": fact.model,
                "kind": fact.kind,
                # Who refuses a request may quote it, and in it what people said.
                ("pii.text" if fact.kind in _QUOTING else "text"): fact.text,
                "attempt": fact.attempt,
                "then": fact.then,
                "to": fact.to,
            },
        )

    def states(self) -> Iterable[tuple[str, str]]:
        """Return every provider asked so far, with the state of its breaker."""
        at = self._now()
        return [(label, breaker.state(at)) for label, breaker in sorted(self._breakers.items())]

    def _breaker(self, label: str) -> Breaker:
        if label not in self._breakers:
            self._breakers[label] = Breaker(self._rules)
        return self._breakers[label]


class _States(Collector):
    """The breakers as a gauge that is read when it is asked for: an open breaker closes by time alone."""

    def __init__(self, prefix: str, states: Callable[[], Iterable[tuple[str, str]]]) -> None:
        self._name = f"{prefix}_breaker"
        self._states = states

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(self._name, "0 closed, 1 half-open, 2 open", labels=["provider"])
        for label, state in self._states():
            family.add_metric([label], _STATES[state])
        yield family
