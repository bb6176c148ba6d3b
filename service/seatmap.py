"""A session's seats with their states, as somebody sees them who chooses one: from Redis, or from PostgreSQL.

No write ever reads this. What never changes of a seat is remembered in the process; the states come as one byte a seat.
"""

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Literal, TypeVar

import structlog
from cachetools import LRUCache, TTLCache
from sqlalchemy.ext.asyncio import AsyncEngine

from service.cache import Cache
from service.database import snapshot
from service.errors import CacheAway, NotFound
from service.reservation import SeatState
from service.seatcache import NEVER_CHANGED, STATE_OF, Change, Freshness, SeatCache
from service.settings import Settings

LAYOUT_SEATS_MAX = 500_000
RECENT_MAX = 1_000
BUILD_LOCK_MS = 10_000
BUILD_POLL_SECONDS = 0.02

T = TypeVar("T")
log = structlog.stdlib.get_logger("rowlock.seatmap")


@dataclass(frozen=True, slots=True)
class Layout:
    """What never changes: the columns of a session's seats, by position; prices in minor units."""

    seat_ids: Sequence[int]
    placements: Sequence[str]
    prices: Sequence[int]
    currency: str


@dataclass(frozen=True, slots=True)
class SeatMap:
    """`states` has a letter a seat, by position: A, H or S, at least as new as `as_of`, which was `age_ms` ago."""

    layout: Layout
    states: bytes
    source: Literal["redis", "postgresql"]
    as_of: datetime
    age_ms: int


READ_LAYOUT = """
select currency,
    array_agg(seats.id order by position) as seat_ids,
    array_agg(placement order by position) as placements,
    array_agg(seats.price order by position) as prices
from seats
join sessions on sessions.id = session_id
where session_id = $1
group by sessions.id
"""

# Whole columns: building 100,000 records costs the process more than the query costs PostgreSQL.
READ_STATES = """
select statement_timestamp() as as_of, string_agg(left(state, 1), '' order by position) as states
from seats
where session_id = $1
"""

READ_CHANGED = """
select position, state, version
from seats
where session_id = $1
and version > $2
"""


class SeatMaps:
    """One per process. `cache` is None where there is no Redis."""

    def __init__(self, engine: AsyncEngine, cache: Cache | None, settings: Settings) -> None:
        self._engine = engine
        self._cache = SeatCache(cache, settings.map_fresh_ms, settings.map_keep_minutes) if cache else None
        self._wait_seconds = settings.map_wait_ms / 1000
        self._layouts: LRUCache[int, Layout] = LRUCache(LAYOUT_SEATS_MAX, getsizeof=lambda layout: len(layout.seat_ids))
        self._recent: TTLCache[int, tuple[datetime, bytes, float]] = TTLCache(
            RECENT_MAX, max(settings.map_read_interval_ms / 1000, 0.001)
        )
        self._reading = asyncio.Semaphore(settings.map_reads_max)
        self._flights: dict[tuple[str, int], asyncio.Task[Any]] = {}

    async def get(self, session_id: int) -> SeatMap:
        """The map. Raises NotFound, Busy, DatabaseAway."""
        layout = await self._layout(session_id)
        try:
            if self._cache and (found := await self._from_cache(self._cache, session_id, layout)):
                freshness, states = found
                return SeatMap(layout, states, "redis", freshness.as_of, freshness.age_ms)
        except CacheAway:
            pass
        as_of, states, age_ms = await self._from_database(session_id)
        return SeatMap(layout, states, "postgresql", as_of, age_ms)

    async def counts(self, session_ids: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Seats held and sold of those sessions whose map in Redis is complete and fresh."""
        try:
            return await self._cache.read_counts(session_ids) if self._cache else {}
        except CacheAway:
            return {}

    async def _layout(self, session_id: int) -> Layout:
        if (layout := self._layouts.get(session_id)) is None:
            layout = await self._once("layout", session_id, self._read_layout)
            # One that is larger than all that may be remembered is read each time.
            if len(layout.seat_ids) <= LAYOUT_SEATS_MAX:
                self._layouts[session_id] = layout
        return layout

    async def _read_layout(self, session_id: int) -> Layout:
        async with self._reading, snapshot(self._engine) as connection:
            row = await connection.fetchrow(READ_LAYOUT, session_id)
        if row is None:
            raise NotFound("session")
        return Layout(row["seat_ids"], row["placements"], row["prices"], row["currency"])

    async def _from_cache(self, cache: SeatCache, session_id: int, layout: Layout) -> tuple[Freshness, bytes] | None:
        """The complete map, built if it is not there; None where nothing in Redis is fresh, or it takes too long."""
        freshness, states = await cache.read(session_id)
        if freshness is None or states is not None:
            return (freshness, states) if freshness and states is not None else None
        build = partial(self._build, cache, freshness.epoch, len(layout.seat_ids))
        building = self._flight("build", session_id, build)
        await asyncio.wait([building], timeout=self._wait_seconds)
        freshness, states = await cache.read(session_id)
        return (freshness, states) if freshness and states is not None else None

    async def _build(self, cache: SeatCache, epoch: str, seat_count: int, session_id: int) -> None:
        """Makes the map where nobody else does; waits for it where somebody does."""
        token = secrets.token_hex(8)
        try:
            if not await cache.try_lock(epoch, session_id, token, BUILD_LOCK_MS):
                await self._wait_for_map(cache, session_id)
                return
            # First the map, then the read: the other way round a change between the two would be lost.
            if await cache.begin(epoch, session_id, seat_count, token):
                changes = await self._read_changed(session_id)
                if await cache.fill(epoch, session_id, changes, token):
                    await cache.finish(epoch, session_id, token)
        except CacheAway as error:
            log.info("seat map not built", session_id=session_id, error=repr(error))

    async def _wait_for_map(self, cache: SeatCache, session_id: int) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._wait_seconds
        while clock() < deadline:
            await asyncio.sleep(BUILD_POLL_SECONDS)
            _, states = await cache.read(session_id)
            if states is not None:
                return

    async def _read_changed(self, session_id: int) -> list[Change]:
        async with self._reading, snapshot(self._engine) as connection:
            rows = await connection.fetch(READ_CHANGED, session_id, NEVER_CHANGED)
        return [Change(row["position"], STATE_OF[SeatState(row["state"])], row["version"]) for row in rows]

    async def _from_database(self, session_id: int) -> tuple[datetime, bytes, int]:
        clock = asyncio.get_running_loop().time
        if (recent := self._recent.get(session_id)) is None:
            recent = await self._once("states", session_id, self._read_states)
            self._recent[session_id] = recent
        as_of, states, read_at = recent
        return as_of, states, round((clock() - read_at) * 1000)

    async def _read_states(self, session_id: int) -> tuple[datetime, bytes, float]:
        async with self._reading, snapshot(self._engine) as connection:
            began = asyncio.get_running_loop().time()
            row = await connection.fetchrow(READ_STATES, session_id)
        assert row is not None
        return row["as_of"], row["states"].encode(), began

    async def _once(self, what: str, session_id: int, work: Callable[[int], Coroutine[Any, Any, T]]) -> T:
        """What the work returns, which is done once for all who ask meanwhile."""
        return await asyncio.shield(self._flight(what, session_id, work))

    def _flight(self, what: str, session_id: int, work: Callable[[int], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        key = what, session_id
        if (task := self._flights.get(key)) is None:
            task = self._flights[key] = asyncio.create_task(work(session_id))
            task.add_done_callback(lambda done: self._land(key, done))
        return task

    def _land(self, key: tuple[str, int], task: asyncio.Task[Any]) -> None:
        del self._flights[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("seat map work failed", what=key[0], session_id=key[1], error=repr(error))
