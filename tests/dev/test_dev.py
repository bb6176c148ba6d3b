"""The parts of `make run` that need no run: what is loaded, where the binaries are, what is removed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev import demo
from dev.data_folder import forget, opened
from dev.postgres import Account, reachable_binaries, wheel_binaries


@pytest.fixture
def reachable_folder() -> Iterator[Path]:
    """Where PostgreSQL's account gets to, unlike pytest's own folders."""
    with tempfile.TemporaryDirectory(prefix="rowlock-dev-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def test_placements_go_on_after_z() -> None:
    rows = demo.Show("", "", days=1, price=0, rows=28, seats_per_row=1).placements()
    assert (rows[0], rows[25], rows[26], rows[27]) == ("A1", "Z1", "AA1", "AB1")


def test_binaries_in_a_folder_that_only_root_may_enter_are_copied_with_their_libraries(reachable_folder: Path) -> None:
    binaries, closed = wheel_binaries(), reachable_folder / "closed"
    package = binaries.parents[1]
    for part in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(part, closed / part.name, symlinks=True)
    closed.chmod(0o700)
    original = closed / binaries.relative_to(package.parent)
    copied = reachable_binaries(original, Account.unprivileged(), reachable_folder)
    assert (copied == original) == (os.geteuid() != 0)
    for program in ("initdb", "postgres"):
        assert Account.unprivileged().run([str(copied / program), "--version"], cwd=Path("/")).returncode == 0


def test_only_what_was_made_is_removed(tmp_path: Path) -> None:
    with opened(tmp_path / "data") as made:
        (made / "postgresql" / "data").mkdir(parents=True)
        (made / "api.log").write_text("a line")
        (made / "somebody's").write_text("own")
    forget(tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["somebody's"]
    (tmp_path / "data" / "somebody's").unlink()
    forget(tmp_path / "data")
    assert not (tmp_path / "data").exists()
