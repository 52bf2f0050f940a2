"""The call as a picture: who spoke when, what was understood, what was cut, and where the time went.

Everything is drawn from the report and the recording it belongs to; nothing is measured here. This module draws the
page and the sound; `trunkline.demo.marks` draws what is written over and under it.
"""

from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from trunkline.demo import layout, marks
from trunkline.demo.canvas import (
    AGENT,
    CALLER,
    CARD,
    CUT,
    FAINT,
    LATENCY,
    LINE,
    SOFT,
    TOOL,
    WIDTH_PX,
    Fill,
    Page,
    Stroke,
    Type,
    width_of,
)
from trunkline.demo.layout import LEFT_PX, RIGHT_PX, Row
from trunkline.demo.report import Report

Samples = NDArray[np.int16]
_MARGIN_PX: Final = 36.0
_TITLE: Final = Type(size_px=25, bold=True)
_SUBTITLE: Final = Type(size_px=13, colour=SOFT)
_FINE: Final = Type(size_px=10.5, colour=FAINT)
_FIGURE: Final = Type(size_px=23, bold=True)
_FIGURE_LABEL: Final = Type(size_px=11, colour=SOFT)
_LEGEND: Final = Type(size_px=10, colour=SOFT)
_SECONDS: Final = Type(size_px=8.5, colour=FAINT, layer=1.6)
_FOOT: Final = Type(size_px=9.5, colour=FAINT)
_NOTHING: Final = "-"


def write(path: Path, report: Report, left: Samples, right: Samples) -> None:
    """Draw the call and write it to `path` as a PNG, 3200 px wide."""
    draw(report, left, right).savefig(path, format="png", metadata={"Title": f"Trunkline call {report.call}"})


def draw(report: Report, left: Samples, right: Samples) -> Figure:
    """Return the picture of a call; `left` is the caller and `right` what the caller heard."""
    rows = layout.rows_of(report.recording.duration_ms, marks.pauses_of(report))
    page = Page(layout.page_height(len(rows)))
    scale = marks.bar_scale(rows, report)
    _head(page, report)
    rate_hz = report.recording.sample_rate_hz
    for row in rows:
        _ground(page, row)
        _wave(page, row, layout.CALLER_WAVE, _levelled(left), rate_hz, CALLER)
        _wave(page, row, layout.AGENT_WAVE, _levelled(right), rate_hz, AGENT)
        marks.draw_row(page, row, report, scale)
    _foot(page, report, scale)
    return page.figure


def _levelled(samples: Samples) -> NDArray[np.float64]:
    """Return samples with their loudest at ±1: a quiet voice is to be seen as well."""
    wide = samples.astype(np.float64)
    return wide / max(1.0, float(np.percentile(np.abs(wide), 99.7))) if wide.size else wide


def _head(page: Page, report: Report) -> None:
    page.text(_MARGIN_PX, 50, "One call, from end to end", _TITLE)
    subtitle = f"agent {report.agent}  ·  scenario {report.scenario}  ·  {report.duration_s:.1f} s"
    page.text(_MARGIN_PX, 75, f"{subtitle}  ·  {report.ended_reason}", _SUBTITLE)
    page.text(_MARGIN_PX, 95, f"{report.started_at.replace('T', ' ')[:19]} UTC  ·  call {report.call}", _FINE)
    latency = report.totals.p50_measured_latency_ms
    stop = max((cut.stopped_after_ms for cut in report.interrupts), default=None)
    figures = [
        (f"{latency:.0f} ms" if latency is not None else _NOTHING, "turn latency, median"),
        (f"{report.totals.mean_wer:.0%}", "word errors"),
        (f"{stop} ms" if stop is not None else _NOTHING, "barge-in to silence"),
        (f"{sum(cut.old_generation_audio_after_clear_ms for cut in report.interrupts)} ms", "old audio after it"),
    ]
    x = RIGHT_PX
    for value, label in reversed(figures):
        page.text(x, 54, value, _FIGURE, align="right")
        page.text(x, 75, label, _FIGURE_LABEL, align="right")
        x -= 48 + max(width_of(label, _FIGURE_LABEL), width_of(value, _FIGURE))
    _legend(page)
    page.line((_MARGIN_PX, RIGHT_PX), (128, 128), Stroke(colour=LINE))


def _legend(page: Page) -> None:
    x = RIGHT_PX
    for name, colour in reversed(LATENCY):
        x -= width_of(name, _LEGEND)
        page.text(x, 116, name, _LEGEND)
        x -= 15
        page.box(x, 107, 10, 10, Fill(colour=colour, radius=2))
        x -= 16
    page.text(x, 116, "where a turn's time goes:", Type(size_px=10, colour=FAINT), align="right")
    x = _MARGIN_PX
    sorts = [("caller", CALLER), ("agent", AGENT), ("barge-in and what was never heard", CUT), ("tool call", TOOL)]
    for name, colour in sorts:
        page.box(x, 108, 9, 9, Fill(colour=colour, radius=4.5))
        page.text(x + 14, 116, name, _LEGEND)
        x += 34 + width_of(name, _LEGEND)


def _ground(page: Page, row: Row) -> None:
    top, end = row.top_px, row.right_px
    for wave, label, colour in ((layout.CALLER_WAVE, "caller", CALLER), (layout.AGENT_WAVE, "agent", AGENT)):
        page.box(LEFT_PX, top + wave, end - LEFT_PX, layout.WAVE_PX, Fill(colour=CARD, edge=LINE, radius=3, layer=1))
        middle = top + wave + layout.WAVE_PX / 2
        page.line((LEFT_PX + 2, end - 2), (middle, middle), Stroke(colour=colour, width_px=0.6, alpha=0.35))
        page.text(LEFT_PX - 12, middle + 4, label, Type(size_px=12, colour=colour, bold=True), align="right")
    first = int(np.ceil(row.begin_ms / 1_000))
    for second in range(first, int(row.end_ms // 1_000) + 1):
        x = row.x(second * 1_000)
        bottom = top + layout.AGENT_WAVE + layout.WAVE_PX
        page.line((x, x), (top + layout.CALLER_WAVE, bottom), Stroke(colour=LINE, width_px=0.7, layer=1.5))
        page.text(x, top + layout.TOOLS + 12, f"{second} s", _SECONDS, align="center")


def _wave(page: Page, row: Row, strip: float, wave: NDArray[np.float64], rate_hz: int, colour: str) -> None:
    begin, end = int(row.begin_ms * rate_hz / 1_000), int(row.end_ms * rate_hz / 1_000)
    part = wave[begin:end]
    step = max(1, int(rate_hz / 1_000 / row.px_per_ms / 1.25))
    steps = part.size // step
    if steps < 2:
        return
    blocks = np.abs(part[: steps * step]).reshape(steps, step)
    # Between mean and peak: peaks alone make speech a brick, means alone a mouse.
    reach = np.clip(0.55 * blocks.max(axis=1) + 0.72 * np.sqrt((blocks**2).mean(axis=1)), 0, 1)
    smooth = np.convolve(reach, (0.25, 0.5, 0.25), mode="same")
    x = LEFT_PX + (np.arange(steps) + 0.5) * step / rate_hz * 1_000 * row.px_per_ms
    page.wave(x, row.top_px + strip + layout.WAVE_PX / 2, smooth * (layout.WAVE_PX / 2 - 3), colour)


def _foot(page: Page, report: Report, scale: float) -> None:
    y = page.height_px - 14
    bars = f"bars begin at the caller's last sound, {scale * 1_000:.0f} px a second; their totals are"
    bars += " measured on the recording, from the caller's last sound to the agent's first"
    page.text(_MARGIN_PX, y, bars, _FOOT)
    judged = [verdict for verdict in report.verdicts if verdict.passed is not None]
    failed = [verdict.name for verdict in judged if not verdict.passed]
    words = f"{len(judged) - len(failed)} of {len(judged)} expectations held"
    words += f"; not: {failed[0]}" if failed else ""
    kind = Type(size_px=9.5, colour=CUT if failed else CALLER, bold=True)
    page.text(WIDTH_PX - _MARGIN_PX, y, words, kind, align="right")
