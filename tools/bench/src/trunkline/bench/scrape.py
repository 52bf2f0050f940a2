"""What services and the bus tell of themselves, read before and after: histograms of Prometheus, nats-server's totals.

A histogram says how many values lie below some bounds, so a percentile of it is the bound it lies below.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families

HISTOGRAMS: Final = (
    "trunkline_event_loop_lag_seconds",
    "trunkline_gc_pause_seconds",
    "trunkline_stt_frame_delay_seconds",
    "trunkline_edge_barge_in_seconds",
    "trunkline_edge_clear_seconds",
)
_TIMEOUT_S: Final = 5.0

Buckets = dict[float, float]
"""Upper bound in seconds to how many values lie at or below it."""


class Traffic(msgspec.Struct, frozen=True):
    """Of nats-server, since its start (field names of its ``/varz``)."""

    in_msgs: int = 0
    out_msgs: int = 0
    in_bytes: int = 0
    out_bytes: int = 0

    def since(self, before: "Traffic") -> "Traffic":
        """Return what came after `before`."""
        return Traffic(*(getattr(self, name) - getattr(before, name) for name in self.__struct_fields__))


class Bounds(msgspec.Struct, frozen=True):
    """Of many values: how many there were, and milliseconds below which so much of them lies."""

    n: int
    p50: float
    p99: float
    p999: float


class Told(NamedTuple):
    """What all of them told at one time."""

    histograms: dict[str, dict[str, Buckets]]
    """By name, then by service."""
    traffic: Traffic


async def ask(metrics: Mapping[str, Sequence[str]], monitoring: str) -> Told:
    """Ask every process at its ``/metrics``, by service, and nats-server at `monitoring` (none: empty)."""
    async with httpx.AsyncClient(timeout=_TIMEOUT_S) as client:
        asked = [(service, url) for service, urls in metrics.items() for url in urls]
        pages = await asyncio.gather(*(client.get(url) for _, url in asked))
        varz = await client.get(f"{monitoring}/varz") if monitoring else None
    told: dict[str, dict[str, Buckets]] = {name: {} for name in HISTOGRAMS}
    for (service, _), page in zip(asked, pages, strict=True):
        for name, buckets in read(page.text).items():
            into = told[name].setdefault(service, {})
            for bound, count in buckets.items():
                into[bound] = into.get(bound, 0.0) + count
    return Told(told, Traffic() if varz is None else msgspec.json.decode(varz.content, type=Traffic))


def read(page: str) -> dict[str, Buckets]:
    """Return the histograms that matter here of a ``/metrics`` page."""
    return {
        family.name: {
            float(sample.labels["le"]): sample.value for sample in family.samples if sample.name.endswith("_bucket")
        }
        for family in text_string_to_metric_families(page)
        if family.name in HISTOGRAMS
    }


def bounds(before: Buckets, after: Buckets) -> Bounds:
    """Return the percentiles of what came between."""
    came = {bound: count - before.get(bound, 0.0) for bound, count in sorted(after.items())}
    total = max(came.values(), default=0.0)

    def below(share: float) -> float:
        return next((1_000 * bound for bound, count in came.items() if count >= share * total), 0.0)

    # JSON knows no infinity: beyond the last bound is ten times it.
    last = max((bound for bound in came if not math.isinf(bound)), default=0.0)
    found = [value if not math.isinf(value) else 10_000 * last for value in map(below, (0.5, 0.99, 0.999))]
    return Bounds(int(total), *found) if total else Bounds(0, 0.0, 0.0, 0.0)
