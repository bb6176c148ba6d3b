"""The page on reliability has the figures of the committed results."""

import pytest

from load.campaign.page import BEGIN, END, PAGE, figures, with_figures


def test_the_page_has_the_figures_of_the_results() -> None:
    text = PAGE.read_text()
    assert with_figures(text, figures()) == text, "run make docs"


def test_the_figures_stand_between_the_markers() -> None:
    assert with_figures(f"before\n{BEGIN}old\n{END}after\n", "new\n") == f"before\n{BEGIN}new\n{END}after\n"


def test_a_page_without_its_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="end of figures"):
        with_figures(f"before\n{BEGIN}old\n", "new\n")
