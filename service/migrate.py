"""`python -m service.migrate`: migrates the database to this release's schema. Several may run at the same time.

`python -m service.migrate --wait SECONDS` only waits until the database is migrated.
"""

import argparse
import asyncio
import sys

import asyncpg
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from service import settings
from service.database import create_engine, ping
from service.errors import NotReady, Unavailable
from service.migrations import NEWEST, steps
from service.settings import Settings

# "rowlock!" read as a 64-bit number. Any constant would do that no other lock of the database uses.
LOCK_FOR_MIGRATION = """
select pg_advisory_xact_lock(8245947788119630625)
"""
# Requests queue behind a step that waits for a table lock. It fails before they are refused (`lock_timeout_ms`).
GIVE_WAY = """
set local lock_timeout = '1 s'
"""
CONNECT_SECONDS = 10
POLL_SECONDS = 0.5
FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, DBAPIError)


async def migrate(database_url: str) -> None:
    """Runs the missing steps in one transaction. Does nothing on this schema or a newer one.

    Raises FAILURES where PostgreSQL is unreachable or rejects a step; then nothing is changed.
    """
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: asyncpg.connect(database_url, timeout=CONNECT_SECONDS),
        poolclass=NullPool,
    )
    async with engine.begin() as connection:
        await connection.execute(text(LOCK_FOR_MIGRATION))
        await connection.execute(text(GIVE_WAY))
        await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> None:
    # Read under the lock, because another process may have migrated while this one waited.
    has_version = connection.dialect.has_table(connection, "alembic_version")
    current = connection.scalar(text("select max(version_num) from alembic_version")) if has_version else None
    if current is not None and current >= NEWEST:
        return
    steps.upgrade(connection)


async def wait(loaded: Settings, seconds: int) -> None:
    """Returns when the schema is this release's or newer. Raises NotReady with the last obstacle."""
    engine = create_engine(loaded, "rowlock-wait")
    obstacle = None
    try:
        async with asyncio.timeout(seconds):
            while (found := await _obstacle(engine)) is not None:
                if found != obstacle:
                    sys.stderr.write(f"migrate: waiting: {found}\n")
                obstacle = found
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise NotReady(f"not within {seconds} s: {obstacle or 'PostgreSQL does not answer'}") from None
    finally:
        await engine.dispose()


async def _obstacle(engine: AsyncEngine) -> str | None:
    """The reason why a process would not start, as a sentence."""
    try:
        await ping(engine)
    except NotReady as error:
        return str(error)
    except Unavailable as error:
        return f"PostgreSQL does not answer: {reason(error.__cause__ or error)}"
    return None


def main() -> None:
    """Exits with 1 and a sentence where the settings are wrong, PostgreSQL fails, or the wait times out."""
    parser = argparse.ArgumentParser(prog="python -m service.migrate", description=__doc__)
    parser.add_argument(
        "--wait", metavar="SECONDS", type=int, help="changes nothing; waits at most this long for the schema"
    )
    seconds = parser.parse_args().wait
    try:
        loaded = settings.load()
        if seconds is None:
            asyncio.run(migrate(loaded.database_url.get_secret_value()))
        else:
            asyncio.run(wait(loaded, seconds))
    except (NotReady, *FAILURES) as error:
        sys.exit(f"migrate: {reason(error)}")
    sys.stdout.write(f"The schema is {NEWEST} or newer.\n")


def reason(error: BaseException) -> str:
    """PostgreSQL's message, without the statement that SQLAlchemy adds; for a timeout, its name."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    return str(error) or type(error).__name__


if __name__ == "__main__":
    main()
