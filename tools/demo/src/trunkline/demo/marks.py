"""What the timeline writes over and under the sound: words, partials, barge-ins, tools, latency."""

import itertools
import math
from collections.abc import Sequence
from typing import Final

from trunkline.demo import layout
from trunkline.demo.canvas import (
    CALLER,
    CUT,
    FAINT,
    LATENCY,
    PAPER,
    TOOL,
    Fill,
    Page,
    Stroke,
    Type,
    width_of,
    wrapped,
)
from trunkline.demo.layout import RIGHT_PX, Row
from trunkline.demo.report import BargeIn, CallerPart, Latency, Report, Sentence, ToolUse, Turn
from trunkline.demo.words import brief, divided

_LARGEST_SCALE: Final = 0.4
"""Latency bars are drawn larger than the time axis, or their small parts could not be seen; px per ms."""
_LONGEST_BAR_PX: Final = 420.0
_WORDS: Final = Type(size_px=11.5)
_UNHEARD: Final = Type(size_px=9.5, colour=CUT, italic=True, alpha=0.7)
_FLAG: Final = Type(size_px=9.5, colour=TOOL, layer=8)
_FLAG_FAILED: Final = Type(size_px=9.5, colour=CUT, layer=8)
_BARGE_IN: Final = Type(size_px=9.5, colour="white", bold=True, layer=8)
_SILENT: Final = Type(size_px=9.5, colour=CUT, layer=8)
_PART: Final = Type(size_px=8.5, alpha=0.8)
_TOTAL: Final = Type(size_px=12, bold=True)
_TURN: Final = Type(size_px=10, colour=FAINT)
_LINE_PX: Final = 14.0
_BARGE_IN_PX: Final = 62.0
_BAR_LABELS_PX: Final = 120.0
_MOST_LINES: Final = 3
_LEAST_PAUSE_MS: Final = 250
_WIDER: Final = 1.25
"""How much wider than its sound a line may be before it is broken."""


def pauses_of(report: Report) -> list[float]:
    """Return where a row may end: nobody speaks, the agent spoke last, and somebody is about to.

    The pause after the caller's words is none: it is what a latency bar explains, and stays with it.
    """
    sounds = [(t.caller.onset_ms, t.caller.offset_ms, True) for t in report.turns if t.caller is not None]
    for turn in report.turns:
        if turn.agent is not None:
            sounds.extend((sentence.starts_ms, sentence.ends_ms, False) for sentence in turn.agent.sentences)
    pauses = []
    until, caller_was_last = 0, False
    for begin, end, caller in sorted(sounds):
        if begin - until >= _LEAST_PAUSE_MS and not caller_was_last:
            pauses.append(float(begin - 120))
        if end >= until:
            until, caller_was_last = end, caller
    return pauses


def bar_scale(rows: Sequence[Row], report: Report) -> float:
    """Return how large latency bars can be drawn without touching each other, px per ms."""
    bars = [
        (turn.caller.offset_ms, sum(_parts(turn.latency)))
        for turn in report.turns
        if turn.caller is not None and turn.latency is not None
    ]
    scale = min(_LARGEST_SCALE, _LONGEST_BAR_PX / max((length_ms for _, length_ms in bars), default=1.0))
    for row in rows:
        mine = [bar for bar in bars if row.holds(bar[0])]
        for (offset_ms, length_ms), (next_ms, _) in itertools.pairwise(mine):
            room_px = row.x(next_ms) - row.x(offset_ms) - _BAR_LABELS_PX
            scale = min(scale, max(room_px, 40.0) / length_ms)
    return scale


def draw_row(page: Page, row: Row, report: Report, scale: float) -> None:
    """Draw everything but the sound of one row; `scale` is that of its latency bars."""
    spoken = [turn.caller for turn in report.turns if turn.caller is not None]
    for place, caller in enumerate(spoken):
        room_ms = spoken[place + 1].onset_ms if place + 1 < len(spoken) else row.end_ms
        _caller_words(page, row, caller, room_ms)
        _partials(page, row, caller)
    for place, turn in enumerate(report.turns):
        after = next((t.agent for t in report.turns[place + 1 :] if t.agent is not None), None)
        limit_ms = after.starts_ms if after is not None else report.recording.duration_ms
        _agent_words(page, row, turn, limit_ms)
        _unheard(page, row, turn, limit_ms)
        _gap(page, row, turn)
        if turn.caller is not None and row.holds(turn.caller.offset_ms):
            _bar(page, row, turn, scale)
    for tool in report.tools:
        if row.holds(tool.called_ms):
            others = [other.called_ms for other in report.tools] + [cut.at_ms for cut in report.interrupts]
            later = [row.x(at_ms) for at_ms in others if row.holds(at_ms) and at_ms > tool.called_ms]
            _tool(page, row, tool, min(later, default=math.inf) - _BARGE_IN_PX - 6)
    for cut in report.interrupts:
        _barge_in(page, row, cut)


def _caller_words(page: Page, row: Row, caller: CallerPart, room_ms: float) -> None:
    if not row.holds(caller.onset_ms):
        return
    span_ms = (caller.onset_ms, caller.offset_ms)
    lines = _fit(caller.transcript or "(nothing understood)", row, span_ms, room_ms)
    _put(page, row, lines, span_ms, row.top_px + layout.PARTIALS - 8 - (len(lines) - 1) * _LINE_PX)


def _partials(page: Page, row: Row, caller: CallerPart) -> None:
    """Draw a tick for each partial, as tall as it has words, and a full one with a head for the final."""
    floor = row.top_px + layout.CALLER_WAVE - 3
    reach = layout.CALLER_WAVE - layout.PARTIALS - 3
    most = max(1, len(caller.transcript.split()), *(len(partial.text.split()) for partial in caller.partials))
    for partial in caller.partials:
        if row.holds(partial.at_ms):
            share = len(partial.text.split()) / most
            x = row.x(partial.at_ms)
            look = Stroke(colour=CALLER, width_px=1.8, alpha=0.25 + 0.3 * share)
            page.line((x, x), (floor, floor - 3 - (reach - 3) * share), look)
    if caller.final_ms is not None and row.holds(caller.final_ms):
        x, tip = row.x(caller.final_ms), floor - reach
        page.line((x, x), (floor, tip), Stroke(colour=CALLER, width_px=2.2))
        page.shape([(x, tip - 4), (x + 4, tip), (x, tip + 4), (x - 4, tip)], CALLER)


def _agent_words(page: Page, row: Row, turn: Turn, limit_ms: float) -> None:
    heard = [s for s in (turn.agent.sentences if turn.agent is not None else ()) if s.ends_ms > s.starts_ms]
    for number, sentence in enumerate(heard):
        if row.holds(sentence.starts_ms):
            room_ms = heard[number + 1].starts_ms if number + 1 < len(heard) else limit_ms
            if sentence.unheard_ms > 0:
                room_ms = sentence.ends_ms  # what was never heard stands behind it
            span_ms = (sentence.starts_ms, sentence.ends_ms)
            lines = _fit(split_at_cut(sentence)[0], row, span_ms, room_ms)
            _put(page, row, lines, span_ms, row.top_px + layout.TEXT_DOWN + 10)


def _unheard(page: Page, row: Row, turn: Turn, limit_ms: float) -> None:
    """Hatch the audio that was meant and never heard, with its words, faded."""
    lost = [
        sentence for sentence in (turn.agent.sentences if turn.agent is not None else ()) if sentence.unheard_ms > 0
    ]
    if not lost:
        return
    begins = lost[0].ends_ms
    part = row.part(begins, min(begins + sum(sentence.unheard_ms for sentence in lost), limit_ms - 60))
    if part is None:
        return
    x, end = row.x(part[0]), row.x(part[1])
    top = row.top_px + layout.AGENT_WAVE + 8
    page.box(x, top, end - x, layout.WAVE_PX - 16, Fill(colour=CUT, alpha=0.06))
    page.box(x, top, end - x, layout.WAVE_PX - 16, Fill(colour="none", edge=CUT, alpha=0.32, hatch="/////"))
    text = " ".join(split_at_cut(sentence)[1] for sentence in lost)
    for number, line in enumerate(wrapped(text, max(end - x - 12, 160), _UNHEARD, _MOST_LINES)):
        page.text(x + 3, row.top_px + layout.TEXT_DOWN + 10 + number * 12, line, _UNHEARD)


def split_at_cut(sentence: Sentence) -> tuple[str, str]:
    """Divide a sentence into what was heard and what was not, by time, between two words."""
    heard_ms = sentence.ends_ms - sentence.starts_ms
    return divided(sentence.text, heard_ms, heard_ms + sentence.unheard_ms)


def _fit(text: str, row: Row, span_ms: tuple[float, float], room_ms: float) -> list[str]:
    """Wrap `text` to the width of its sound, or as much more as there is room for."""
    begin = row.x(span_ms[0])
    room = max(row.x(room_ms) - begin - 5, 50)
    wanted = max(row.x(span_ms[1]) - begin, 90)
    if width_of(text, _WORDS) <= min(wanted * _WIDER, room):
        return [text]
    return wrapped(text, min(wanted, room), _WORDS, _MOST_LINES)


def _put(page: Page, row: Row, lines: list[str], span_ms: tuple[float, float], y: float) -> None:
    """Write lines from `y` downwards; a single one with every word where it was said, as far as its length tells."""
    begin, end = row.x(span_ms[0]), row.x(span_ms[1])
    slack = end - begin - width_of(lines[0], _WORDS)
    if len(lines) > 1 or slack <= 0:
        for number, line in enumerate(lines):
            page.text(begin, y + number * _LINE_PX, line, _WORDS)
        return
    words = lines[0].split(" ")
    for word in words:
        page.text(begin, y, word, _WORDS)
        begin += width_of(word, _WORDS) + width_of(" ", _WORDS) + slack / len(words)


def _tool(page: Page, row: Row, tool: ToolUse, end_px: float) -> None:
    x, y = row.x(tool.called_ms), row.top_px + layout.TOOLS
    label = next((text for text in tool_labels(tool) if x + width_of(text, _FLAG) + 14 <= end_px), tool.name)
    width = width_of(label, _FLAG) + 14
    left = min(x, RIGHT_PX - width)
    page.line((x, x), (y - 6, row.top_px + layout.AGENT_WAVE + layout.WAVE_PX), Stroke(colour=TOOL, width_px=1.1))
    page.box(left, y + 1, width, 16, Fill(colour="#fdf3df", edge=TOOL, radius=3, layer=7))
    page.text(left + 7, y + 12.5, label, _FLAG_FAILED if tool.error else _FLAG)


def tool_labels(tool: ToolUse) -> tuple[str, ...]:
    """Return a tool call in one line, and the same in fewer and fewer words."""
    arguments, outcome = brief(tool.arguments), tool.error or brief(tool.result)
    return (
        f"{tool.name}({_clipped(arguments, 44)}) → {_clipped(outcome, 28)}",
        f"{tool.name}({_clipped(arguments, 20)}) → {_clipped(outcome, 12)}",
        f"{tool.name} → {_clipped(outcome, 12)}",
        tool.name,
    )


def _clipped(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip(" ,") + "…"


def _barge_in(page: Page, row: Row, cut: BargeIn) -> None:
    y, bottom = row.top_px + layout.TOOLS, row.top_px + layout.AGENT_WAVE + layout.WAVE_PX
    if row.holds(cut.at_ms):
        x = row.x(cut.at_ms)
        page.line((x, x), (row.top_px + layout.CALLER_WAVE - 4, bottom), Stroke(colour=CUT, width_px=1.5, layer=6))
        page.box(x - _BARGE_IN_PX, y + 1, _BARGE_IN_PX, 16, Fill(colour=CUT, radius=3, layer=7))
        page.text(x - _BARGE_IN_PX / 2, y + 12.5, "barge-in", _BARGE_IN, align="center")
    if row.holds(cut.cleared_ms):
        x = row.x(cut.cleared_ms)
        words = f"silent after {cut.stopped_after_ms} ms"
        look = Stroke(colour=CUT, width_px=1.2, dashed=True, layer=6)
        page.line((x, x), (row.top_px + layout.AGENT_WAVE - 4, bottom + 4), look)
        page.box(x + 2, y + 1, width_of(words, _SILENT) + 6, 15, Fill(colour=PAPER, layer=6.5))
        page.text(x + 5, y + 12.5, words, _SILENT)


def _gap(page: Page, row: Row, turn: Turn) -> None:
    """Shade the silence between the caller's last sound and the agent's first: what the bars explain."""
    if turn.caller is None or turn.latency is None or turn.latency.measured_ms is None:
        return
    part = row.part(turn.caller.offset_ms, turn.caller.offset_ms + turn.latency.measured_ms)
    if part is not None:
        x, height = row.x(part[0]), layout.AGENT_WAVE + layout.WAVE_PX - layout.CALLER_WAVE
        look = Fill(colour="#f3ead7", alpha=0.75, layer=1.4)
        page.box(x, row.top_px + layout.CALLER_WAVE, row.x(part[1]) - x, height, look)


def _parts(latency: Latency) -> tuple[float, ...]:
    """Return the parts of a turn's time, ms, in the order of `LATENCY`."""
    return (
        latency.endpoint_delay_ms,
        latency.stt_final_ms,
        latency.llm_ttft_ms,
        latency.first_sentence_ms,
        latency.tts_ttfb_ms,
        latency.edge_ms,
    )


def _bar(page: Page, row: Row, turn: Turn, scale: float) -> None:
    caller, latency = turn.caller, turn.latency
    if caller is None or latency is None:
        return
    parts = _parts(latency)
    y = row.top_px + layout.BARS
    label = f"{latency.measured_ms if latency.measured_ms is not None else latency.turn_latency_ms:.0f} ms"
    anchor = row.x(caller.offset_ms)
    x = min(anchor, RIGHT_PX - sum(parts) * scale - width_of(label, _TOTAL) - 8)
    top = row.top_px + layout.AGENT_WAVE + layout.WAVE_PX
    page.line((anchor, anchor), (top, y), Stroke(colour=FAINT, width_px=0.8, dashed=True, layer=1))
    page.text(x - 8, y + 9.5, f"turn {turn.turn}", _TURN, align="right")
    for (_, colour), part in zip(LATENCY, parts, strict=True):
        width = part * scale
        page.box(x, y, width, 12, Fill(colour=colour))
        if width > width_of(f"{part:.0f}", _PART) + 4:
            page.text(x + width / 2, y + 9.2, f"{part:.0f}", _PART, align="center")
        x += width
    page.text(x + 7, y + 10.2, label, _TOTAL)
