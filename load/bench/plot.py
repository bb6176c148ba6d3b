"""The holds a second of bench.json as bars, in SVG."""

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

WIDTH, LABEL_WIDTH, BAR_WIDTH_MAX, ROW_HEIGHT = 760, 270, 400, 28
STYLE = """
text { font: 13px sans-serif; fill: #1f2328; }
rect { fill: #8c959f; }
.ours { fill: #0969da; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; }
rect { fill: #6e7681; }
.ours { fill: #4493f8; }
}
"""


def bars(found: Mapping[str, Any]) -> list[tuple[str, float, bool]]:
    """The limits and our best settings: name, rate a second, and whether it is ours."""
    rates = {name: one["per_second"] for name, one in found["medians"].items()}
    ratios = found["ratios"]
    limits = [(name, rates[name]) for name in ("N", "B", "P1", "REF")]
    limits.insert(2, ("L", ratios["l_per_second"]))
    ours = [ratios["ours"], ratios["ours_all_on"]]
    return [(name, rate, False) for name, rate in limits] + [(name, rates[name], True) for name in ours]


def svg(found: Mapping[str, Any]) -> str:
    """The picture. Its colours follow the reader's light or dark mode."""
    rows = bars(found)
    longest = max(rate for _, rate, _ in rows)
    height = ROW_HEIGHT * len(rows) + 12
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
            ' role="img" aria-label="Holds a second">'
        ),
        f"<style>{STYLE}</style>",
    ]
    for n, (name, rate, is_ours) in enumerate(rows):
        top, width = 6 + n * ROW_HEIGHT, BAR_WIDTH_MAX * rate / longest
        colour = ' class="ours"' if is_ours else ""
        lines += [
            f'<text x="{LABEL_WIDTH - 8}" y="{top + 18}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{LABEL_WIDTH}" y="{top + 4}" width="{width:.1f}" height="{ROW_HEIGHT - 8}"{colour}/>',
            f'<text x="{LABEL_WIDTH + width + 6:.1f}" y="{top + 18}">{rate:,.0f}/s</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
