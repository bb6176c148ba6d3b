"""`python -m service.migrate`: brings the database's schema to this release's, whoever else does so now."""

import asyncio
import sys

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from service import settings
from service.errors import NotReady
from service.migrations import FOLDER, NEWEST

# "rowlock!" read as a 64-bit number; any constant that nobody else uses.
LOCK_FOR_MIGRATION = """
select pg_advisory_xact_lock(8245947788119630625)
"""
CONNECT_SECONDS = 10
FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, DBAPIError)


async def migrate(database_url: str) -> None:
    """Runs the missing steps in one transaction; does nothing on this schema or a newer one.

    Raises FAILURES where PostgreSQL can't be reached or refuses; then nothing is changed.
    """
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: asyncpg.connect(database_url, timeout=CONNECT_SECONDS),
        poolclass=NullPool,
    )
    async with engine.begin() as connection:
        await connection.execute(text(LOCK_FOR_MIGRATION))
        await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> None:
    # Looked up only now, under the lock: somebody may have finished meanwhile.
    has_version = connection.dialect.has_table(connection, "alembic_version")
    current = connection.scalar(text("select max(version_num) from alembic_version")) if has_version else None
    if current is not None and current >= NEWEST:
        return
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def main() -> None:
    """Exits with 1 and a sentence where the settings are wrong or PostgreSQL refuses."""
    try:
        asyncio.run(migrate(settings.load().database_url.get_secret_value()))
    except (NotReady, *FAILURES) as error:
        sys.exit(f"migrate: {reason(error)}")
    sys.stdout.write(f"The schema is {NEWEST} or newer.\n")


def reason(error: BaseException) -> str:
    """What PostgreSQL said, without the statement that SQLAlchemy adds; a timeout says nothing but its name."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    return str(error) or type(error).__name__


if __name__ == "__main__":
    main()
