"""Whether the seat maps in Redis agree with the ledger. A wrong map is deleted, and its next reader builds it again."""

import asyncio
import struct
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from operator import gt, lt

from sqlalchemy.ext.asyncio import AsyncEngine

from service.audit.slices import Limits, Slice, bounded
from service.audit.verdicts import Fault
from service.database import snapshot
from service.errors import Busy, CacheAway
from service.observability.metrics import catalogue
from service.seatmap.cached import SeatCache
from service.seatmap.encoding import NEVER_CHANGED, Kept
from service.seatmap.stored import read_history

POLL_SECONDS = 0.05

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


async def check_next(engine: AsyncEngine, cache: SeatCache, limits: Limits, after: int) -> Slice:
    """Checks the next session that has a map, or passes over sessions without one. While Redis is down or the projector
    has stopped, it is not known which maps are there: then the pass ends.
    """
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
    stored = await read_stored(engine, limits, session_id)
    if stored is None:
        # The session has gone meanwhile.
        return Slice([], 0, session_id)
    if await _has_caught_up(cache, limits, stored):
        freshness, kept = await cache.read_whole(session_id)
        if freshness and (kept is None or freshness.history != stored.history):
            # The map has gone meanwhile.
            return Slice([], 0, session_id)
        # The watermark may be another one by now.
        if freshness and kept and freshness.as_of >= stored.as_of:
            if await _is_right(engine, limits, session_id, stored, kept):
                return Slice([], 1, session_id)
            return await _delete(cache, freshness.epoch, session_id)
    return Slice([], 0, session_id, unlooked=1)


async def _has_caught_up(cache: SeatCache, limits: Limits, stored: Stored) -> bool:
    """Whether the maps are at least as new, or of another history. False where the projector has stopped or lags."""
    async for _ in _polls(limits):
        freshness = await cache.read_freshness()
        if freshness is None:
            return False
        if freshness.as_of >= stored.as_of or freshness.history != stored.history:
            return True
    return False


async def _polls(limits: Limits) -> AsyncIterator[None]:
    for _ in range(round(limits.map_wait_seconds / POLL_SECONDS)):
        yield
        await asyncio.sleep(POLL_SECONDS)


async def _delete(cache: SeatCache, epoch: str, session_id: int) -> Slice:
    """The fault is reported in any case; the next round finds a map that Redis did not delete."""
    with suppress(CacheAway):
        await cache.forget(epoch, session_id)
        catalogue.AUDIT_REPAIRED.of().inc()
    return Slice([Fault("cache", session_id=session_id)], 1, session_id)


async def read_stored(engine: AsyncEngine, limits: Limits, session_id: int) -> Stored | None:
    """Raises Busy where it takes too long; None where the session has no seats."""
    async with bounded(engine, limits) as connection:
        history = await read_history(connection)
        row = await connection.fetchrow(READ_VERSIONS, session_id)
    return Stored(history, row["states"].encode(), row["versions"], row["as_of"]) if row else None


async def _is_right(engine: AsyncEngine, limits: Limits, session_id: int, stored: Stored, kept: Kept) -> bool:
    """Whether the map, which is at least as new, can be correct; a seat that has changed since is newer in it."""
    size = len(stored.states)
    counts = (kept.states.count(b"H"), kept.states.count(b"S"))
    if (len(kept.states), len(kept.versions), kept.held, kept.sold) != (size, 4 * size, *counts):
        return False
    is_older, is_newer, is_other = await compare(stored, kept, limits.seats_at_once)
    if is_older or is_other:
        return False
    later = await read_stored(engine, limits, session_id) if is_newer else None
    if later is None or later.history != stored.history:
        return True
    # The map was read before: it can't be newer than the ledger is now.
    _, is_newer, is_other = await compare(later, kept, limits.seats_at_once)
    return not (is_newer or is_other)


async def compare(stored: Stored, kept: Kept, seats_at_once: int) -> tuple[bool, bool, bool]:
    """Whether the map has an older version of a seat, a newer one, or another state at the same version. The expirer's
    other loops continue after each `seats_at_once`; a thread, which has to run Python too, would delay them for longer.
    """
    is_older = is_newer = is_other = False
    for start in range(0, len(stored.states), seats_at_once):
        await asyncio.sleep(0)
        end = start + seats_at_once
        versions = stored.versions[start:end]
        # A seat that has never changed has version 0 in the map, and 1 in the ledger.
        packed = struct.iter_unpack(">I", kept.versions[4 * start : 4 * end])
        known = [max(version, NEVER_CHANGED) for (version,) in packed]
        is_older = is_older or any(map(lt, known, versions))
        is_newer = is_newer or any(map(gt, known, versions))
        states = zip(versions, known, stored.states[start:end], kept.states[start:end], strict=True)
        is_other = is_other or any(version == newer and a != b for version, newer, a, b in states)
    return is_older, is_newer, is_other
