"""Alembic runs the steps. Its revisions are made here from the names of the SQL files, in memory."""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import ModuleType

from alembic.runtime.migration import MigrationContext, MigrationStep, RevisionStep
from alembic.script.base import Script
from alembic.script.revision import RevisionMap
from sqlalchemy import Connection
from sqlalchemy.util import await_only

from service.migrations import FOLDER


def upgrade(connection: Connection, folder: Path = FOLDER) -> None:
    """Runs the missing steps in the connection's transaction, and records the last one in `alembic_version`."""
    files = sorted(folder.glob("[0-9][0-9][0-9][0-9].sql"))
    revisions = RevisionMap(lambda: [_revision(connection, *pair) for pair in pairwise([None, *files])])
    context = MigrationContext.configure(connection, opts={"fn": partial(_missing, revisions)})
    context.run_migrations()


def _revision(connection: Connection, before: Path | None, file: Path | None) -> Script:
    """The revision that Alembic would read from a Python file."""
    assert file is not None
    path = file

    # A function, since Alembic logs its name.
    def upgrade() -> None:
        _run(connection, path)

    step = ModuleType(file.stem, f"{file.name}.")
    vars(step).update(
        revision=file.stem,
        down_revision=before.stem if before else None,
        upgrade=upgrade,
    )
    return Script(step, file.stem, str(file))


def _missing(revisions: RevisionMap, heads: tuple[str, ...], _context: MigrationContext) -> Iterator[RevisionStep]:
    """The steps above the database's, oldest first; Alembic iterates from the newest."""
    newest_first = revisions.iterate_revisions("head", heads, implicit_base=True)
    steps = [step for step in newest_first if isinstance(step, Script)]
    return (MigrationStep.upgrade_from_script(revisions, step) for step in reversed(steps))


def _run(connection: Connection, file: Path) -> None:
    """Sends the file, which has many statements, to the driver: SQLAlchemy prepares one statement at a time."""
    driver = connection.connection.driver_connection
    assert driver is not None
    await_only(driver.execute(file.read_text()))
