"""Where on the page a moment is. Pure arithmetic, in CSS pixels."""

import itertools
import math
from typing import Final

import msgspec

LEFT_PX: Final = 118.0
RIGHT_PX: Final = 1_564.0
HEAD_PX: Final = 140.0
ROW_PX: Final = 256.0
FOOT_PX: Final = 30.0
_LONGEST_ROW_MS: Final = 18_000
_SHORTEST_ROW_MS: Final = 6_000

PARTIALS: Final = 50.0
"""Tops of the strips of a row, from the row's own top. The caller's words stand above the partials; then come the
caller's wave, the tools, the agent's wave and words, and the latency bars."""
CALLER_WAVE: Final = 72.0
TOOLS: Final = 116.0
AGENT_WAVE: Final = 134.0
TEXT_DOWN: Final = 182.0
BARS: Final = 226.0
WAVE_PX: Final = 44.0


class Row(msgspec.Struct, frozen=True):
    """A stretch of the call, drawn from left to right."""

    top_px: float
    begin_ms: float
    end_ms: float
    px_per_ms: float

    @property
    def right_px(self) -> float:
        """Where the row ends on the page: a row shorter than the others ends earlier."""
        return self.x(self.end_ms)

    def x(self, at_ms: float) -> float:
        """Return the place of `at_ms`, kept inside the row."""
        return LEFT_PX + (min(self.end_ms, max(self.begin_ms, at_ms)) - self.begin_ms) * self.px_per_ms

    def holds(self, at_ms: float) -> bool:
        """Return whether `at_ms` is in this row."""
        return self.begin_ms <= at_ms < self.end_ms

    def part(self, begin_ms: float, end_ms: float) -> tuple[float, float] | None:
        """Return what of a stretch is in this row, ms; None if nothing is."""
        begin, end = max(begin_ms, self.begin_ms), min(end_ms, self.end_ms)
        return (begin, end) if begin < end else None


def rows_of(duration_ms: float, pauses_ms: list[float]) -> list[Row]:
    """Cut a call into rows of equal scale, at a pause near each cut where there is one, so that few words are cut.

    `pauses_ms` are moments at which nobody speaks.
    """
    count = max(1, math.ceil(duration_ms / _LONGEST_ROW_MS))
    even_ms = duration_ms / count
    cuts = [0.0]
    for number in range(1, count):
        ideal = number * even_ms
        near = [pause for pause in pauses_ms if abs(pause - ideal) < even_ms / 5 and pause > cuts[-1]]
        cuts.append(min(near, key=lambda pause: abs(pause - ideal), default=ideal))
    cuts.append(duration_ms)
    stretches = list(itertools.pairwise(cuts))
    px_per_ms = (RIGHT_PX - LEFT_PX) / max(_SHORTEST_ROW_MS, *(end - begin for begin, end in stretches))
    return [Row(HEAD_PX + number * ROW_PX, *stretch, px_per_ms) for number, stretch in enumerate(stretches)]


def page_height(rows: int) -> float:
    """Return the height of the page, px."""
    return HEAD_PX + rows * ROW_PX + FOOT_PX
