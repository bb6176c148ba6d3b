"""What the service's pool of connections has given out."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine


def checked_out(engine: AsyncEngine) -> int:
    """The number of connections that are checked out of the pool."""
    pool: Any = engine.pool
    return int(pool.checkedout())
