"""Pages with generated figures have those of the committed results."""

import json
from typing import Literal

import pytest

from load.bench import page as performance
from load.campaign import page as reliability
from load.pages import END, RESULTS, Page

PAGE = Page("a-page.md", "load.a_module")


def test_performance_has_the_figures_of_the_results() -> None:
    text = performance.PAGE.path.read_text()
    made = performance.figures(json.loads((RESULTS / "bench.json").read_bytes()))
    assert performance.PAGE.with_figures(text, made) == text, "run make docs"


def test_reliability_has_the_figures_of_the_results() -> None:
    text = reliability.PAGE.path.read_text()
    assert reliability.PAGE.with_figures(text, reliability.figures()) == text, "run make docs"


def test_the_figures_stand_between_the_markers() -> None:
    assert PAGE.with_figures(f"before\n{PAGE.begin}old\n{END}after\n", "new\n") == (
        f"before\n{PAGE.begin}new\n{END}after\n"
    )


def test_a_page_without_its_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="end of figures"):
        PAGE.with_figures(f"before\n{PAGE.begin}old\n", "new\n")


@pytest.mark.parametrize(
    ("value", "sign", "reached"), [(0.9, "≥", "yes"), (0.89, "≥", "no"), (0.9, "≤", "yes"), (0.91, "≤", "no")]
)
def test_a_goal_is_reached_at_its_bound(value: float, sign: Literal["≥", "≤"], reached: str) -> None:
    row = performance.Goal("goal", lambda found: found["value"], sign, 0.9).row({"value": value})
    assert row
    assert row[3] == reached


def test_a_goal_without_a_measurement_is_left_out() -> None:
    assert performance.Goal("goal", lambda found: found["value"], "≥", 0.9).row({}) is None
