"""Additional databases for single tests, on the worker's server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from dev.postgres import Postgres


@asynccontextmanager
async def own_database(postgres: Postgres, name: str) -> AsyncIterator[str]:
    """The URL of a database without tables, which is dropped at the end."""
    server = await asyncpg.connect(postgres.url())
    try:
        # template0 accepts no connections; an open connection to another template would make this fail.
        await server.execute(f"create database {name} template template0")
        try:
            yield postgres.url(name)
        finally:
            await server.execute(f"drop database {name} with (force)")
    finally:
        await server.close()
