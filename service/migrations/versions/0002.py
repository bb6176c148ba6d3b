"""The queues of hints that RabbitMQ has."""

from service.migrations import run_sql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Runs 0002.sql."""
    run_sql(revision)
