"""The self-audit keeps no state of a round any more, only violations."""

from service.migrations import run_sql

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Runs 0006.sql."""
    run_sql(revision)
