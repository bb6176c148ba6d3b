"""Alembic runs the steps. Its revisions are made here from the names of the SQL files, in memory."""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

from alembic.runtime.migration import MigrationContext, MigrationStep
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
    """What Alembic would read from a file of Python."""
    assert file is not None
    step = ModuleType(file.stem, f"{file.name}.")
    vars(step).update(
        revision=file.stem,
        down_revision=before.stem if before else None,
        upgrade=partial(_run, connection, file),
    )
    return Script(step, file.stem, str(file))


def _missing(revisions: RevisionMap, heads: tuple[str, ...], _context: MigrationContext) -> Iterator[Any]:
    steps = list(revisions.iterate_revisions("head", heads, implicit_base=True))
    return (MigrationStep.upgrade_from_script(revisions, step) for step in reversed(steps))


def _run(connection: Connection, file: Path) -> None:
    """Sends the file, which has many statements, to the driver: SQLAlchemy prepares one statement at a time."""
    driver = connection.connection.driver_connection
    assert driver is not None
    await_only(driver.execute(file.read_text()))
