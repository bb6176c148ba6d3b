"""Databases of a test's own on a server of its worker, beside the one that every test empties."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from dev.postgres import Postgres


@asynccontextmanager
async def own_database(postgres: Postgres, name: str) -> AsyncIterator[str]:
    """The URL of a database without any table, which is dropped at the end."""
    server = await asyncpg.connect(postgres.url())
    try:
        # template0, because a connection to another template would be in the way.
        await server.execute(f"create database {name} template template0")
        try:
            yield postgres.url(name)
        finally:
            await server.execute(f"drop database {name} with (force)")
    finally:
        await server.close()
