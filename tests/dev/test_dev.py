"""The parts of `make run` that need no run: demo data, programs, servers and the removal of data."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from dev import demo
from dev.data_folder import forget, opened
from dev.postgres import oldest_on_debian, reachable_binaries, wheel_binaries
from dev.processes import Account
from tests.stage.servers import Servers


@pytest.fixture
def reachable_folder() -> Iterator[Path]:
    """A folder that PostgreSQL's account can read, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="rowlock-dev-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def test_placements_go_on_after_z() -> None:
    rows = demo.Show("", "", days=1, price=0, rows=28, seats_per_row=1).placements()
    assert (rows[0], rows[25], rows[26], rows[27]) == ("A1", "Z1", "AA1", "AB1")


def test_programs_in_a_closed_folder_are_copied_with_libraries(reachable_folder: Path) -> None:
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


@pytest.mark.parametrize(
    ("installed", "oldest"), [([15, 16, 17], 15), ([17], 17), ([14, 16], 16), ([14], 15), ([], 15)]
)
def test_the_oldest_supported_postgresql_is_used(tmp_path: Path, installed: list[int], oldest: int) -> None:
    # The client's package makes the folder too, without the server.
    (tmp_path / "15" / "bin").mkdir(parents=True)
    for major in installed:
        (tmp_path / str(major) / "bin").mkdir(parents=True, exist_ok=True)
        (tmp_path / str(major) / "bin" / "postgres").touch()
    assert oldest_on_debian(tmp_path) == oldest


async def test_a_paused_postgresql_answers_again_when_resumed(servers: Servers) -> None:
    server = servers.make("paused")
    connection = await asyncpg.connect(server.url())
    server.pause()
    answer = asyncio.create_task(connection.fetchval("select 1"))
    assert await asyncio.wait({answer}, timeout=0.3) == (set(), {answer})
    server.resume()
    assert await answer == 1
    server.pause()
    # A paused server can be stopped too.
    server.stop()
    connection.terminate()


def test_only_the_files_of_make_run_are_removed(tmp_path: Path) -> None:
    with opened(tmp_path / "data") as made:
        (made / "postgresql" / "data").mkdir(parents=True)
        (made / "api.log").write_text("a line")
        (made / "other").write_text("kept")
    forget(tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["other"]
    (tmp_path / "data" / "other").unlink()
    forget(tmp_path / "data")
    assert not (tmp_path / "data").exists()
