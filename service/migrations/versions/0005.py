"""What the round of the self-audit that is under way has found, and where it is."""

from service.migrations import run_sql

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Runs 0005.sql."""
    run_sql(revision)
