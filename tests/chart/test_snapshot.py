"""The default rendering in the repository, whose diff shows what a change of the chart does."""

import yaml

from dev.chart_snapshot import SNAPSHOT, snapshot


def test_the_snapshot_is_the_default_rendering() -> None:
    # As objects: versions of helm differ in blank lines.
    written, made = (list(yaml.safe_load_all(text)) for text in (SNAPSHOT.read_text(), snapshot()))
    assert written == made, "run python -m dev.chart_snapshot"
