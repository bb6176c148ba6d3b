"""Whether the seat maps in Redis are the ledger's; one that is not is thrown away: its next reader builds it anew."""

import asyncio
import struct
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from operator import gt, lt

from sqlalchemy.ext.asyncio import AsyncEngine

from service.audit.ledger import BOUND_STATEMENTS, Slice
from service.audit.verdicts import Fault
from service.database import roll_back, snapshot, transaction
from service.errors import Busy, BusyReason, CacheAway
from service.observability.metrics import catalogue
from service.seatmap.cached import SeatCache
from service.seatmap.encoding import NEVER_CHANGED, Kept
from service.seatmap.stored import read_history

SESSIONS_MAX = 200
SEATS_AT_ONCE_MAX = 5_000
"""So many are compared in a piece, and between two of them the expirer's other loops go on. A thread would have to run
Python too, and would hold them up for longer.
"""
POLL_SECONDS = 0.05
WAIT_SECONDS_MAX = 3.0
"""A map whose projector is further behind is not looked at."""

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
    """The next session that has a map, or so many that have none. No map can be looked at while Redis is away, nor
    while the projector is: which maps are there is then known to nobody.
    """
    async with snapshot(engine) as connection:
        ids = [row["id"] for row in await connection.fetch(LIST_SESSIONS_AFTER, after, SESSIONS_MAX)]
    mapped = await _find_maps(cache, ids)
    if mapped is None:
        return Slice([], 0, None, unlooked=1)
    if not mapped:
        return Slice([], 0, ids[-1] if len(ids) == SESSIONS_MAX else None)
    session_id = min(mapped)
    try:
        return await _check_map(engine, cache, session_id)
    except CacheAway:
        return Slice([], 0, session_id, unlooked=1)


async def _find_maps(cache: SeatCache, ids: Sequence[int]) -> Collection[int] | None:
    """The sessions that have a map; None where none is fresh, or where Redis is away. It is left alone for a moment
    after a map that it did not give in time: the next maps need not go without a look for that.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + WAIT_SECONDS_MAX
    while True:
        try:
            return await cache.read_fresh_counts(ids)
        except CacheAway:
            if clock() > deadline:
                return None
        await asyncio.sleep(POLL_SECONDS)


async def _check_map(engine: AsyncEngine, cache: SeatCache, session_id: int) -> Slice:
    """Compares what was committed at a moment with the first map that claims to have it. Raises CacheAway."""
    try:
        stored = await _read_stored(engine, session_id)
        if stored is None:
            # The session has gone meanwhile.
            return Slice([], 0, session_id)
        if await _wait_for(cache, stored):
            freshness, kept = await cache.read_whole(session_id)
            if freshness is not None and (kept is None or freshness.history != stored.history):
                # The map has gone meanwhile.
                return Slice([], 0, session_id)
            # The watermark may be another one by now.
            if freshness is not None and kept is not None and freshness.as_of >= stored.as_of:
                if await _is_right(engine, session_id, stored, kept):
                    return Slice([], 1, session_id)
                return await _throw_away(cache, freshness.epoch, session_id)
    except Busy as error:
        # No connection is everybody's trouble, and the same map is the next one.
        if error.reason is not BusyReason.STATEMENT:
            raise
    return Slice([], 0, session_id, unlooked=1)


async def _wait_for(cache: SeatCache, stored: Stored) -> bool:
    """Whether it is time to read the map: it has what is stored by now, or is of another history. Not where the
    projector has gone, or is too far behind.
    """
    for _ in range(round(WAIT_SECONDS_MAX / POLL_SECONDS)):
        freshness = await cache.read_freshness()
        if freshness is None:
            return False
        if freshness.as_of >= stored.as_of or freshness.history != stored.history:
            return True
        await asyncio.sleep(POLL_SECONDS)
    return False


async def _throw_away(cache: SeatCache, epoch: str, session_id: int) -> Slice:
    """The fault is told whether the map goes or not; the next round finds one that stays."""
    with suppress(CacheAway):
        await cache.forget(epoch, session_id)
        catalogue.AUDIT_REPAIRED.of().inc()
    return Slice([Fault("cache", session_id=session_id)], 1, session_id)


async def _read_stored(engine: AsyncEngine, session_id: int) -> Stored | None:
    """Raises Busy where the statement takes too long."""
    async with transaction(engine) as connection:
        await connection.execute(BOUND_STATEMENTS)
        history = await read_history(connection)
        row = await connection.fetchrow(READ_VERSIONS, session_id)
        await roll_back(connection)
    return Stored(history, row["states"].encode(), row["versions"], row["as_of"]) if row else None


async def _is_right(engine: AsyncEngine, session_id: int, stored: Stored, kept: Kept) -> bool:
    """Whether the map, which is at least as new, can be what it says; a seat that has changed since is newer in it."""
    size = len(stored.states)
    counts = (kept.states.count(b"H"), kept.states.count(b"S"))
    if (len(kept.states), len(kept.versions), kept.held, kept.sold) != (size, 4 * size, *counts):
        return False
    is_newer = False
    for piece in _pieces(stored, kept):
        await asyncio.sleep(0)
        if any(map(lt, piece.known, piece.versions)) or not piece.agrees():
            return False
        is_newer = is_newer or any(map(gt, piece.known, piece.versions))
    if not is_newer:
        return True
    later = await _read_stored(engine, session_id)
    if later is None or later.history != stored.history:
        return True
    for piece in _pieces(later, kept):
        await asyncio.sleep(0)
        # What was in the map before can't be newer than what the ledger has now.
        if any(map(gt, piece.known, piece.versions)) or not piece.agrees():
            return False
    return True


@dataclass(frozen=True, slots=True)
class Piece:
    """Some seats, as they are stored and as the map knows them."""

    versions: Sequence[int]
    states: bytes
    known: Sequence[int]
    known_states: bytes

    def agrees(self) -> bool:
        """Whether the seats that are at the same version are in the same state."""
        return all(
            a == b or version != newer
            for a, b, version, newer in zip(self.states, self.known_states, self.versions, self.known, strict=True)
        )


def _pieces(stored: Stored, kept: Kept) -> Iterator[Piece]:
    for start in range(0, len(stored.states), SEATS_AT_ONCE_MAX):
        end = start + SEATS_AT_ONCE_MAX
        # A seat that has never changed has version 0 there, and 1 here.
        versions = struct.iter_unpack(">I", kept.versions[4 * start : 4 * end])
        known = [max(version, NEVER_CHANGED) for (version,) in versions]
        yield Piece(stored.versions[start:end], stored.states[start:end], known, kept.states[start:end])
