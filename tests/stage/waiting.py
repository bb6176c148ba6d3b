"""Waiting for what PostgreSQL shows, instead of sleeping for a while."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from service.database import Connection

WAIT_SECONDS_MAX = 20

COUNT_LOCK_WAITS = """
select count(*)
from pg_stat_activity
where datname = current_database()
and wait_event_type = 'Lock'
and ($1::text is null or query like $1)
"""


async def until(condition: Callable[[], Awaitable[bool]], what: str, seconds_max: float = WAIT_SECONDS_MAX) -> None:
    """Returns when the condition holds; fails after `seconds_max`."""
    deadline = time.monotonic() + seconds_max
    while not await condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        await asyncio.sleep(0.01)


async def until_lock_waits(sql: Connection, count: int = 1, query_like: str | None = None) -> None:
    """Returns when this many backends (whose query is like that) wait for a lock."""

    async def waits() -> bool:
        return int(await sql.fetchval(COUNT_LOCK_WAITS, query_like)) >= count

    await until(waits, f"{count} waiting for a lock")
