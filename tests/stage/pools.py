"""What the service's pool of connections has given out."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine


def checked_out(engine: AsyncEngine) -> int:
    """How many of the pool's connections somebody has."""
    pool: Any = engine.pool
    return int(pool.checkedout())
