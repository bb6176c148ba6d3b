"""A dashboard's curves as an SVG, for the documentation; drawn from what Prometheus answers, without Grafana."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from dev.monitoring.panels import Dashboard, Panel

Curve = Sequence[tuple[float, float]]
"""Seconds since 1970, and the value."""

WIDTH, HEIGHT, GAP, HEAD = 380, 190, 14, 56
PLOT_LEFT, PLOT_TOP, PLOT_RIGHT, PLOT_BOTTOM = 46, 34, 12, 42
PANELS_A_ROW = 3
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#bf3989", "#57606a")
UNITS = {"s": " s", "ops": "/s", "reqps": "/s", "percentunit": ""}


@dataclass(frozen=True, slots=True)
class Drawn:
    """A panel, its curves by legend, and the top of its axis, which pictures that are compared share."""

    panel: Panel
    curves: Mapping[str, Curve]
    top: float


def picture(dashboard: Dashboard, subtitle: str, panels: Sequence[Drawn], begin: float, end: float) -> str:
    """All panels, three a row."""
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
    """The largest value that is one."""
    return max((value for curve in curves.values() for _, value in curve if math.isfinite(value)), default=0.0)


def _panel(drawn: Drawn, begin: float, end: float) -> str:
    bottom, right = HEIGHT - PLOT_BOTTOM, WIDTH - PLOT_RIGHT
    top = drawn.top or 1.0
    unit = UNITS.get(drawn.panel.unit, "")
    parts = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="4" fill="white" stroke="#d0d7de"/>',
        _text(10, 20, drawn.panel.title, 12, "bold"),
    ]
    for share in (0.0, 0.5, 1.0):
        y = bottom - share * (bottom - PLOT_TOP)
        parts.append(f'<path d="M{PLOT_LEFT} {y:.1f}H{right}" stroke="#d8dee4"/>')
        parts.append(_text(PLOT_LEFT - 4, y + 3, f"{share * top:.3g}{unit}", 9, anchor="end"))
    for number, (legend, curve) in enumerate(drawn.curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = [
            (
                PLOT_LEFT + (at - begin) / (end - begin) * (right - PLOT_LEFT),
                bottom - min(value, top) / top * (bottom - PLOT_TOP),
            )
            for at, value in curve
            if math.isfinite(value)
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        column, line = number % 4, number // 4
        parts.append(_text(PLOT_LEFT + column * 82, bottom + 18 + line * 13, legend, 10, colour=colour))
    return "".join(parts)


def _text(x: float, y: float, text: str, size: int, weight: str = "normal", **more: str) -> str:
    colour, anchor = more.get("colour", "#1f2328"), more.get("anchor", "start")
    return (
        f'<text x="{x}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{colour}"'
        f' text-anchor="{anchor}">{escape(text)}</text>'
    )
