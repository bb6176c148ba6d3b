"""Whether the seat maps in Redis agree with the ledger. A wrong map is deleted, and its next reader builds it again."""

import asyncio
import struct
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from sqlalchemy.ext.asyncio import AsyncEngine

from service.audit.slices import Limits, Slice
from service.audit.verdicts import Fault
from service.database import snapshot
from service.errors import Busy, CacheAway
from service.observability.metrics import catalogue
from service.seatmap.cached import SeatCache
from service.seatmap.encoding import NEVER_CHANGED, Kept
from service.seatmap.stored import read_history

POLL_SECONDS = 0.1

LIST_SESSIONS_AFTER = """
select id
from sessions
where id > $1
order by id
limit $2
"""

# As a map has them: a seat that was never changed has version 0 there.
READ_VERSIONS = """
select string_agg(left(state, 1), '' order by position) as states,
    string_agg(int4send(case version when 1 then 0 else version end), '' order by position) as versions,
    statement_timestamp() as as_of
from seats
where session_id = $1
having count(*) > 0
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """A session's seats as PostgreSQL has them at `as_of`, in the form of a map."""

    history: str
    states: bytes
    versions: bytes
    as_of: datetime


async def check_next(engine: AsyncEngine, cache: SeatCache, limits: Limits, after: int) -> Slice:
    """Checks the next session that has a map. Where Redis or the projector is down, none is known: the pass ends."""
    async with snapshot(engine) as connection:
        ids = [row["id"] for row in await connection.fetch(LIST_SESSIONS_AFTER, after, limits.sessions)]
    mapped = await _find_maps(cache, limits, ids)
    if mapped is None:
        return Slice([], 0, None, unlooked=1)
    if not mapped:
        return Slice([], 0, ids[-1] if len(ids) == limits.sessions else None)
    session_id = min(mapped)
    try:
        return await _check_map(engine, cache, limits, session_id)
    except (Busy, CacheAway):
        return Slice([], 0, session_id, unlooked=1)


async def _find_maps(cache: SeatCache, limits: Limits, ids: Sequence[int]) -> Collection[int] | None:
    """The sessions that have a map; None where none is fresh, or Redis is down. After a map that Redis did not return
    in time the service does not ask it for a moment: the next maps are checked after that.
    """
    async for _ in _polls(limits):
        with suppress(CacheAway):
            return await cache.read_fresh_counts(ids)
    return None


async def _check_map(engine: AsyncEngine, cache: SeatCache, limits: Limits, session_id: int) -> Slice:
    """Compares the seats of a moment with the first map that claims to have them. Raises Busy, CacheAway."""
    stored = await read_stored(engine, session_id)
    async for _ in _polls(limits):
        freshness, kept = await cache.read_whole(session_id)
        if freshness is None:
            break
        if stored is None or kept is None or freshness.history != stored.history:
            # The session or its map has gone meanwhile.
            return Slice([], 0, session_id)
        if freshness.as_of >= stored.as_of:
            if await _is_right(engine, limits, session_id, stored, kept):
                return Slice([], 1, session_id)
            # The next round finds a map that Redis did not delete.
            with suppress(CacheAway):
                await cache.forget(freshness.epoch, session_id)
                catalogue.AUDIT_REPAIRED.of().inc()
            return Slice([Fault("cache", session_id=session_id)], 1, session_id)
    return Slice([], 0, session_id, unlooked=1)


async def _polls(limits: Limits) -> AsyncIterator[None]:
    for _ in range(round(limits.map_wait_seconds / POLL_SECONDS)):
        yield
        await asyncio.sleep(POLL_SECONDS)


async def read_stored(engine: AsyncEngine, session_id: int) -> Stored | None:
    """Raises Busy where it takes too long; None where the session has no seats."""
    async with snapshot(engine) as connection:
        history = await read_history(connection)
        row = await connection.fetchrow(READ_VERSIONS, session_id)
    return Stored(history, row["states"].encode(), row["versions"], row["as_of"]) if row else None


async def _is_right(engine: AsyncEngine, limits: Limits, session_id: int, stored: Stored, kept: Kept) -> bool:
    """Whether the map, which was read after `stored`, can be correct."""
    counts = (kept.states.count(b"H"), kept.states.count(b"S"))
    sizes = (len(stored.states), len(stored.versions))
    if (len(kept.states), len(kept.versions), kept.held, kept.sold) != (*sizes, *counts):
        return False
    if (kept.states, kept.versions) == (stored.states, stored.versions):
        return True
    if not await only_newer(stored, kept, limits.seats_at_once):
        return False
    # Seats have changed meanwhile. The map can't be newer than the ledger is now.
    later = await read_stored(engine, session_id)
    return later is None or later.history != stored.history or await only_newer(kept, later, limits.seats_at_once)


async def only_newer(earlier: Stored | Kept, later: Stored | Kept, seats_at_once: int) -> bool:
    """Whether each seat that is not the same in both is newer in the later one. The expirer's other loops continue
    after each `seats_at_once`; a thread, which has to run Python too, would delay them for longer.
    """
    pairs = zip(_versions_and_states(earlier), _versions_and_states(later), strict=True)
    while piece := list(islice(pairs, seats_at_once)):
        if any(old != new and old[0] >= new[0] for old, new in piece):
            return False
        await asyncio.sleep(0)
    return True


def _versions_and_states(seats: Stored | Kept) -> Iterator[tuple[int, int]]:
    for (version,), state in zip(struct.iter_unpack(">I", seats.versions), seats.states, strict=True):
        yield max(version, NEVER_CHANGED), state
