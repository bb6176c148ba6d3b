"""Whether the seat maps in Redis are the ledger's; one that is not is thrown away: its next reader builds it anew."""

import asyncio
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from service.audit import Slice
from service.database import snapshot
from service.errors import CacheAway
from service.metrics import catalogue
from service.seatcache import NEVER_CHANGED, SeatCache
from service.seatreads import read_history
from service.verdicts import Fault

SESSIONS_MAX = 200
POLL_SECONDS = 0.05
WAIT_SECONDS_MAX = 3.0
"""A projector that is further behind is not the audit's business: nobody is shown the maps meanwhile."""

LIST_SESSIONS_AFTER = """
select id
from sessions
where id > $1
order by id
limit $2
"""

READ_VERSIONS = """
select string_agg(left(state, 1), '' order by position) as states, array_agg(version order by position) as versions,
    statement_timestamp() as as_of
from seats
where session_id = $1
having count(*) > 0
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """A session's seats as PostgreSQL has them at `as_of`: a letter and a version a seat, by position."""

    history: str
    states: bytes
    versions: list[int]
    as_of: datetime


async def check_next(engine: AsyncEngine, cache: SeatCache, after: int) -> Slice:
    """The next session that has a map, or so many that have none; while Redis is away there is nothing to look at."""
    async with snapshot(engine) as connection:
        ids = [row["id"] for row in await connection.fetch(LIST_SESSIONS_AFTER, after, SESSIONS_MAX)]
    try:
        mapped = await cache.read_counts(ids)
        if not mapped:
            return Slice([], 0, ids[-1] if len(ids) == SESSIONS_MAX else None)
        session_id = min(mapped)
        fault = await _check_map(engine, cache, session_id)
    except CacheAway:
        return Slice([], 0, None)
    return Slice([fault] if fault else [], 1, session_id)


async def _check_map(engine: AsyncEngine, cache: SeatCache, session_id: int) -> Fault | None:
    """Compares what was committed at a moment with the first map that claims to have it.

    A seat that has changed since is newer in the map, and is left for the next round. Raises CacheAway.
    """
    stored = await _read_stored(engine, session_id)
    for _ in range(round(WAIT_SECONDS_MAX / POLL_SECONDS)):
        freshness, states, versions = await cache.read_versions(session_id)
        if stored is None or freshness is None or states is None or versions is None:
            return None
        if freshness.history != stored.history:
            return None
        if freshness.as_of >= stored.as_of:
            if _agree(stored, states, versions):
                return None
            await cache.forget(freshness.epoch, session_id)
            catalogue.AUDIT_REPAIRED.of().inc()
            return Fault("cache", session_id=session_id)
        await asyncio.sleep(POLL_SECONDS)
    return None


async def _read_stored(engine: AsyncEngine, session_id: int) -> Stored | None:
    async with snapshot(engine) as connection:
        history = await read_history(connection)
        row = await connection.fetchrow(READ_VERSIONS, session_id)
    return Stored(history, row["states"].encode(), row["versions"], row["as_of"]) if row else None


def _agree(stored: Stored, states: bytes, versions: bytes) -> bool:
    if not len(states) == len(stored.states) == len(versions) // 4:
        return False
    for position, version in enumerate(stored.versions):
        # A seat that has never changed has version 0 there, and 1 here.
        known = max(int.from_bytes(versions[position * 4 : position * 4 + 4], "big"), NEVER_CHANGED)
        if known < version or (known == version and states[position] != stored.states[position]):
            return False
    return True
