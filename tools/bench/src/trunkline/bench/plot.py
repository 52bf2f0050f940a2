"""Latency and processor time against calls, as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from trunkline.bench.report import TAIL, Outcome, knee

_ORDER: Final = ("nats-server", "edge", "stt", "brain", "tts", "events")
_COLOURS: Final = ("#5f6c7b", "#dd7b5f", "#5fb3a8", "#7d83d6", "#edb25c", "#c3cbd6")


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """Draw what the first of `outcomes` costs, and how soon all of them respond."""
    mpl.rcParams["svg.hashsalt"] = "trunkline"
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    cost, latency = figure.subplots(1, 2)
    ours = outcomes[0]
    calls = [column.calls for column in ours.columns]
    shares = [[column.core_percent_per_call.get(name, 0.0) for column in ours.columns] for name in _ORDER]
    cost.stackplot(calls, shares, labels=_ORDER, colors=_COLOURS)
    cost.set(title=f"{ours.what}: processor time", xlabel="calls at once", ylabel="% of a core per call")
    cost.legend(frameon=False, fontsize=8)
    for outcome in outcomes:
        at = [column.calls for column in outcome.columns]
        for part, style in (("p50", "-"), ("p99", "--")):
            values = [getattr(column.response_ms, part) for column in outcome.columns]
            latency.plot(at, values, style, marker="o", markersize=3, label=f"{outcome.what}, {part}")
    latency.axhline(TAIL * ours.columns[0].response_ms.p99, color="#d5482a", linewidth=0.8)
    latency.axvline(knee(ours.columns), color="#d5482a", linewidth=0.8)
    highest = max(column.response_ms.p99 for column in ours.columns)
    latency.set(title="Response", xlabel="calls at once", ylabel="ms", ylim=(0, min(1_500.0, 1.3 * highest)))
    latency.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
