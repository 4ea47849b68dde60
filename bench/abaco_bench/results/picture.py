"""Figures as a picture: horizontal bars in SVG, by hand and without a library. Pure.

A bar ends at the median, its whisker goes from p10 to p90, and the tick beyond is p99.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from xml.sax.saxutils import escape

import msgspec

from abaco_bench.results.figures import Figure, Spread
from abaco_bench.results.report import number

WIDTH = 980
LABELS = 330
"""Room for the names, on the left."""

NUMBERS = 110
"""Room for the medians, on the right."""

ROW = 26
BAR = 14
OURS, THEIRS, INK, GRID = "#2563eb", "#9ca3af", "#111827", "#e5e7eb"

Scale = Callable[[float], float]


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """Bars with one axis. ``ours`` are the names of the figures that have our colour."""

    title: str
    figures: Sequence[Figure]
    ours: frozenset[str]
    logarithmic: bool


def draw(title: str, panels: Sequence[Panel]) -> str:
    """The picture, one panel below the other; panels without figures are left out."""
    body, y = [_text(16, 30, title, size=18, weight="bold")], 52
    for panel in panels:
        if panel.figures:
            body += _panel(panel, y)
            y += ROW * len(panel.figures) + 76
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" '
        f'viewBox="0 0 {WIDTH} {y}" font-family="DejaVu Sans, Helvetica, Arial, sans-serif">'
    )
    background = f'<rect width="{WIDTH}" height="{y}" fill="white"/>'
    return "\n".join([head, background, *body, "</svg>", ""])


def _panel(panel: Panel, top: int) -> Iterator[str]:
    unit = panel.figures[0].unit
    low, high = _range(panel)
    x = _scale(low, high, logarithmic=panel.logarithmic)
    bottom = top + 30 + ROW * len(panel.figures)
    how = "logarithmic" if panel.logarithmic else "linear"
    yield _text(16, top + 12, f"{panel.title} ({unit}, {how}; p10-p90, tick p99)", size=13)
    for value in _ticks(low, high, logarithmic=panel.logarithmic):
        yield _line(x(value), top + 24, x(value), bottom, colour=GRID)
        yield _text(x(value), bottom + 14, f"{value:g}", size=11, anchor="middle")
    for n, figure in enumerate(panel.figures):
        colour = OURS if figure.name in panel.ours else THEIRS
        yield from _bar(figure, top + 30 + n * ROW, x, low, colour)


def _bar(figure: Figure, y: int, x: Scale, low: float, colour: str) -> Iterator[str]:
    s, middle = figure.spread, y + BAR / 2
    end = x(max(s.p50, low))
    yield _text(LABELS - 10, y + 11, figure.name, size=12, anchor="end")
    yield (
        f'<rect x="{LABELS}" y="{y}" width="{max(end - LABELS, 1):.1f}" height="{BAR}" '
        f'fill="{colour}"/>'
    )
    yield _line(x(max(s.p10, low)), middle, x(max(s.p90, low)), middle, colour=INK, width=1.5)
    for value, half in ((s.p10, 3), (s.p90, 3), (s.p99, 5)):
        at = x(max(value, low))
        yield _line(at, middle - half, at, middle + half, colour=INK, width=1.5)
    yield _text(WIDTH - NUMBERS + 14, y + 11, f"{number(s.p50)} {figure.unit}", size=12)


def _range(panel: Panel) -> tuple[float, float]:
    """The ends of the axis: whole powers of ten, or from zero to a little above the highest."""
    spreads = [figure.spread for figure in panel.figures]
    high = max(_highest(s) for s in spreads)
    if not panel.logarithmic:
        return 0.0, high * 1.05 or 1.0
    low = min(s.p10 for s in spreads if s.p10 > 0)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return 10.0**first, 10.0 ** max(last, first + 1)


def _highest(s: Spread) -> float:
    return max(s.p50, s.p90, s.p99)


def _scale(low: float, high: float, *, logarithmic: bool) -> Scale:
    room = WIDTH - LABELS - NUMBERS

    def place(value: float) -> float:
        if logarithmic:
            return LABELS + room * math.log(value / low) / math.log(high / low)
        return LABELS + room * (value - low) / (high - low)

    return place


def _ticks(low: float, high: float, *, logarithmic: bool) -> list[float]:
    if logarithmic:
        powers = round(math.log10(high / low))
        return [low * 10**n for n in range(powers + 1)]
    step = 10.0 ** math.floor(math.log10(high))
    step = step if high / step >= 3 else step / 4
    return [n * step for n in range(int(high / step) + 1)]


def _line(  # noqa: PLR0913 - what a line has
    x1: float, y1: float, x2: float, y2: float, *, colour: str, width: float = 1
) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{colour}" stroke-width="{width}"/>'
    )


def _text(  # noqa: PLR0913 - what a text has
    x: float, y: float, words: str, *, size: int, anchor: str = "start", weight: str = "normal"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
        f'font-weight="{weight}" fill="{INK}">{escape(words)}</text>'
    )
