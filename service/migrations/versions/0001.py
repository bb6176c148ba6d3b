"""The ledger."""

from service.migrations import run_sql

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Runs 0001.sql."""
    run_sql(revision)
