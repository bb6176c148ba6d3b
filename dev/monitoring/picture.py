"""Draws a dashboard's curves as an SVG for the documentation, from Prometheus's answers, without Grafana."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from dev.monitoring.panels import Dashboard, Panel

Curve = Sequence[tuple[float, float]]
"""Pairs of seconds since 1970 and a value."""

WIDTH, HEIGHT, GAP, HEAD = 380, 204, 14, 56
PLOT_LEFT, PLOT_TOP, RIGHT, BOTTOM = 46, 34, WIDTH - 12, HEIGHT - 52
LEGEND_LEFT, LEGEND_GAP, LEGEND_LINE = 10, 12, 14
CHARACTER = 6.4
"""The width of a character in the legend in a wide font: the reader's font is unknown."""
PANELS_A_ROW = 3
STILL = "#8c959f"
"""Curves that stay at 0 are grey, so that a busy system shows more colour."""
NOTHING = "nothing to measure"
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#bf3989", "#0a7d91")
UNITS = {"s": " s", "ops": "/s", "reqps": "/s", "percentunit": ""}


@dataclass(frozen=True, slots=True)
class Drawn:
    """A panel, its curves by legend, and the top of its axis, which is the same in pictures to compare."""

    panel: Panel
    curves: Mapping[str, Curve]
    top: float


@dataclass(frozen=True, slots=True)
class Shown:
    """A curve as it is drawn."""

    legend: str
    curve: Curve
    colour: str


def picture(dashboard: Dashboard, subtitle: str, panels: Sequence[Drawn], begin: float, end: float) -> str:
    """An SVG with all panels, three in a row."""
    rows = math.ceil(len(panels) / PANELS_A_ROW)
    width, height = PANELS_A_ROW * (WIDTH + GAP) + GAP, HEAD + rows * (HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
        f'<rect width="{width}" height="{height}" fill="#f6f8fa"/>',
        _text(GAP, 24, dashboard.title, 16, "bold"),
        _text(GAP, 44, subtitle, 12),
    ]
    for place, drawn in enumerate(panels):
        row, column = divmod(place, PANELS_A_ROW)
        x, y = GAP + column * (WIDTH + GAP), HEAD + row * (HEIGHT + GAP)
        parts.append(f'<g transform="translate({x} {y})">{_panel(drawn, begin, end)}</g>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def highest(curves: Mapping[str, Curve]) -> float:
    """The largest finite value, or 0."""
    return max((value for curve in curves.values() for _, value in curve if math.isfinite(value)), default=0.0)


def _panel(drawn: Drawn, begin: float, end: float) -> str:
    top = _rounded_up(drawn.top)
    unit = UNITS.get(drawn.panel.unit, "")
    parts = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="4" fill="white" stroke="#d0d7de"/>',
        _text(10, 20, drawn.panel.title, 12, "bold"),
    ]
    for share in (0.0, 0.5, 1.0):
        y = BOTTOM - share * (BOTTOM - PLOT_TOP)
        parts.append(f'<path d="M{PLOT_LEFT} {y:.1f}H{RIGHT}" stroke="#d8dee4"/>')
        parts.append(_text(PLOT_LEFT - 4, y + 3, f"{share * top:.3g}{unit}", 9, anchor="end"))
    shown = [
        Shown(legend, curve, COLOURS[number % len(COLOURS)] if highest({legend: curve}) else STILL)
        for number, (legend, curve) in enumerate(drawn.curves.items())
    ]
    # Coloured curves are drawn over grey ones.
    for one in sorted(shown, key=lambda one: one.colour != STILL):
        points = [
            (
                PLOT_LEFT + (at - begin) / (end - begin) * (RIGHT - PLOT_LEFT),
                BOTTOM - min(value, top) / top * (BOTTOM - PLOT_TOP),
            )
            for at, value in one.curve
            if math.isfinite(value)
        ]
        parts.append(_line(points, one.colour))
    if not any(math.isfinite(value) for one in shown for _, value in one.curve):
        parts.append(
            _text((PLOT_LEFT + RIGHT) / 2, (PLOT_TOP + BOTTOM) / 2 + 20, NOTHING, 11, colour=STILL, anchor="middle")
        )
    return "".join([*parts, *_legend(shown, unit)])


def _line(points: Sequence[tuple[float, float]], colour: str) -> str:
    """A curve with a filled area, which is visible from a distance."""
    if not points:
        return ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    area = f"{points[0][0]:.1f},{BOTTOM} {path} {points[-1][0]:.1f},{BOTTOM}"
    return (
        f'<polygon points="{area}" fill="{colour}" fill-opacity="0.15"/>'
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
    )


def _legend(shown: Sequence[Shown], unit: str) -> list[str]:
    """Each curve's name and highest value, wrapped into lines."""
    parts, x, y = [], LEGEND_LEFT, BOTTOM + 16
    for one in shown:
        peak = highest({one.legend: one.curve})
        text = f"{one.legend} {peak:.2g}{unit}" if peak else one.legend
        width = len(text) * CHARACTER
        if x > LEGEND_LEFT and x + width > RIGHT:
            x, y = LEGEND_LEFT, y + LEGEND_LINE
        parts.append(_text(x, y, text, 10, colour=one.colour))
        x += round(width) + LEGEND_GAP
    assert y < HEIGHT, "the legend is too long"
    return parts


def _rounded_up(value: float) -> float:
    """The next number that reads well on an axis."""
    if not value:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return float(next(step for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= value) * power)


def _text(x: float, y: float, text: str, size: int, weight: str = "normal", **more: str) -> str:
    colour, anchor = more.get("colour", "#1f2328"), more.get("anchor", "start")
    return (
        f'<text x="{x}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{colour}"'
        f' text-anchor="{anchor}">{escape(text)}</text>'
    )
