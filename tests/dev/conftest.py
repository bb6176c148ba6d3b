"""The data folder of a run."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stage.runs import started_with


@pytest.fixture
def folder() -> Iterator[Path]:
    """A data folder to be made, readable for PostgreSQL's account. No process may be left at the end of the test."""
    with tempfile.TemporaryDirectory(prefix="rowlock-run-") as made:
        Path(made).chmod(0o755)
        yield Path(made, "data")
        assert list(started_with(Path(made, "data"))) == []
