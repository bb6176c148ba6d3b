"""Where the trace of a hold and of an event is kept."""

from service.migrations import run_sql

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Runs 0004.sql."""
    run_sql(revision)
