"""The pictures in docs/ are readable, and a storm differs from an idle system."""

import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from dev.monitoring.locks import LOCKS
from dev.monitoring.picture import CHARACTER, COLOURS, NOTHING, STILL, WIDTH, Drawn, picture

DOCS = Path(__file__).parents[2] / "docs"
SVG = "{http://www.w3.org/2000/svg}"
CURVES = 15
"""The minimum of coloured curves in a storm. An idle system has a fraction of them."""


def _panels(svg: str) -> list[ET.Element]:
    return ET.fromstring(svg).findall(f"{SVG}g")  # noqa: S314 - our own


def _titles(panels: Sequence[ET.Element]) -> list[str | None]:
    """The titles of the panels."""
    return [text.text for panel in panels for text in panel.findall(f"{SVG}text") if text.get("font-weight") == "bold"]


def _moving(svg: str) -> list[str]:
    return [colour for colour in re.findall(r'<polyline[^>]*stroke="([^"]*)"', svg) if colour != STILL]


def _written(panel: ET.Element) -> list[tuple[float, float, float]]:
    """The left edge, right edge and line of each text in the legend."""
    found = []
    for text in panel.findall(f"{SVG}text"):
        if text.get("font-size") == "10":
            left = float(text.attrib["x"])
            found.append((left, left + len(text.text or "") * CHARACTER, float(text.attrib["y"])))
    return found


@pytest.mark.parametrize("name", ["idle", "storm"])
def test_pictures_have_all_panels_and_readable_legends(name: str) -> None:
    panels = _panels((DOCS / f"locks-{name}.svg").read_text())
    assert _titles(panels) == [panel.title for row in LOCKS.rows for panel in row.panels]
    for panel in panels:
        words = _written(panel)
        assert words
        assert all(right <= WIDTH for _, right, _ in words)
        for (left, right, line), (other_left, other_right, other_line) in combinations(words, 2):
            assert line != other_line or right <= other_left or other_right <= left


def test_a_storm_has_many_colours_and_an_idle_system_few() -> None:
    idle, storm = (_moving((DOCS / f"locks-{name}.svg").read_text()) for name in ("idle", "storm"))
    assert len(storm) >= CURVES
    assert len(idle) * 5 <= len(storm)


def test_a_curve_at_0_is_grey_and_missing_data_is_named() -> None:
    panel = LOCKS.rows[0].panels[0]

    def drawn(*values: float) -> str:
        curve = list(enumerate(values))
        return picture(LOCKS, "", [Drawn(panel, {"seats": curve}, 0.3)], 0, len(values))

    assert _moving(drawn(0, 0.2, 0)) == [COLOURS[0]]
    assert "seats 0.2 s" in drawn(0, 0.2, 0)
    assert _moving(drawn(0, 0, 0)) == []
    assert NOTHING not in drawn(0, 0, 0)
    assert NOTHING in drawn(float("nan"), float("nan"))
