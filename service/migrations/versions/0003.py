"""What the self-audit has found."""

from service.migrations import run_sql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Runs 0003.sql."""
    run_sql(revision)
