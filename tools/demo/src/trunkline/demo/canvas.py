"""A page to draw on, measured in CSS pixels from the top left, and the colours and type used on it.

Knows nothing of calls.
"""

import functools
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import BoxStyle, FancyBboxPatch, Polygon
from numpy.typing import NDArray

WIDTH_PX: Final = 1_600
SCALE: Final = 2
"""Device pixels per CSS pixel."""
_CSS_DPI: Final = 100
_POINT_PX: Final = 72 / _CSS_DPI

PAPER: Final = "#fbfaf7"
CARD: Final = "#ffffff"
INK: Final = "#1d2733"
SOFT: Final = "#5f6c7b"
FAINT: Final = "#9aa5b1"
LINE: Final = "#e6e3dc"
CALLER: Final = "#0f766e"
AGENT: Final = "#4453b8"
CUT: Final = "#d5482a"
TOOL: Final = "#a8690c"
LATENCY: Final = (
    ("endpointing", "#c3cbd6"),
    ("STT", "#5fb3a8"),
    ("LLM", "#7d83d6"),
    ("first sentence", "#b3a4e2"),
    ("TTS", "#edb25c"),
    ("edge", "#dd7b5f"),
)

_FINE: Final = 16
_FAMILY: Final = "DejaVu Sans"  # comes with matplotlib: the same on every machine


class Type(msgspec.Struct, frozen=True, kw_only=True):
    """How words look."""

    size_px: float
    colour: str = INK
    bold: bool = False
    italic: bool = False
    alpha: float = 1.0
    layer: float = 5


class Fill(msgspec.Struct, frozen=True, kw_only=True):
    """How a box looks."""

    colour: str
    edge: str = "none"
    radius: float = 0.0
    alpha: float = 1.0
    hatch: str = ""
    layer: float = 2


class Stroke(msgspec.Struct, frozen=True, kw_only=True):
    """How a line looks."""

    colour: str
    width_px: float = 1.0
    dashed: bool = False
    alpha: float = 1.0
    layer: float = 3


def font(kind: Type) -> FontProperties:
    """Return the page's typeface as `kind` wants it."""
    return FontProperties(
        family=_FAMILY,
        size=kind.size_px * _POINT_PX,
        weight="bold" if kind.bold else "normal",
        style="italic" if kind.italic else "normal",
    )


@functools.cache
def width_of(text: str, kind: Type) -> float:
    """Return how wide `text` is, px."""
    face = get_font(findfont(font(kind)))
    face.set_size(_FINE * kind.size_px, 72)  # at 72 dpi a point is a pixel; large, because widths are rounded
    # A stroke on either side, because the width of ink leaves out spaces at the ends.
    face.set_text(f"|{text}|")
    both = face.get_width_height()[0]
    face.set_text("||")
    return float(both - face.get_width_height()[0]) / 64 / _FINE


def wrapped(text: str, width_px: float, kind: Type, most_lines: int) -> list[str]:
    """Break `text` into at most `most_lines` lines of `width_px`; what does not fit is replaced by an ellipsis.

    Lines are made wider, up to twice, before words are left out.
    """
    lines: list[str] = []
    for factor in (1.0, 1.25, 1.5, 2.0):
        lines = _filled(text.split(), width_px * factor, kind)
        if len(lines) <= most_lines:
            return lines
    return [*lines[: most_lines - 1], lines[most_lines - 1] + " …"]


def _filled(words: Sequence[str], width_px: float, kind: Type) -> list[str]:
    lines: list[str] = []
    for word in words:
        if lines and width_of(f"{lines[-1]} {word}", kind) <= width_px:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(word)
    return lines


class Page:
    """A figure with one axes over all of it. y grows downwards."""

    def __init__(self, height_px: float) -> None:
        self.height_px: Final = height_px
        self.figure: Final = Figure(
            figsize=(WIDTH_PX / _CSS_DPI, height_px / _CSS_DPI), dpi=_CSS_DPI * SCALE, facecolor=PAPER
        )
        FigureCanvasAgg(self.figure)
        self._axes = self.figure.add_axes((0, 0, 1, 1))
        self._axes.set_xlim(0, WIDTH_PX)
        self._axes.set_ylim(height_px, 0)
        self._axes.axis("off")

    def text(self, x: float, y: float, words: str, kind: Type, align: str = "left") -> None:
        """Write `words` with the baseline at `y`; `align` says which end of them is at `x`."""
        written = self._axes.text(x, y, words, fontproperties=font(kind), ha=align, va="baseline")
        written.set(color=kind.colour, alpha=kind.alpha, zorder=kind.layer)

    def box(self, x: float, y: float, width: float, height: float, fill: Fill) -> None:
        """Draw a box with its upper left corner at (`x`, `y`)."""
        radius = min(fill.radius, width / 2, height / 2)
        corners = BoxStyle.Round(pad=0, rounding_size=radius) if radius else BoxStyle.Square(pad=0)
        look = FancyBboxPatch((x, y), width, height, boxstyle=corners, linewidth=0.7, zorder=fill.layer)
        look.set(facecolor=fill.colour, edgecolor=fill.edge, alpha=fill.alpha, hatch=fill.hatch or None)
        self._axes.add_patch(look)

    def shape(self, points: Sequence[tuple[float, float]], colour: str) -> None:
        """Draw a filled polygon."""
        self._axes.add_patch(Polygon(points, closed=True, facecolor=colour, edgecolor="none", zorder=4))

    def line(self, x: tuple[float, float], y: tuple[float, float], stroke: Stroke) -> None:
        """Draw a line from (x[0], y[0]) to (x[1], y[1])."""
        (drawn,) = self._axes.plot(x, y, color=stroke.colour, linewidth=stroke.width_px * _POINT_PX)
        drawn.set(linestyle=(0, (2.5, 2.5)) if stroke.dashed else "-", solid_capstyle="round")
        drawn.set(alpha=stroke.alpha, zorder=stroke.layer)

    def wave(
        self, x: NDArray[np.float64], middle: float, reach: NDArray[np.float64], colour: str, *, layer: float = 4
    ) -> None:
        """Draw an envelope of ± `reach` px about the height `middle`."""
        self._axes.fill_between(x, middle - reach, middle + reach, color=colour, linewidth=0, zorder=layer)
