"""The text of the figures on reliability."""

from pathlib import Path

import pytest

from load.campaign import page
from load.campaign.page import figures
from load.pages import RESULTS


@pytest.mark.parametrize(("runs", "text"), [(1, "in 1 campaign: 0"), (2, "in 2 campaigns: 0")])
def test_campaigns_are_counted_in_english(
    runs: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = next((RESULTS / "campaign").glob("*.json")).read_text()
    (tmp_path / "campaign").mkdir()
    for run in range(runs):
        (tmp_path / "campaign" / f"{run}.json").write_text(committed)
    (tmp_path / "mutants.json").write_text("[]")
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    assert text in figures()
