"""The call as a picture: who spoke when, what was understood, what was cut, and where the time went.

Everything is drawn from the report and the recording it belongs to; nothing is measured here.
"""

import json
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from trunkline.demo import layout
from trunkline.demo.canvas import (
    AGENT,
    CALLER,
    CARD,
    CUT,
    FAINT,
    INK,
    LATENCY,
    LINE,
    SOFT,
    TOOL,
    WIDTH_PX,
    Page,
    width_of,
    wrapped,
)
from trunkline.demo.layout import LEFT_PX, RIGHT_PX, Row
from trunkline.demo.report import CallerPart, Latency, Report, Sentence, ToolUse, Turn

Samples = NDArray[np.int16]
_WORDS_PX: Final = 11.5
_WORDS_LINE_PX: Final = 14.0
_MOST_LINES: Final = 3
_SMALL_PX: Final = 9.5
_BAR_PX_PER_MS: Final = 0.3
"""Latency bars are drawn larger than the time axis, or their small parts could not be seen."""


def write(path: Path, report: Report, left: Samples, right: Samples) -> None:
    """Draw the call and write it to `path` as a PNG, 3200 px wide."""
    draw(report, left, right).savefig(path, format="png", metadata={"Title": f"Trunkline call {report.call}"})


def draw(report: Report, left: Samples, right: Samples) -> Figure:
    """Return the picture of a call; `left` is the caller and `right` what the caller heard."""
    rows = layout.rows_of(report.recording.duration_ms, _pauses(report))
    page = Page(layout.page_height(len(rows)))
    _head(page, report)
    rate_hz = report.recording.sample_rate_hz
    loudest = [max(1.0, float(np.percentile(np.abs(side.astype(np.float64)), 99.7))) for side in (left, right)]
    for row in rows:
        _ground(page, row)
        _waves(page, row, layout.CALLER_WAVE, left / loudest[0], rate_hz, CALLER)
        _waves(page, row, layout.AGENT_WAVE, right / loudest[1], rate_hz, AGENT)
        _gaps(page, row, report)
        _caller_words(page, row, report)
        _agent_words(page, row, report)
        _tools(page, row, report)
        _barge_ins(page, row, report)
        _bars(page, row, report)
    _foot(page, report)
    return page.figure


def _pauses(report: Report) -> list[float]:
    """Return where an answer has just ended, or is about to begin: nobody speaks there."""
    spoken: list[tuple[int, int]] = []
    for turn in report.turns:
        if turn.caller is not None:
            spoken.append((turn.caller.onset_ms, turn.caller.offset_ms))
        if turn.agent is not None:
            spoken.extend((s.starts_ms, s.ends_ms) for s in turn.agent.sentences)
    spoken.sort()
    pauses = []
    until = 0
    for begin, end in spoken:
        if begin - until >= 250:
            # Near the next sound, so that a latency bar stays with the words before it.
            pauses.append(float(begin - 120))
        until = max(until, end)
    return pauses


def _head(page: Page, report: Report) -> None:
    page.text(36, 50, "One call, from end to end", 25, bold=True)
    subtitle = f"agent {report.agent}  ·  scenario {report.scenario}  ·  {report.duration_s:.1f} s"
    page.text(36, 75, f"{subtitle}  ·  {report.ended_reason}", 13, SOFT)
    page.text(36, 95, f"{report.started_at.replace('T', ' ')[:19]} UTC  ·  call {report.call}", 10.5, FAINT)
    totals = report.totals
    latency = totals.p50_measured_latency_ms
    old = sum(cut.old_generation_audio_after_clear_ms for cut in report.interrupts)
    stop = max((cut.stopped_after_ms for cut in report.interrupts), default=None)
    figures = [
        (f"{latency:.0f} ms" if latency is not None else "–", "turn latency, median", INK),
        (f"{totals.mean_wer:.0%}", "word errors", INK),
        (f"{stop} ms" if stop is not None else "–", "barge-in to silence", INK),
        (f"{old} ms", "old audio after it", INK if old == 0 else CUT),
    ]
    x = RIGHT_PX
    for value, label, colour in reversed(figures):
        page.text(x, 54, value, 23, colour, bold=True, align="right")
        page.text(x, 75, label, 11, SOFT, align="right")
        x -= 48 + max(width_of(label, 11), width_of(value, 23, bold=True))
    _legend(page)
    page.line((36, RIGHT_PX), (128, 128), LINE)


def _legend(page: Page) -> None:
    x = RIGHT_PX
    for name, colour in reversed(LATENCY):
        x -= width_of(name, 10)
        page.text(x, 116, name, 10, SOFT)
        x -= 15
        page.box(x, 107, 10, 10, colour, radius=2)
        x -= 16
    page.text(x, 116, "where a turn's time goes:", 10, FAINT, align="right")
    marks = [("caller", CALLER), ("agent", AGENT), ("barge-in and what was never heard", CUT), ("tool call", TOOL)]
    x = 36.0
    for name, colour in marks:
        page.box(x, 108, 9, 9, colour, radius=4.5)
        page.text(x + 14, 116, name, 10, SOFT)
        x += 14 + width_of(name, 10) + 20


def _ground(page: Page, row: Row) -> None:
    top, end = row.top_px, row.right_px
    for wave, label, colour in ((layout.CALLER_WAVE, "caller", CALLER), (layout.AGENT_WAVE, "agent", AGENT)):
        page.box(LEFT_PX, top + wave, end - LEFT_PX, layout.WAVE_PX, CARD, edge=LINE, radius=3, layer=1)
        middle = top + wave + layout.WAVE_PX / 2
        page.line((LEFT_PX + 2, end - 2), (middle, middle), colour, 0.6, alpha=0.35)
        page.text(LEFT_PX - 12, middle + 4, label, 12, colour, bold=True, align="right")
    first = int(np.ceil(row.begin_ms / 1_000))
    for second in range(first, int(row.end_ms // 1_000) + 1):
        x = row.x(second * 1_000)
        page.line((x, x), (top + layout.CALLER_WAVE, top + layout.AGENT_WAVE + layout.WAVE_PX), LINE, 0.7, layer=1.5)
        page.text(x, top + layout.TOOLS + 12, f"{second} s", 8.5, FAINT, align="center", layer=1.6)


def _waves(page: Page, row: Row, strip: float, wave: NDArray[np.float64], rate_hz: int, colour: str) -> None:
    begin, end = int(row.begin_ms * rate_hz / 1_000), int(row.end_ms * rate_hz / 1_000)
    part = wave[begin:end]
    samples_per_step = max(1, int(rate_hz / 1_000 / row.px_per_ms / 1.25))
    steps = part.size // samples_per_step
    if steps < 2:
        return
    blocks = np.abs(part[: steps * samples_per_step]).reshape(steps, samples_per_step)
    # Between mean and peak: peaks alone make speech a brick, means alone a mouse.
    reach = np.clip(0.55 * blocks.max(axis=1) + 0.45 * np.sqrt((blocks**2).mean(axis=1)) * 1.6, 0, 1)
    smooth = np.convolve(reach, (0.25, 0.5, 0.25), mode="same")
    at_ms = row.begin_ms + (np.arange(steps) + 0.5) * samples_per_step / rate_hz * 1_000
    x = LEFT_PX + (at_ms - row.begin_ms) * row.px_per_ms
    middle = row.top_px + strip + layout.WAVE_PX / 2
    page.wave(x, middle, smooth * (layout.WAVE_PX / 2 - 3), colour)


def _gaps(page: Page, row: Row, report: Report) -> None:
    """Shade the silence between the caller's last sound and the agent's first: what the bars explain."""
    for turn in report.turns:
        if turn.caller is None or turn.latency is None or turn.latency.measured_ms is None:
            continue
        part = row.part(turn.caller.offset_ms, turn.caller.offset_ms + turn.latency.measured_ms)
        if part is not None:
            x = row.x(part[0])
            height = layout.AGENT_WAVE + layout.WAVE_PX - layout.CALLER_WAVE
            page.box(x, row.top_px + layout.CALLER_WAVE, row.x(part[1]) - x, height, "#f3ead7", alpha=0.75, layer=1.4)


def _caller_words(page: Page, row: Row, report: Report) -> None:
    spoken = [turn.caller for turn in report.turns if turn.caller is not None]
    for place, caller in enumerate(spoken):
        if row.holds(caller.onset_ms):
            room_ms = spoken[place + 1].onset_ms if place + 1 < len(spoken) else row.end_ms
            text = caller.transcript or "(nothing understood)"
            lines = _fit(text, row, (caller.onset_ms, caller.offset_ms), room_ms)
            y = row.top_px + layout.PARTIALS - 8 - (len(lines) - 1) * _WORDS_LINE_PX
            _put(page, row, lines, (caller.onset_ms, caller.offset_ms), y)
        _partials(page, row, caller)


def _partials(page: Page, row: Row, caller: CallerPart) -> None:
    """Draw a tick for each partial, as tall as it has words, and a full one for the final."""
    floor = row.top_px + layout.CALLER_WAVE - 3
    reach = floor - (row.top_px + layout.PARTIALS)
    most = max(1, len(caller.transcript.split()), *(len(partial.text.split()) for partial in caller.partials))
    for partial in caller.partials:
        if row.holds(partial.at_ms):
            share = len(partial.text.split()) / most
            x = row.x(partial.at_ms)
            page.line((x, x), (floor, floor - 3 - (reach - 3) * share), CALLER, 1.8, alpha=0.25 + 0.3 * share)
    if caller.final_ms is not None and row.holds(caller.final_ms):
        x = row.x(caller.final_ms)
        page.line((x, x), (floor, floor - reach), CALLER, 2.2)
        page.shape(
            [(x, floor - reach - 4), (x + 4, floor - reach), (x, floor - reach + 4), (x - 4, floor - reach)], CALLER
        )


def _agent_words(page: Page, row: Row, report: Report) -> None:
    for place, turn in enumerate(report.turns):
        if turn.agent is None:
            continue
        after = next((t.agent for t in report.turns[place + 1 :] if t.agent is not None), None)
        limit_ms = after.starts_ms if after is not None else report.recording.duration_ms
        heard = [s for s in turn.agent.sentences if s.ends_ms > s.starts_ms]
        for number, sentence in enumerate(heard):
            if row.holds(sentence.starts_ms):
                room_ms = heard[number + 1].starts_ms if number + 1 < len(heard) else limit_ms
                text, _ = _split(sentence)
                span = (sentence.starts_ms, sentence.ends_ms)
                _put(page, row, _fit(text, row, span, room_ms), span, row.top_px + layout.TEXT_DOWN + 10)
        _unheard(page, row, turn, limit_ms)


def _unheard(page: Page, row: Row, turn: Turn, limit_ms: float) -> None:
    """Hatch the audio that was meant and never heard, with its words, faded."""
    lost = [sentence for sentence in (turn.agent.sentences if turn.agent else ()) if sentence.unheard_ms > 0]
    if not lost:
        return
    begins = lost[0].ends_ms
    ends = min(begins + sum(sentence.unheard_ms for sentence in lost), limit_ms - 60)
    part = row.part(begins, ends)
    if part is None:
        return
    x, end = row.x(part[0]), row.x(part[1])
    top = row.top_px + layout.AGENT_WAVE
    page.box(x, top + 8, end - x, layout.WAVE_PX - 16, CUT, alpha=0.06, layer=2)
    page.box(x, top + 8, end - x, layout.WAVE_PX - 16, "none", edge=CUT, alpha=0.32, hatch="/////", layer=2)
    text = " ".join(_split(sentence)[1] for sentence in lost)
    for number, line in enumerate(wrapped(text, max(end - x, 170), _SMALL_PX, 3)):
        y = row.top_px + layout.TEXT_DOWN + 10 + number * 12
        page.text(x + 3, y, line, _SMALL_PX, CUT, italic=True, alpha=0.65)


def _split(sentence: Sentence) -> tuple[str, str]:
    """Divide a sentence into what was heard and what was not, by time, between two words."""
    heard_ms = sentence.ends_ms - sentence.starts_ms
    if sentence.unheard_ms <= 0:
        return sentence.text, ""
    at = round(len(sentence.text) * heard_ms / (heard_ms + sentence.unheard_ms))
    space = sentence.text.rfind(" ", 0, at + 1)
    return (sentence.text[:space], sentence.text[space + 1 :]) if space > 0 else ("", sentence.text)


def _fit(text: str, row: Row, span_ms: tuple[float, float], room_ms: float) -> list[str]:
    """Wrap `text` to the width of its sound, or as much more as there is room for."""
    begin = row.x(span_ms[0])
    wanted = max(row.x(span_ms[1]) - begin, 90)
    return wrapped(text, max(min(wanted, row.x(room_ms) - begin - 10), 50), _WORDS_PX, _MOST_LINES)


def _put(page: Page, row: Row, lines: list[str], span_ms: tuple[float, float], y: float) -> None:
    """Write lines from `y` downwards; a single one with every word where it was said, as far as its length tells."""
    begin, end = row.x(span_ms[0]), row.x(span_ms[1])
    if len(lines) == 1 and width_of(lines[0], _WORDS_PX) < end - begin:
        slack = end - begin - width_of(lines[0], _WORDS_PX)
        words = lines[0].split(" ")
        gap = slack / len(words) + width_of(" ", _WORDS_PX)
        for word in words:
            page.text(begin, y, word, _WORDS_PX)
            begin += width_of(word, _WORDS_PX) + gap
        return
    for number, line in enumerate(lines):
        page.text(begin, y + number * _WORDS_LINE_PX, line, _WORDS_PX)


def _tools(page: Page, row: Row, report: Report) -> None:
    for tool in report.tools:
        if not row.holds(tool.called_ms):
            continue
        x, y = row.x(tool.called_ms), row.top_px + layout.TOOLS
        label = tool_label(tool)
        width = width_of(label, _SMALL_PX) + 14
        x_box = min(x, RIGHT_PX - width)
        page.line((x, x), (y - 6, row.top_px + layout.AGENT_WAVE + layout.WAVE_PX), TOOL, 1.1, alpha=0.8)
        page.box(x_box, y + 1, width, 16, "#fdf3df", edge=TOOL, radius=3, layer=6)
        page.text(x_box + 7, y + 12.5, label, _SMALL_PX, CUT if tool.error else TOOL, layer=7)


def tool_label(tool: ToolUse) -> str:
    """Return a tool call in one short line."""
    arguments = ", ".join(str(value) for value in tool.arguments.values())
    outcome = tool.error or _short(tool.result)
    return f"{tool.name}({_clipped(arguments, 34)}) → {_clipped(outcome, 30)}"


def _short(result: object) -> str:
    if isinstance(result, dict):
        return ", ".join(f"{key} {_short(value)}" for key, value in result.items())
    if isinstance(result, bool):
        return "yes" if result else "no"
    return str(result) if isinstance(result, str | int | float) else json.dumps(result)


def _clipped(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _barge_ins(page: Page, row: Row, report: Report) -> None:
    top, bottom = row.top_px, row.top_px + layout.AGENT_WAVE + layout.WAVE_PX
    for cut in report.interrupts:
        if row.holds(cut.at_ms):
            x = row.x(cut.at_ms)
            page.line((x, x), (top + layout.CALLER_WAVE - 4, bottom), CUT, 1.5, layer=6)
            page.box(x - 62, top + layout.TOOLS + 1, 62, 16, CUT, radius=3, layer=6)
            page.text(
                x - 31, top + layout.TOOLS + 12.5, "barge-in", _SMALL_PX, "white", bold=True, align="center", layer=7
            )
        if row.holds(cut.cleared_ms):
            x = row.x(cut.cleared_ms)
            page.line((x, x), (top + layout.AGENT_WAVE - 4, bottom + 4), CUT, 1.2, dashed=True, layer=6)
            page.text(
                x + 5, top + layout.TOOLS + 12.5, f"silent after {cut.stopped_after_ms} ms", _SMALL_PX, CUT, layer=7
            )


def _bars(page: Page, row: Row, report: Report) -> None:
    for turn in report.turns:
        if turn.caller is not None and turn.latency is not None and row.holds(turn.caller.offset_ms):
            _bar(page, row, turn.turn, turn.caller.offset_ms, turn.latency)


def _bar(page: Page, row: Row, turn: int, offset_ms: float, latency: Latency) -> None:
    parts = (
        latency.endpoint_delay_ms,
        latency.stt_final_ms,
        latency.llm_ttft_ms,
        latency.first_sentence_ms,
        latency.tts_ttfb_ms,
        latency.edge_ms,
    )
    y = row.top_px + layout.BARS
    label = f"{latency.measured_ms if latency.measured_ms is not None else latency.turn_latency_ms:.0f} ms"
    length = sum(parts) * _BAR_PX_PER_MS
    anchor = row.x(offset_ms)
    x = min(anchor, RIGHT_PX - length - width_of(label, 12, bold=True) - 8)
    page.line((anchor, anchor), (row.top_px + layout.AGENT_WAVE + layout.WAVE_PX, y), FAINT, 0.8, dashed=True, layer=1)
    page.text(x - 8, y + 9.5, f"turn {turn}", 10, FAINT, align="right")
    for (_, colour), part in zip(LATENCY, parts, strict=True):
        width = part * _BAR_PX_PER_MS
        page.box(x, y, width, 12, colour)
        if width > width_of(f"{part:.0f}", 8.5) + 4:
            page.text(x + width / 2, y + 9.2, f"{part:.0f}", 8.5, INK, align="center", alpha=0.8)
        x += width
    page.text(x + 7, y + 10.2, label, 12, INK, bold=True)


def _foot(page: Page, report: Report) -> None:
    y = page.height_px - 14
    bars = f"bars begin at the caller's last sound, {_BAR_PX_PER_MS * 1_000:.0f} px a second; the label is measured on"
    page.text(36, y, f"{bars} the recording, from the caller's last sound to the agent's first", 9.5, FAINT)
    failed = [verdict.name for verdict in report.verdicts if verdict.passed is False]
    outcome = (
        f"failed: {', '.join(failed)}"
        if failed
        else f"expectations held: {len(report.verdicts)} of {len(report.verdicts)}"
    )
    page.text(WIDTH_PX - 36, y, outcome, 9.5, CUT if failed else CALLER, bold=True, align="right")
