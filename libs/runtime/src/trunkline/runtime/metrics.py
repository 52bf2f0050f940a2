"""Counts kept elsewhere, shown to Prometheus."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric


class Counts:
    """Publishes a mapping of plain integers as one counter with label ``what``.

    For code that must stay free of metrics (pure cores, libraries): it counts in a dict, a scrape reads it.
    """

    def __init__(
        self, registry: CollectorRegistry, name: str, text: str, read: Callable[[], Mapping[str, int]]
    ) -> None:
        self._name = name
        self._text = text
        self._read = read
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Return the family, read now."""
        family = CounterMetricFamily(self._name, self._text, labels=["what"])
        for what, value in sorted(self._read().items()):
            family.add_metric([what], value)
        yield family
