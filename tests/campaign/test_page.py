"""The page on reliability has the figures of the committed results."""

from pathlib import Path

import pytest

from load.campaign import page
from load.campaign.page import BEGIN, END, PAGE, figures, with_figures


def test_the_page_has_the_figures_of_the_results() -> None:
    text = PAGE.read_text()
    assert with_figures(text, figures()) == text, "run make docs"


def test_the_figures_stand_between_the_markers() -> None:
    assert with_figures(f"before\n{BEGIN}old\n{END}after\n", "new\n") == f"before\n{BEGIN}new\n{END}after\n"


def test_a_page_without_its_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="end of figures"):
        with_figures(f"before\n{BEGIN}old\n", "new\n")


@pytest.mark.parametrize(("runs", "text"), [(1, "in 1 campaign: 0"), (2, "in 2 campaigns: 0")])
def test_campaigns_are_counted_in_english(
    runs: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = next((page.RESULTS / "campaign").glob("*.json")).read_text()
    (tmp_path / "campaign").mkdir()
    for run in range(runs):
        (tmp_path / "campaign" / f"{run}.json").write_text(committed)
    (tmp_path / "mutants.json").write_text("[]")
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    assert text in figures()
