"""The schema, step by step: `NNNN.sql` is what a person reads, `versions/NNNN.py` what Alembic runs."""

from pathlib import Path

from alembic import op
from sqlalchemy.util import await_only

FOLDER = Path(__file__).parent

NEWEST = max(path.stem for path in FOLDER.glob("[0-9][0-9][0-9][0-9].sql"))
"""The schema that this code needs. A newer one is fine: a step takes away nothing that the release before needs."""


def run_sql(revision: str) -> None:
    """Runs the step's file, of many statements, in the transaction that Alembic has opened."""
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    await_only(driver.execute((FOLDER / f"{revision}.sql").read_text()))
